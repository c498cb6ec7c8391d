"""A command that explains itself without torch, and makes ready for its work when it begins."""

from __future__ import annotations

from typing import Any

from .._own_command import is_own_command
from .single_values import SingleValuesCommand


class Command(SingleValuesCommand):
    """A command of `hf-video-tome`."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command, once its words are parsed."""
        if is_own_command():  # then importing the package has not registered
            from ..registration import register

            register()
        return super().invoke(ctx)
