"""What the settings in a saved config mean, whatever the defaults have become since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .merging.settings import are_off

_DEFAULTS_OF_0 = {"schedule": "constant", "pooling": "weighted"}
_DEFAULTS_OF_0_BY_MODEL_TYPE: dict[str, dict[str, Any]] = {
    "videomae": {"scope": "clip", "proportional_attention": False},
    "vivit": {"scope": "clip", "proportional_attention": True},
    "timesformer": {"scope": "tube", "proportional_attention": True},
    "motionformer": {"scope": "tube", "proportional_attention": True},
    "vjepa2": {"scope": "clip", "proportional_attention": False, "position": "centroid"},
    "videoprism_vision_model": {"scope": "tube", "proportional_attention": True},
}
"""Version 0 saved only what differed from these. They are history: they never change, and later architectures have no
place here."""


def settings_of_file(model_type: str, fields: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Completes the settings of a config file that version 0 may have saved, which left defaults out.

    Args:
        model_type: As in the config.
        fields: Content of the file.
        prefix: What the names of settings begin with there.

    Returns:
        The fields that are to be added: none where the file merges nothing, or says all itself.

    Examples:
        >>> settings_of_file("videomae", {"token_merging_r": 150, "token_merging_scope": "tube"}, "token_merging_")
        {'token_merging_schedule': 'constant', 'token_merging_pooling': 'weighted', \
'token_merging_proportional_attention': False}
    """
    if are_off({name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}):
        return {}
    defaults = {**_DEFAULTS_OF_0, **_DEFAULTS_OF_0_BY_MODEL_TYPE.get(model_type, {})}
    return {prefix + name: value for name, value in defaults.items() if fields.get(prefix + name) is None}
