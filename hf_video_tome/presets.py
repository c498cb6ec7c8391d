"""Settings by name, for any architecture and size: "paper", "balanced" and "fast"."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedConfig

from .configuration import PRESETS, TokenMergingConfigMixin
from .merging.setting_error import SettingError
from .models import ARCHITECTURES
from .models.encoder import encoder_of
from .models.find_model import find_model
from .models.fit_operations import fit_operations


class Recipe(NamedTuple):
    """What a preset consists of, apart from the number of tokens to remove.

    Attributes:
        settings: Settings that differ from the defaults.
        factor: Least reduction factor of operations.
    """

    settings: Mapping[str, Any]
    factor: float


_EARLY = {"mode": "merge", "schedule": "decreasing", "proportional_attention": True}
_CLUSTER = {"mode": "cluster", "proportional_attention": True}
_RUNS = {"mode": "runs", "proportional_attention": True}
_CHANGED_EARLY = {"input": "run_length", "input_keep": 2 / 3, **_EARLY}

RECIPES: dict[str, dict[str, Recipe]] = {
    "balanced": {
        "joint": Recipe(_EARLY, 2.5),
        "divided": Recipe(_CLUSTER, 2.5),
        # Only patches of one position merge: pairs of similar keys keep fewer answers (70 against 84 % on footage).
        "vjepa2": Recipe(_RUNS, 2.5),
    },
    "fast": {"joint": Recipe(_CHANGED_EARLY, 4.0), "divided": Recipe(_CLUSTER, 3.0)},
}
"""Recipe of each preset for models in which all tokens of a clip attend to each other, for all others, and for single
model types that need another one.

Chosen on validation clips of Moving Digits (standard, moving camera; five architectures) and of camera footage
(VideoMAE trained in two ways, V-JEPA 2): of all methods that reach the factor, the one with the highest mean agreement
with the unmerged model; of those within half a point, the one that loses least accuracy. Camera footage of ViViT and
TimeSformer, looked at afterwards, agrees, but that for divided models at 3 times fewer operations "absorb" by norm is
as good as "cluster": the mode of "balanced" was kept.
"""


def preset(name: str, model_or_config: nn.Module | PreTrainedConfig) -> dict[str, Any]:
    """Returns all settings of a preset for a model.

    | name | what it is |
    |---|---|
    | "paper" | "Video, How Do Your Tokens Merge?" (CVPRW 2025); r is a share of the tokens for clips of other sizes |
    | "balanced" | at least 2.5 times fewer operations |
    | "fast" | at least 4 times fewer operations; 3 for models that attend to space and time separately |

    What "balanced" and "fast" consist of was chosen on validation clips; what they keep on others depends on the
    checkpoint and the videos.

    Args:
        name: Name of the preset.
        model_or_config: A model or config, of transformers or of this package, or a wrapper around a model (peft, DDP,
            `torch.compile`). It is left unchanged.

    Returns:
        Settings for `apply_token_merging` and `set_token_merging`: all of them but `restore`, so that they replace any
        earlier ones.

    Raises:
        SettingError: If there is no such preset, or none of that name for the architecture.
        ValueError: If the model is not supported, or too short for the preset.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig
        >>> preset("paper", VideoMAEConfig())["r"]
        150
    """
    config: Any = (
        find_model(model_or_config).model.config if isinstance(model_or_config, nn.Module) else model_or_config
    )
    config = getattr(config, "token_merging_config", config)
    encoder = encoder_of(config, model_or_config)
    if not isinstance(config, TokenMergingConfigMixin):
        config = encoder.config_class.from_stock(config)
    if name not in PRESETS:
        raise SettingError("preset", name, f"one of {', '.join(map(repr, PRESETS))}")
    return PRESETS[name](config)


def recipe_of(name: str, config: TokenMergingConfigMixin) -> Recipe:
    """Returns the recipe of a preset for a model.

    Args:
        name: Name of the preset, one of `RECIPES`.
        config: Config of the model.

    Returns:
        The recipe of the model type if it has one, or else that of models that attend to clips as a whole, or not.

    Examples:
        >>> from hf_video_tome import TimesformerConfig
        >>> recipe_of("fast", TimesformerConfig()).factor
        3.0
    """
    kind = "joint" if config.default_token_merging_scope == "clip" else "divided"
    return RECIPES[name].get(config.model_type, RECIPES[name][kind])


def _with_defaults(config: TokenMergingConfigMixin, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the defaults of all other settings of the architecture, except for `restore`, which is about the output."""
    complete = {**config.token_merging_defaults(), **settings}
    del complete["restore"]
    return complete


def _paper(config: TokenMergingConfigMixin) -> dict[str, Any]:
    """Returns the settings of the paper; r is a share of the tokens unless the clips are those of the paper."""
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None or not architecture.paper_settings:
        names = ", ".join(sorted(name for name, found in ARCHITECTURES.items() if found.paper_settings))
        raise SettingError(
            "preset", "paper", f"another for {config.model_type}", because=f"the paper is about {names} only"
        )
    settings = _with_defaults(config, architecture.paper_settings)
    usual, layout = type(config)().token_layout, config.token_layout
    if layout.set_size(settings["scope"]) != usual.set_size(settings["scope"]):
        num_tokens, num_protected = usual.set_size(settings["scope"])
        settings["r"] = settings["r"] / (num_tokens - num_protected)
    return settings


def _recipe(name: str, config: TokenMergingConfigMixin) -> dict[str, Any]:
    """Returns the settings of a recipe, with the least r that reaches its factor."""
    recipe = recipe_of(name, config)
    settings = _with_defaults(config, recipe.settings)
    fitted = fit_operations(config, settings, recipe.factor)
    if fitted.factor < recipe.factor:
        raise SettingError(
            "preset",
            name,
            f"another for this {config.model_type}",
            because=f"its layers can save a factor of {fitted.factor:.1f} only, not {recipe.factor:g}",
        )
    return fitted.settings


PRESETS["paper"] = _paper
PRESETS.update({name: partial(_recipe, name) for name in RECIPES})
