"""Amount of removal that meets a budget of operations."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from functools import cache
from math import log
from typing import Any, Literal, NamedTuple

from ..configuration import TokenMergingConfigMixin
from .encoder import ENCODERS


class FittedSettings(NamedTuple):
    """Settings that meet a budget of operations as well as they can.

    Attributes:
        settings: Settings for `set_token_merging`.
        factor: Reduction factor of the multiply-accumulates of one clip.
    """

    settings: dict[str, Any]
    factor: float


def fit_operations(
    config: TokenMergingConfigMixin,
    settings: Mapping[str, Any],
    factor: float,
    *,
    amount: Literal["r", "input_keep"] = "r",
    nearest: bool = False,
) -> FittedSettings:
    """Fits r, or the number of tubelets that the input stage keeps, to a budget of operations.

    Args:
        config: Config of a model that can merge tokens; it is left unchanged.
        settings: All other settings that differ from those of the config.
        factor: Reduction factor of the multiply-accumulates (MACs) of one clip, above 1.
        amount: The setting to fit.
        nearest: Whether the factor may be missed by a little on either side; otherwise, it is reached if possible.

    Returns:
        The settings with the fitted one, and the exact factor. If the factor is out of reach, those that remove the
        most.

    Raises:
        SettingError: If the architecture does not support the settings.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig
        >>> fitted = fit_operations(VideoMAEConfig(), {"schedule": "decreasing"}, 2.5)
        >>> fitted.settings["r"], fitted.factor >= 2.5
        (108, True)
    """
    count = ENCODERS[config.model_type].mac_count
    tried, stock = type(config).from_stock(config), type(config).from_stock(config)
    stock.update_token_merging(**stock.unmerged_settings)
    unmerged, layout = count(stock).total, config.token_layout
    num_patches = layout.num_frames * layout.num_patches
    most = layout.num_tokens if amount == "r" else num_patches - layout.num_patches

    def settings_of(removed: int) -> dict[str, Any]:
        return {**settings, amount: removed if amount == "r" else num_patches - removed}

    @cache
    def factor_of(removed: int) -> float:
        tried.update_token_merging(**settings_of(removed))
        return unmerged / count(tried).total

    @cache
    def tokens_of(removed: int) -> float:
        """Returns the logarithm of the mean number of tokens, almost linear in that of the factor, and cheap."""
        tried.update_token_merging(**settings_of(removed))
        counts = tried.token_merging_plan().token_counts()
        return log(sum(counts) / len(counts))

    def guess(below: int, above: int) -> int:
        """Returns where the factor should be reached, by interpolation between two counts around it."""
        start, end = log(factor_of(below)), log(factor_of(above))
        share = (log(within_reach) - start) / (end - start)
        wanted = tokens_of(below) + share * (tokens_of(above) - tokens_of(below))
        found = bisect_left(range(below + 1, above), -wanted, key=lambda removed: -tokens_of(removed))
        return min(below + 1 + found, above - 1)

    within_reach = min(factor, factor_of(most))
    # Operations fall as more tokens are removed, but removing 1 may cost more than it saves.
    below, low = 0, 0 if factor_of(0) >= within_reach else most
    interpolate = True
    while low - below > 1:
        width, middle = low - below, guess(below, low) if interpolate else (below + low) // 2
        below, low = (below, middle) if factor_of(middle) >= within_reach else (middle, low)
        interpolate = low - below <= width // 2 or not interpolate
    if nearest and low > 1:
        low = min(low - 1, low, key=lambda removed: abs(log(factor_of(removed) / factor)))
    return FittedSettings(settings_of(low), factor_of(low))
