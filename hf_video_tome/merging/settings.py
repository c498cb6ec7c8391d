"""Settings of token merging, each defined once.

Config fields, command line options, the table in the docs, short names and errors are derived from the metadata of the
fields of `TokenMergingSettings`. This module does not need torch, so that `--help` is fast.
"""

from __future__ import annotations

import copy
import json
import numbers
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from .checks import Check, at_least, one_of, true_or_false
from .schedule import MAX_LAYERS, MAX_R, SCHEDULE_INFLECTIONS, check_r, check_schedule
from .scopes import SCOPES
from .setting_error import SettingError
from .threshold import check_threshold
from .values import is_between

DEFAULT_INPUT_KEEP = 2 / 3
"""Share of the tubelets that an input stage keeps by default."""
_DEFAULT_INPUT_KEEP_IN_WORDS = "two thirds"


def _modes() -> Iterable[str]:
    from .modes import MODES

    return MODES


def _input_stages() -> Iterable[str]:
    from .input_stages import INPUT_STAGES

    return INPUT_STAGES


def names_without_torch(folder: str, registry: str) -> list[str]:
    """Returns the names in a registry; before the registry is imported, those of its files.

    Args:
        folder: Package next to this module, in which every file except `registry.py` is an entry of that name.
        registry: Name of the registry.

    Returns:
        The names in alphabetical order.

    Examples:
        >>> "run_length" in names_without_torch("input_stages", "INPUT_STAGES")
        True
    """
    imported = getattr(sys.modules.get(f"{__package__}.{folder}"), registry, None)
    if imported:
        return sorted(imported)
    files = {file.stem for file in (Path(__file__).parent / folder).glob("*.py")} - {"__init__", "registry"}
    # Code saved with a checkpoint is in one folder, and has imported torch.
    return sorted(files or {"modes": _modes, "input_stages": _input_stages}[folder]())


def _check_input_keep(value: Any) -> float | int | None:
    if value is None:
        return None
    if isinstance(value, numbers.Integral):
        if is_between(value, 2, MAX_R):
            return operator.index(value)
    elif is_between(value, 0, 1) and value != 0:
        return value.__float__()  # see `check_r`
    hint = " (write 1.0 to keep all)" if value == 1 else ""
    raise SettingError("input_keep", value, f"a share in (0, 1.0] or a number of tokens >= 2{hint}", optional=True)


def _check_thresholds(value: Any) -> list[float] | None:
    if value is None:
        return None
    allowed = "a list of cosine similarities in [-1, 1], one per layer"
    entries = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if 1 <= len(entries) <= MAX_LAYERS and all(is_between(entry, -1, 1) for entry in entries):
        return [entry.__float__() for entry in entries]
    raise SettingError("thresholds", value, allowed, optional=True)


def _check_input_threshold(value: Any) -> float | None:
    if value is None:
        return None
    if is_between(value, 0, sys.float_info.max):
        return value.__float__()
    raise SettingError("input_threshold", value, "a number >= 0, in normalised pixels", optional=True)


def _is_json_safe(value: object) -> bool:
    # Not by `json`, which torch.compile cannot trace.
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_json_safe(it) for name, it in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_json_safe(it) for it in value)
    return (
        value is None or isinstance(value, (str, bool)) or is_between(value, -sys.float_info.max, sys.float_info.max)
    )


def _check_mode_options(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, Mapping) and _is_json_safe(value):
        return {name: list(it) if isinstance(it, (list, tuple)) else it for name, it in value.items()} or None
    raise SettingError(
        "mode_options", value, "a dictionary of options of the mode, with JSON-safe values", optional=True
    )


def parse_mode_options(text: str) -> Any:
    """Parses options as typed: a JSON object, or `name=value` separated by commas.

    Examples:
        >>> parse_mode_options("centres=kkz,iterations=5"), parse_mode_options('{"window": 1}')
        ({'centres': 'kkz', 'iterations': 5}, {'window': 1})
    """
    if text.lstrip().startswith("{"):
        return _json_or_text(text)
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals for _, equals, _ in pairs):
        return text
    return {name.strip(): _json_or_text(value.strip()) for name, _, value in pairs}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def is_off(r: float | Sequence[float], input_stage: str | None = None, input_keep: float | int | None = None) -> bool:
    """Returns whether no token is removed, so that no other setting matters.

    Args:
        r: Number of tokens that each layer removes.
        input_stage: Name of the input stage, or None.
        input_keep: Share or number of tokens that the input stage keeps.

    Examples:
        >>> is_off(0), is_off([0, 0]), is_off([0, 8]), is_off(0.1), is_off(0, "random"), is_off(0, "random", 1.0)
        (True, True, False, False, False, True)
    """
    keeps_all = input_stage is None or (isinstance(input_keep, float) and input_keep == 1.0)
    return keeps_all and not (any(r) if isinstance(r, Sequence) else r)


OFF_FIELDS = {"r": 0, "input": None, "input_keep": None}
"""Settings that decide whether tokens merge, with their defaults, in the order of the arguments of `is_off`."""


def are_off(settings: Mapping[str, Any]) -> bool:
    """Returns whether settings given by name remove no token, with all others at their defaults: see `is_off`.

    Examples:
        >>> are_off({"mode": "drop"}), are_off({"r": 0, "input": "random"})
        (True, False)
    """
    return is_off(*(settings.get(name, default) for name, default in OFF_FIELDS.items()))


@dataclass(frozen=True)
class SettingInfo:
    """Metadata of a setting, besides its type and default.

    Attributes:
        check: Returns a value in its JSON-safe form, or raises a `SettingError`.
        help: Effect and allowed values, for users: one or two sentences; `{names}` stands for the names in its
            registry.
        registry: Folder and name of the registry with the allowed names.
        metavar: Placeholder for the value in the help of commands; empty for a setting that is on or off.
        default: Meaning of None if it is the default.
        label: Returns a short name for a value; the name of the setting and the value when None.
        parse: Parses a value typed on a command line; numbers, words and lists are understood without it.
        is_option: Whether commands have an option for it.
        is_common: Whether all architectures have it.
        is_saved_resolved: Whether a config that merges tokens saves the value even at the default, so that a later
            default does not replace it.
    """

    check: Check
    help: str
    registry: tuple[str, str] | None = None
    metavar: str = ""
    default: str | None = None
    label: Callable[[Any], str] | None = None
    parse: Callable[[str], Any] | None = None
    is_option: bool = True
    is_common: bool = True
    is_saved_resolved: bool = False

    def short_name(self, setting: str, value: Any) -> str:
        """Returns the short name of a value, as used in tables."""
        return f"{setting.replace('_', ' ')} {value}" if self.label is None else self.label(value)

    @property
    def description(self) -> str:
        """The help, with the current names of its registry."""
        if self.registry is None:
            return self.help
        *first, last = names_without_torch(*self.registry)
        return self.help.format(names=f"{', '.join(first)} or {last}" if first else last)

    def default_in_words(self, default: Any) -> str:
        """Returns a default as shown to users, in Markdown.

        Examples:
            >>> SETTINGS["scope"].default_in_words(None), SETTINGS["mode"].default_in_words("merge")
            ('chosen by the architecture', "`'merge'`")
        """
        return self.default or "none" if default is None else f"`{default!r}`"


def _setting(default: Any, check: Check, help: str, default_in_words: str | None = None, **info: Any) -> Any:
    described = SettingInfo(check, help, default=default_in_words, **info)
    # A dictionary has no hash: settings that only differ in one share theirs.
    return field(default=default, hash=check != _check_mode_options, metadata={"info": described})


def _label_of_options(options: Any) -> str:
    pairs = options.items() if isinstance(options, Mapping) else ()
    return ", ".join(f"{name} {value}" for name, value in pairs) or "no options"


def _label_of_r(r: Any) -> str:
    return f"r = {','.join(map(str, r)) if isinstance(r, Sequence) else r}"


@dataclass(frozen=True)
class TokenMergingSettings:
    """All settings of token merging, checked individually; immutable, `changed` returns a changed copy.

    A model reads the object once per forward call, so that a call never mixes two versions. `SETTINGS` describes each
    setting. From "Video, How Do Your Tokens Merge?" (CVPRW 2025), https://arxiv.org/abs/2506.03885.

    Raises:
        SettingError: If a value is out of range.

    Examples:
        >>> TokenMergingSettings(r=150).changed(r=[150, 75]).r
        (150, 75)
        >>> print(SETTINGS["pooling"].description)
        How a head that averages tokens weighs a merged token: by its size (weighted), or as one token (mean).
    """

    r: int | float | tuple[int | float, ...] = _setting(
        0,
        partial(check_r, max_share=None),  # the mode has the last word
        "Tokens to remove per layer: a number (150), a share of the tokens (0.1; at most 0.5 for modes that merge "
        "pairs), or a list with one number per layer (8,8,4). 0 merges nothing.",
        metavar="R",
        label=_label_of_r,
    )
    mode: str = _setting(
        "merge",
        one_of("mode", _modes),
        "What to do with redundant tokens: {names}.",
        registry=("modes", "MODES"),
        metavar="MODE",
        label=str,
    )
    schedule: str | float = _setting(
        "constant",
        check_schedule,
        f"How removal is distributed over layers: {', '.join(SCHEDULE_INFLECTIONS)}, or a number from -1 (most in "
        "early layers: fastest) to 1 (most in late layers).",
        metavar="SCHEDULE",
        label=str,
        is_saved_resolved=True,
    )
    threshold: float | None = _setting(
        None,
        check_threshold,
        "Cosine similarity, -1 to 1: the mode hybrid drops a token below it instead of merging it; static_runs merges "
        "patches whose frames are all above it. Required by both.",
        metavar="COSINE",
    )
    thresholds: tuple[float, ...] | None = _setting(
        None,
        _check_thresholds,
        "Thresholds of the mode dymu, one per layer, calibrated on unlabelled clips; r is then the most that a layer "
        "removes.",
        metavar="COSINES",
    )
    mode_options: Mapping[str, Any] | None = _setting(
        None,
        _check_mode_options,
        "Options of the mode, as name=value separated by commas or as JSON.",
        "those of the mode",
        metavar="OPTIONS",
        label=_label_of_options,
        parse=parse_mode_options,
    )
    average: str = _setting(
        "mean",
        one_of("average", ("mean", "norm_preserving", "owner")),
        "Content of a merged token: the mean of its tokens (mean), that mean with the norm of the longest of them "
        "(norm_preserving), or the token that the others were merged into (owner).",
        metavar="CONTENT",
    )
    segments: int | None = _setting(
        None,
        at_least("segments", 1, optional=True),
        "Number of equal runs of time within which tokens merge, as long as there are pairs.",
        "chosen by the mode",
        metavar="SEGMENTS",
    )
    scope: str | None = _setting(
        None,
        one_of("scope", SCOPES, optional=True),
        "Which tokens may merge with each other: those of the whole clip (clip), of each frame (frame), of each frame "
        "with one matching shared by all frames (tube), or of each patch position over time with one matching shared "
        "by all positions (time), so that whole frames merge.",
        "chosen by the architecture",
        metavar="SCOPE",
        label=str,
        is_saved_resolved=True,
    )
    pooling: str = _setting(
        "weighted",
        one_of("pooling", ("weighted", "mean")),
        "How a head that averages tokens weighs a merged token: by its size (weighted), or as one token (mean).",
        metavar="POOLING",
        is_saved_resolved=True,
    )
    head_aggregation: str = _setting(
        "mean",
        one_of("head_aggregation", ("mean", "concat")),
        "Compare tokens by their attention keys, averaged over heads (mean) or concatenated (concat).",
        metavar="HOW",
    )
    proportional_attention: bool | None = _setting(
        None,
        true_or_false("proportional_attention", none_means="the architecture's default"),
        "Let a merged token count as all the tokens that it stands for in attention.",
        "chosen by the architecture",
        label=lambda value: f"{'' if value else 'no '}proportional attention",
        is_saved_resolved=True,
    )
    input: str | None = _setting(
        None,
        one_of("input", _input_stages, optional=True),
        "Input stage that leaves out the tubelets that changed least before the first layer: {names}; random is the "
        "control. For models in which all tokens of a clip attend to each other.",
        "all",
        registry=("input_stages", "INPUT_STAGES"),
        metavar="STAGE",
    )
    input_keep: float | int | None = _setting(
        None,
        _check_input_keep,
        "Tubelets of each clip that the input stage keeps, those that changed most: a share (0.5), rounded up, or a "
        "number (784); at least those of the first slot.",
        _DEFAULT_INPUT_KEEP_IN_WORDS,
        metavar="KEEP",
    )
    input_threshold: float | None = _setting(
        None,
        _check_input_threshold,
        "Change of a tubelet since the previous slot, as mean absolute difference of normalised pixels (0.1), above "
        "which the input stage keeps it, in place of a fixed number.",
        metavar="CHANGE",
    )
    position: str = _setting(
        "centroid",
        one_of("position", ("destination", "centroid")),
        "Position of a merged token in V-JEPA 2: that of the token that the others were merged into (destination), or "
        "the weighted centroid of all of them (centroid). With average owner, always destination.",
        metavar="POSITION",
        is_common=False,
        is_saved_resolved=True,
    )
    restore: bool = _setting(
        False,
        true_or_false("restore"),
        "Return the full grid of tokens from a base model: every token has the state of the token that it was merged "
        "into, or zeros if it was dropped. Ignored by classifiers.",
        is_option=False,
    )

    def __post_init__(self) -> None:
        for name, info in SETTINGS.items():
            value = info.check(getattr(self, name))
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)

    @property
    def is_off(self) -> bool:
        """Whether no token is removed: the model is the stock model, and no other setting matters."""
        return is_off(self.r, self.input, self.input_keep)

    def changed(self, **changes: Any) -> TokenMergingSettings:
        """Returns a copy with some values replaced."""
        return replace(self, **changes)

    def get(self, name: str) -> Any:
        """Returns the value of a setting in its JSON-safe form."""
        value = getattr(self, name)
        if isinstance(value, Mapping):
            return copy.deepcopy(value)
        return list(value) if isinstance(value, tuple) else value


SETTINGS: Mapping[str, SettingInfo] = {it.name: it.metadata["info"] for it in fields(TokenMergingSettings)}
"""Metadata of each setting by name."""
