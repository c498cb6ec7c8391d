"""Command class that rejects repeated single-value options."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from .common import InputError


class SingleValuesCommand(TyperCommand):
    """Command that rejects a single-value option given twice; click would use the last value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments.

        Raises:
            InputError: If a single-value option is repeated.
        """
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for parameter in dict.fromkeys(order):
            # Repeating a flag is harmless, unless it can be negated, as by --no-memory.
            only_flag = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
            repeatable = getattr(parameter, "multiple", False) or only_flag
            if order.count(parameter) > 1 and not repeatable:
                names = "/".join(name for name in (*parameter.opts, *parameter.secondary_opts) if name[:2] == "--")
                raise InputError(f"{names} must be given once, got it {order.count(parameter)} times")
        return super().parse_args(ctx, args)
