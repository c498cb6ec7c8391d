"""Options that take one value are given once."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from .common import InputError


class SingleValuesCommand(TyperCommand):
    """A command that refuses an option with one value when it is given twice; click would take the last."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the words of a command line.

        Raises:
            InputError: Naming the option that was repeated.
        """
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for parameter in dict.fromkeys(order):
            # A flag says the same however often, unless it can be unsaid, as by --no-memory.
            only_flag = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
            repeatable = getattr(parameter, "multiple", False) or only_flag
            if order.count(parameter) > 1 and not repeatable:
                names = "/".join(name for name in (*parameter.opts, *parameter.secondary_opts) if name[:2] == "--")
                raise InputError(f"{names} must be given once, got it {order.count(parameter)} times")
        return super().parse_args(ctx, args)
