"""Meaning of the settings in a saved config, independent of later changes of the defaults."""

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
"""Defaults of version 0, which saved only what differed from them. They never change, and later architectures do not
belong here."""


def settings_of_file(model_type: str, fields: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the settings missing from a config file that version 0, which left out defaults, may have saved.

    Args:
        model_type: Model type of the config.
        fields: Content of the file.
        prefix: Prefix of setting names in the file.

    Returns:
        The fields to add: none if the config does not merge tokens or is complete.

    Examples:
        >>> settings_of_file("videomae", {"token_merging_r": 150, "token_merging_scope": "tube"}, "token_merging_")
        {'token_merging_schedule': 'constant', 'token_merging_pooling': 'weighted', \
'token_merging_proportional_attention': False}
    """
    if are_off({name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}):
        return {}
    defaults = {**_DEFAULTS_OF_0, **_DEFAULTS_OF_0_BY_MODEL_TYPE.get(model_type, {})}
    return {prefix + name: value for name, value in defaults.items() if prefix + name not in fields}
