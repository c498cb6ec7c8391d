"""TimeSformer configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers
from huggingface_hub.dataclasses import strict

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout
from ...merging.setting_error import PREFIX, SettingError
from ...merging.settings import TokenMergingSettings


@strict
class TimesformerConfig(TokenMergingConfigMixin, transformers.TimesformerConfig):
    """`transformers.TimesformerConfig` with the token merging fields of `TokenMergingConfigMixin`.

    Attention alternates between time and space, so tokens are matched within frames and r counts tokens per frame. By
    default, all frames of a clip share one matching ("tube"): temporal attention then still connects the same patch
    positions. The paper matches each frame separately ("frame", r = 18). With "time", whole frames merge and r counts
    frames. Proportional attention is on, in spatial attention, or with "time" in temporal attention.

    Examples:
        >>> TimesformerConfig(token_merging_r=18).token_layout.num_tokens
        1569
    """

    default_token_merging_scope: ClassVar[str] = "tube"
    default_proportional_attention: ClassVar[bool] = True

    @property
    def output_attentions(self) -> bool | None:
        """Whether to return attention weights; they are always computed eagerly."""
        return self._output_attentions

    @output_attentions.setter
    def output_attentions(self, value: bool | None) -> None:
        # transformers would raise an error unless attention is eager, as it always is in the stock model.
        self._output_attentions = value

    def validate_output_attentions(self) -> None:
        """Part of `@strict`-powered validation: every attention implementation can return attention weights."""

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """Scopes that keep the grid that temporal attention needs."""
        return ("frame", "tube", "time")

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """Returns the token layout: CLS, then the patches by position, all frames of a position together."""
        num_frames, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(1, num_frames, rows * columns, patch_major=True)

    def check_token_merging(self, settings: TokenMergingSettings | None = None) -> list[int]:
        """See `TokenMergingConfigMixin.check_token_merging`; only divided space-time attention can merge."""
        settings = self.token_merging if settings is None else settings
        requested = super().check_token_merging(settings)
        if any(requested) and self.attention_type != "divided_space_time":
            raise SettingError(
                f"{PREFIX}r",
                settings.get("r"),
                f"0 for attention_type={self.attention_type!r}",
                because="only 'divided_space_time' can merge tokens",
            )
        return requested
