"""TimeSformer configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers
from huggingface_hub.dataclasses import strict

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout
from ...merging.setting_error import SettingError
from ...merging.settings import TokenMergingSettings


@strict
class TimesformerConfig(TokenMergingConfigMixin, transformers.TimesformerConfig):
    """`transformers.TimesformerConfig` and the token merging fields of `TokenMergingConfigMixin`.

    Space and time are attended to in turn, so tokens are matched inside each frame and r counts per frame. By default
    one matching serves all frames of a clip ("tube"): temporal attention then still pairs what shows the same place.
    The paper matches each frame alone ("frame", r = 18). With "time" whole frames merge and r counts frames.
    Proportional attention is on, in the spatial attention, with "time" in the temporal one.

    Examples:
        >>> TimesformerConfig(token_merging_r=18).token_layout.num_tokens
        1569
    """

    default_token_merging_scope: ClassVar[str] = "tube"
    default_proportional_attention: ClassVar[bool] = True

    @property
    def output_attentions(self) -> bool | None:
        """Whether attention weights are returned; unless the attention is eager already, they are computed eagerly."""
        return self._output_attentions

    @output_attentions.setter
    def output_attentions(self, value: bool | None) -> None:
        # Not refused, as transformers does: the stock model is always eager, and takes it at any time.
        self._output_attentions = value

    def validate_output_attentions(self) -> None:
        """Part of `@strict`-powered validation: attention weights can be had with every attention implementation."""

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """Matching all tokens of a clip would break the grid that attention over time runs on."""
        return ("frame", "tube", "time")

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """CLS, then the tokens place by place, all frames of a place together."""
        num_frames, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(1, num_frames, rows * columns, patch_major=True)

    def check_token_merging(self, settings: TokenMergingSettings | None = None) -> list[int]:
        """See `TokenMergingConfigMixin.check_token_merging`; only divided space-time attention can merge."""
        settings = self.token_merging if settings is None else settings
        requested = super().check_token_merging(settings)
        if any(requested) and self.attention_type != "divided_space_time":
            raise SettingError(
                "token_merging_r",
                settings.get("r"),
                f"0 for attention_type={self.attention_type!r}",
                because="tokens are merged with 'divided_space_time' only",
            )
        return requested
