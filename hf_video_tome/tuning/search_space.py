"""Search space of `tune`: shapes of settings, derived from the registries of modes and input stages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..configuration import PRESETS, TokenMergingConfigMixin
from ..merging.input_stages import INPUT_STAGES
from ..merging.modes import MODES, Mode
from ..merging.schedule import SCHEDULE_INFLECTIONS
from ..merging.setting_error import SettingError
from ..models.fit_operations import FittedSettings, fit_operations
from ..presets import preset
from .decided import DECIDED

THRESHOLDS = (0.4, 0.6, 0.8)
"""Thresholds for modes that need one."""
INPUT_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the budget (on a logarithmic scale) that the input stage takes; the mode takes the rest."""
NO_INPUT = "none"
"""The choice of no input stage."""
_CONTROL = "random"
_SCHEDULES = {inflection: name for name, inflection in SCHEDULE_INFLECTIONS.items()}


def is_control(name: Any) -> bool:
    """Returns whether a mode, an input stage or the value of an option is a random control.

    Examples:
        >>> is_control("random_drop"), is_control("merge")
        (True, False)
    """
    return isinstance(name, str) and _CONTROL in name.split("_")


@dataclass(frozen=True)
class Shape:
    """Settings without the amount of removal, which is fitted to a budget.

    Attributes:
        settings: All settings except for the amount.
        input_share: Share of the budget that the input stage takes, on a logarithmic scale: 0 keeps what `settings`
            says and fits r, 1 fits the input stage alone.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    input_share: float = 0.0

    def fit(self, config: TokenMergingConfigMixin, factor: float) -> FittedSettings:
        """Fits the amount to a budget of operations.

        Args:
            config: Config of the model; it is left unchanged.
            factor: Reduction factor of the multiply-accumulates of one clip.

        Returns:
            All settings, and the exact factor: at least `factor`, or the highest within reach.

        Raises:
            SettingError: If the model does not support the shape.
        """
        settings = dict(self.settings)
        if self.input_share > 0:
            at_input = fit_operations(
                config,
                {**settings, "r": 0},
                factor**self.input_share,
                amount="input_keep",
                nearest=self.input_share < 1,
            )
            if self.input_share == 1:
                return at_input
            settings["input_keep"] = at_input.settings["input_keep"]
        return fit_operations(config, settings, factor)


@dataclass(frozen=True)
class SearchSpace:
    """Search space of a model.

    Attributes:
        base: All settings, at the values that they have unless the search changes them.
        inputs: Names of input stages, after `NO_INPUT`.
        modes: Names of modes.
        proportional_attention: Whether the architecture has it by default.
    """

    base: Mapping[str, Any]
    inputs: tuple[str, ...]
    modes: tuple[str, ...]
    proportional_attention: bool

    def suggest(self, trial: Any) -> Shape:
        """Returns the shape that an Optuna trial suggests.

        Args:
            trial: An `optuna.Trial`.
        """
        settings, share = dict(self.base), 0.0
        stage = trial.suggest_categorical("input", self.inputs)
        if stage != NO_INPUT:
            settings["input"] = stage
            share = trial.suggest_categorical("input_share", INPUT_SHARES)
        settings["proportional_attention"] = trial.suggest_categorical("proportional_attention", (False, True))
        if share == 1:
            return Shape(settings, share)
        mode = MODES[trial.suggest_categorical("mode", self.modes)]
        settings["mode"] = mode.name
        chosen = {}
        for name, choices in _choices(mode).items():
            value = trial.suggest_categorical(f"{mode.name}.{name}", choices)
            if value != mode.options[name].default:
                chosen[name] = value
        settings["mode_options"] = chosen or None
        if mode.needs_threshold:
            settings["threshold"] = trial.suggest_categorical("threshold", THRESHOLDS)
        if not mode.single_layer:
            inflection = trial.suggest_float("schedule", -1.0, 1.0, step=0.25)
            settings["schedule"] = _SCHEDULES.get(inflection, inflection)
        return Shape(settings, share)

    def parameters_of(self, shape: Shape) -> dict[str, Any]:
        """Returns the parameters that suggest a shape, or one much like it if it is not in the space.

        Args:
            shape: The shape.
        """
        settings = shape.settings
        mode, options = MODES[settings["mode"]], settings["mode_options"] or {}
        attention = settings["proportional_attention"]
        return {
            "input": settings["input"] or NO_INPUT,
            "input_share": shape.input_share or INPUT_SHARES[0],
            "proportional_attention": self.proportional_attention if attention is None else attention,
            "mode": mode.name,
            **{f"{mode.name}.{name}": options.get(name, mode.options[name].default) for name in _choices(mode)},
            "threshold": THRESHOLDS[0] if settings["threshold"] is None else settings["threshold"],
            "schedule": float(SCHEDULE_INFLECTIONS.get(settings["schedule"], settings["schedule"])),
        }


def _choices(mode: Mode) -> dict[str, tuple[Any, ...]]:
    """Returns the values of each option to choose from, without random controls."""
    found = {name: tuple(it for it in option.choices if not is_control(it)) for name, option in mode.options.items()}
    return {name: choices for name, choices in found.items() if len(choices) > 1}


def search_space(config: TokenMergingConfigMixin, settings: Mapping[str, Any] | None = None) -> SearchSpace:
    """Returns the search space of a model: all registered modes and input stages that it supports.

    Modes that are adaptive or need calibrated thresholds are left out, and so are random controls (with "random" in
    their names).

    Args:
        config: Config of the model.
        settings: Settings that all trials share, none of those in `DECIDED`.

    Raises:
        SettingError: If the search decides one of the settings, or the model does not support its value.

    Examples:
        >>> from hf_video_tome import TimesformerConfig
        >>> search_space(TimesformerConfig()).inputs
        ('none',)
    """
    for name in settings or {}:
        if name in DECIDED:
            raise SettingError(name, (settings or {})[name], "left out", because="the search decides it")
    base = {**config.token_merging_defaults(), **(settings or {})}
    candidate = type(config).from_stock(config)
    candidate.update_token_merging(**{**base, "r": 1})
    modes = [
        mode.name
        for mode in MODES.values()
        if not (mode.adaptive or mode.needs_thresholds or is_control(mode.name))
        and _is_supported(config, {**base, "mode": mode.name, "r": 1}, mode)
    ]
    stages = [
        name
        for name in INPUT_STAGES
        if not is_control(name) and _is_supported(config, {**base, "input": name, "input_keep": 0.5, "r": 1})
    ]
    attention = config.default_proportional_attention
    return SearchSpace(base, (NO_INPUT, *sorted(stages)), tuple(sorted(modes)), attention)


def _is_supported(config: TokenMergingConfigMixin, settings: Mapping[str, Any], mode: Mode | None = None) -> bool:
    threshold = {"threshold": THRESHOLDS[0]} if mode is not None and mode.needs_threshold else {}
    try:
        type(config).from_stock(config).update_token_merging(**{**settings, **threshold})
    except SettingError:
        return False
    return True


def simple_shapes(config: TokenMergingConfigMixin, space: SearchSpace) -> dict[str, Shape]:
    """Returns the shapes that need no search, by name: constant r, decreasing r, and those of the presets.

    Presets that equal an earlier shape or do not fit the model are left out; "paper" is constant r.
    """
    found: dict[str, Shape] = {}
    for name, shape in _simple_shapes(config, space):
        if all(_key(config, shape) != _key(config, other) for other in found.values()):
            found[name] = shape
    return found


def _simple_shapes(config: TokenMergingConfigMixin, space: SearchSpace) -> Iterator[tuple[str, Shape]]:
    yield "constant r", Shape({**space.base, "schedule": "constant"})
    yield "decreasing r", Shape({**space.base, "schedule": "decreasing"})
    for name in PRESETS:
        try:
            chosen = preset(name, config)
        except SettingError:  # the model has no such preset, or is too short for it
            continue
        if MODES[chosen["mode"]].adaptive or isinstance(chosen["r"], list):
            continue
        shared = {name: value for name, value in space.base.items() if name not in (*DECIDED, *_OF_PRESETS)}
        yield f"preset {name}", Shape({**chosen, **shared}, float(chosen["input"] is not None and chosen["r"] == 0))


_OF_PRESETS = ("average", "segments")
"""Settings that presets may change, although the search does not."""


def _key(config: TokenMergingConfigMixin, shape: Shape) -> str:
    return json.dumps(_resolved(config, {**shape.settings, "r": 1})[1], sort_keys=True)


def settings_key(config: TokenMergingConfigMixin, settings: Mapping[str, Any]) -> str:
    """Returns a text that is equal for settings of equal meaning, by whatever schedule layers remove their tokens."""
    candidate, resolved = _resolved(config, settings)
    resolved |= {"r": candidate.token_merging_plan().removals(), "schedule": None}
    return json.dumps(resolved, sort_keys=True)


def _resolved(
    config: TokenMergingConfigMixin, settings: Mapping[str, Any]
) -> tuple[TokenMergingConfigMixin, dict[str, Any]]:
    candidate = type(config).from_stock(config)
    candidate.update_token_merging(**settings)
    return candidate, candidate.token_merging_settings(resolved=True)
