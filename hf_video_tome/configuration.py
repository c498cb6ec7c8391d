"""Token merging fields of a model config: one frozen object, validated when loaded and when set."""

from __future__ import annotations

import copy
import math
import numbers
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import torch
from transformers import PreTrainedConfig

from .merging.input_stages import INPUT_STAGES
from .merging.layout import TokenLayout
from .merging.modes import MODES, Mode
from .merging.plan import Plan
from .merging.schedule import MAX_LAYERS, requested_removals
from .merging.scopes import SCOPES
from .merging.setting_error import PREFIX, SettingError
from .merging.settings import DEFAULT_INPUT_KEEP, SETTINGS, SettingInfo, TokenMergingSettings
from .merging.step import MergeSettings
from .merging.threshold import missing_threshold
from .merging.values import is_between, shown
from .saved_files import read_json_object
from .saved_settings import settings_of_file

_SETTINGS = "_token_merging_settings"
"""Key of the settings in the `__dict__` of a config."""
_REPLACING = threading.RLock()
"""Held while settings are checked and replaced, so that no other thread changes them in between."""
_SAVED_RESOLVED = [name for name, info in SETTINGS.items() if info.is_saved_resolved]

PRESET = f"{PREFIX}preset"
"""Keyword that stands for all settings of a preset; it is expanded when set and never saved."""
PRESETS: dict[str, Callable[[Any], dict[str, Any]]] = {}
"""Presets by name: functions from a config to all of its settings."""

ConfigT = TypeVar("ConfigT", bound="TokenMergingConfigMixin")
T = TypeVar("T")


class SettingField:
    """Config field that reads and writes a value of the config's `TokenMergingSettings`.

    Args:
        default: The default, also returned by the class attribute.
    """

    def __init__(self, default: Any) -> None:
        self._default = default

    def __set_name__(self, owner: Any, name: str) -> None:
        self._name = name.removeprefix(PREFIX)
        owner.token_merging_fields = {**owner.token_merging_fields, name: SETTINGS[self._name]}

    def __get__(self, config: Any, owner: type | None = None) -> Any:
        return self._default if config is None else config.token_merging.get(self._name)

    def __set__(self, config: Any, value: Any) -> None:
        setattr(config, PREFIX + self._name, value)  # handled by the `__setattr__` of the config


def setting(default: Any) -> Any:
    """Declares a config field that is one of `TokenMergingSettings`: see `SettingField`."""
    return SettingField(default)


def _add_setting(config_class: type, name: str, default: Any) -> None:
    """Adds the field of a setting to a class, before it becomes a dataclass."""
    try:
        checked = SETTINGS[name].check(default)
    except SettingError as error:
        raise error.renamed(_full_name) from None
    declared = SettingField(tuple(checked) if isinstance(checked, list) else checked)  # dataclasses refuse lists
    setattr(config_class, PREFIX + name, declared)
    declared.__set_name__(config_class, PREFIX + name)
    config_class.__annotations__[PREFIX + name] = Any  # each setting has its own check


def with_common_settings(config_class: type[T]) -> type[T]:
    """Adds a field for each setting common to all architectures to a class, before it becomes a dataclass."""
    for it in fields(TokenMergingSettings):
        if SETTINGS[it.name].is_common:
            _add_setting(config_class, it.name, it.default)
    return config_class


def _full_name(name: str) -> str:
    return PREFIX + name.removeprefix(PREFIX)


class ClipShape(NamedTuple):
    """Shape of one clip, (frames, channels, height, width)."""

    frames: int
    channels: int
    height: int
    width: int


def sizes_of(config: Any, name: str, count: int = 1) -> tuple[int, ...]:
    """Returns the sizes in a config field after checking them.

    Args:
        config: The config.
        name: The field: ints >= 1. With `count` = 2, a single int stands for both height and width.
        count: Number of sizes: 1, 2 for (height, width), or 3 for (frames, height, width).

    Returns:
        The sizes.

    Raises:
        ValueError: If the field holds anything else.

    Examples:
        >>> import transformers
        >>> sizes_of(transformers.VideoMAEConfig(), "patch_size", 2)
        (16, 16)
    """
    value = getattr(config, name)
    single = isinstance(value, numbers.Integral)
    sizes = (value,) * min(count, 2) if single else tuple(value) if isinstance(value, Iterable) else ()
    if len(sizes) != count or not all(isinstance(size, numbers.Integral) and int(size) >= 1 for size in sizes):
        allowed = {1: "an int", 2: "an int, or two of them (height, width),", 3: "three ints (frames, height, width)"}
        raise ValueError(f"{name} must be {allowed[count]} of at least 1, got {shown(value)}")
    return tuple(map(int, sizes))


def check_layers(config: Any) -> None:
    """Checks that a config does not ask for too many layers: each of them takes time and memory to build.

    Args:
        config: The config.

    Raises:
        ValueError: If a field `*_layers` is out of range.
    """
    for name, value in vars(config).items():
        if name.endswith("_layers") and isinstance(value, numbers.Integral) and not is_between(value, 0, MAX_LAYERS):
            raise ValueError(f"{name} must be an int from 0 to {MAX_LAYERS}, got {shown(value)}")


@dataclass(kw_only=True, repr=False)
@with_common_settings
class TokenMergingConfigMixin:
    """Adds token merging to a transformers config.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025), https://arxiv.org/abs/2506.03885, which recommends r = 150
    for VideoMAE-B, 300 for ViViT-B, and 18 per frame for TimeSformer-B.

    Each field `token_merging_<name>` is the setting `<name>` of `TokenMergingSettings`, described in the docstring of
    each config. The default, `token_merging_r = 0`, is the stock model. A subclass changes the default of a field as
    in any dataclass, by `token_merging_r: int = 8`.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig
        >>> VideoMAEConfig(token_merging_r=150, token_merging_schedule="decreasing").token_merging_schedule
        'decreasing'
    """

    token_merging_fields: ClassVar[Mapping[str, SettingInfo]] = {}
    """Token merging fields of the architecture, with the metadata of each."""
    default_token_merging_scope: ClassVar[str] = "clip"
    default_proportional_attention: ClassVar[bool] = True
    clip_fields: ClassVar[tuple[str, str, str]] = ("num_frames", "num_channels", "image_size")
    """Fields of the stock config with the frames, channels and image size of a clip."""

    if TYPE_CHECKING:  # fields of the configs that this is mixed into
        model_type: ClassVar[str]
        num_hidden_layers: int

        def __init__(self, **kwargs: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        for name in SETTINGS:
            default = vars(cls).get(PREFIX + name, MISSING)
            if isinstance(default, Field):
                default = default.default if default.default_factory is MISSING else default.default_factory()
            if default is not MISSING and not isinstance(default, SettingField):
                _add_setting(cls, name, default)
        own = cls.__doc__  # None if it has none, or with -OO
        super().__init_subclass__(**kwargs)
        if own:
            cls.__doc__ = f"{cleandoc(own)}\n\nToken merging fields:\n{cls._described_fields()}\n"

    @classmethod
    def _described_fields(cls) -> str:
        """Returns a line for each token merging field."""
        lines = []
        for name, info in cls.token_merging_fields.items():
            lines.append(f"    {name}: {info.description} Default: {info.default_in_words(getattr(cls, name))}.")
        return "\n".join(lines)

    @property
    def token_merging(self) -> TokenMergingSettings:
        """The settings as one immutable object; setting any field replaces it."""
        settings: TokenMergingSettings | None = self.__dict__.get(_SETTINGS)
        if settings is None:  # the config is being built
            settings = TokenMergingSettings(**self.token_merging_defaults())
        return settings

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """Values of `token_merging_scope` that the architecture supports."""
        return SCOPES

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith(PREFIX):
            super().__setattr__(name, value)
            return
        with _REPLACING:
            self.__dict__[_SETTINGS] = self.changed_settings(self.token_merging, {name: value})

    def __post_init__(self, **kwargs: Any) -> None:
        if PRESET in kwargs:
            usual, own = self.token_merging_defaults(), self.token_merging_settings()
            changed = {PREFIX + name: value for name, value in own.items() if value != usual[name]}
            self._check_preset_alone(kwargs[PRESET], changed)
        super().__post_init__(**kwargs)  # type: ignore[misc]
        check_layers(self)
        self.check_token_merging()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickles of earlier versions have one entry per setting.
        brought = {name: value for name, value in state.items() if name.startswith(PREFIX)}
        self.__dict__.update({name: value for name, value in state.items() if name not in brought})
        self._take_settings(brought)

    def _take_settings(self, brought: Mapping[str, Any]) -> None:
        """Sets the fields found in a file or pickle, with the meaning that they had when it was saved."""
        for name, value in {**brought, **settings_of_file(self.model_type, brought, PREFIX)}.items():
            setattr(self, name, value)

    def changed_settings(self, settings: TokenMergingSettings, changes: Mapping[str, Any]) -> TokenMergingSettings:
        """Returns settings with some values replaced; each new value is checked individually.

        Args:
            settings: The settings.
            changes: Names of config fields and their new values.

        Raises:
            SettingError: If a value is out of range.
            ValueError: If the architecture has no such field.
        """
        changes = self.expand_preset(changes)
        self._check_names(changes)
        # Options and segments are those of the old mode.
        if changes.get(f"{PREFIX}mode", settings.mode) != settings.mode:
            changes = {f"{PREFIX}mode_options": None, f"{PREFIX}segments": None, **changes}
        try:
            return settings.changed(**{name.removeprefix(PREFIX): value for name, value in changes.items()})
        except SettingError as error:
            raise error.renamed(_full_name) from None

    def expand_preset(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replaces a preset among changes by its settings.

        Args:
            changes: Names of config fields and their new values.

        Raises:
            SettingError: If there is no such preset for the architecture, or it is combined with other settings.
        """
        if PRESET not in changes:
            return changes
        if torch.compiler.is_compiling():
            raise ValueError(f"{PRESET} must be set before a model is compiled, or given as the settings of preset()")
        name = changes[PRESET]
        others = {other: value for other, value in changes.items() if other != PRESET}
        if name is None:
            return others
        self._check_preset_alone(name, others)
        if not isinstance(name, str) or name not in PRESETS:
            raise SettingError(PRESET, name, f"one of {', '.join(map(repr, PRESETS))}", optional=True)
        try:
            expanded = {_full_name(setting): value for setting, value in PRESETS[name](self).items()}
        except SettingError as error:
            raise error.renamed(_full_name) from None
        return {**expanded, **others}

    @staticmethod
    def _check_preset_alone(name: Any, others: Mapping[str, Any]) -> None:
        """Checks that a preset comes without other settings, except for `restore`, which is about the output."""
        for other, value in others.items():
            if other != f"{PREFIX}restore":
                because = "a preset sets all of them"
                raise SettingError(PRESET, str(name), "left out", given={other: value}, because=because)

    @property
    def token_merging_preset(self) -> None:
        """None: a preset that is set is expanded, and not remembered."""

    @property
    def unmerged_settings(self) -> dict[str, Any]:
        """Changes that turn merging off: the stock model."""
        return {"r": 0} if self.token_merging_input is None else {"r": 0, "input": None}

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """Returns the token layout of a clip.

        Args:
            clip: Shape of the clip; only used by architectures that accept shapes other than that of the config.
        """
        raise NotImplementedError

    @property
    def token_layout(self) -> TokenLayout:
        """Token layout of a clip with the shape given by the config."""
        return self.layout_of(self.clip_shape)

    @property
    def num_merging_layers(self) -> int:
        """Number of layers that can merge tokens; r and the schedule apply to these."""
        return self.num_hidden_layers

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of the clips that the checkpoint expects."""
        frames, channels, pixels = self.clip_fields
        return ClipShape(*sizes_of(self, frames), *sizes_of(self, channels), *sizes_of(self, pixels, 2))

    @property
    def tubelet_shape(self) -> tuple[int, int, int]:
        """Frames, height and width of the tubelet that becomes one token."""
        tubelet = getattr(self, "tubelet_size", None)
        frames = 1
        if isinstance(tubelet, int):
            [frames] = sizes_of(self, "tubelet_size")
        elif tubelet is not None:
            frames, height, width = sizes_of(self, "tubelet_size", 3)
            return frames, height, width
        height, width = sizes_of(self, "patch_size", 2)
        return frames, height, width

    def tubelet_grid(self, clip: ClipShape) -> tuple[int, int, int]:
        """Returns the number of tokens of a clip along time, height and width.

        Raises:
            ValueError: If the clip is smaller than one tubelet.
        """
        frames, height, width = self.tubelet_shape
        frames_field, _, pixels_field = self.clip_fields
        if clip.frames < frames:
            raise ValueError(f"{frames_field} must be at least {frames}, the frames of a tubelet, got {clip.frames}")
        if clip.height < height or clip.width < width:
            raise ValueError(
                f"{pixels_field} must be at least {height} x {width}, the size of a patch, got "
                f"{clip.height} x {clip.width}"
            )
        return clip.frames // frames, clip.height // height, clip.width // width

    def check_token_merging(self, settings: TokenMergingSettings | None = None) -> list[int]:
        """Checks settings against each other and the architecture, and that a clip has at least one token.

        Args:
            settings: The settings; those of the config when None.

        Returns:
            Number of tokens that each layer is asked to remove from each matched set.

        Raises:
            ValueError: If a check fails.
        """
        settings = self.token_merging if settings is None else settings
        self.tubelet_grid(self.clip_shape)
        mode = MODES[settings.mode]
        inputs = self._check_mode(mode, settings)
        if settings.scope is not None and settings.scope not in self.supported_token_merging_scopes:
            allowed = ", ".join(repr(name) for name in self.supported_token_merging_scopes)
            raise SettingError(f"{PREFIX}scope", settings.scope, f"one of {allowed} for {self.model_type}")
        self._check_input_amount(settings)
        if settings.is_off:
            return self._requested_removals(self.token_layout, settings)
        scope = self._scope(settings)
        if mode.scopes is not None and (scope not in mode.scopes or scope not in self.supported_token_merging_scopes):
            allowed = " or ".join(map(repr, mode.scopes))
            because = "" if scope in self.supported_token_merging_scopes else f"{self.model_type} does not support it"
            given = {f"{PREFIX}mode": mode.name}
            raise SettingError(f"{PREFIX}scope", settings.scope, allowed, given=given, because=because or None)
        if scope != "clip" and "attention" in inputs:
            given, because = {f"{PREFIX}mode": mode.name}, "it reads the attention between all tokens"
            raise SettingError(f"{PREFIX}scope", scope, "'clip'", given=given, because=because)
        if mode.adaptive and scope == "frame":
            raise SettingError(
                f"{PREFIX}scope",
                "frame",
                "another",
                given={f"{PREFIX}mode": settings.mode},
                because="frames must stay equally long",
            )
        if settings.segments is not None and scope in ("frame", "tube"):
            because = "a frame has no runs of time"
            raise SettingError(
                f"{PREFIX}segments", settings.segments, "None", given={f"{PREFIX}scope": scope}, because=because
            )
        if "index" in inputs and self.token_layout.num_columns is None:
            because = "its layers do not know the frames and rows of patches"
            raise SettingError(f"{PREFIX}mode", mode.name, f"another for this {self.model_type}", because=because)
        self._check_input_stage(settings)
        return self._requested_removals(self.token_layout, settings)

    def _check_mode(self, mode: Mode, settings: TokenMergingSettings) -> tuple[str, ...]:
        """Checks the settings that depend on the mode, and returns the inputs that it reads."""
        given = {"mode": mode.name}
        try:
            inputs = mode.inputs(mode.complete_options(settings.mode_options))
            if mode.needs_threshold and settings.threshold is None:
                raise missing_threshold(mode.name)
            if mode.needs_thresholds:
                count = 0 if settings.thresholds is None else len(settings.thresholds)
                if count != self.num_merging_layers:
                    allowed = f"a list of {self.num_merging_layers} cosine similarities, one per layer"
                    got = None if settings.thresholds is None else f"{count} of them"
                    raise SettingError("thresholds", settings.thresholds, allowed, got, given=given)
            if self.default_token_merging_scope != "clip" and {"attention", "mlp"}.intersection(inputs):
                because = "it needs layers in which all tokens attend to each other"
                raise SettingError("mode", mode.name, f"another for {self.model_type}", because=because)
            if settings.average != "mean" and not mode.averages:
                raise SettingError("average", settings.average, "'mean'", given=given, because="it averages nothing")
            if settings.segments is not None and "segments" not in inputs:
                raise SettingError("segments", settings.segments, "None", given=given)
        except SettingError as error:
            raise error.renamed(_full_name) from None
        return inputs

    def _check_input_stage(self, settings: TokenMergingSettings) -> None:
        if settings.input is None:
            return
        if not self.supports_input_stage:
            raise SettingError(
                f"{PREFIX}input",
                settings.input,
                f"None for this {self.model_type}",
                because="an input stage needs layers in which all tokens attend to each other, and a head that reads "
                "any of them",
            )
        scope = self._scope(settings)
        if scope != "clip":
            raise SettingError(
                f"{PREFIX}scope",
                scope,
                "'clip'",
                given={f"{PREFIX}input": settings.input},
                because="the tokens that an input stage keeps form no grid",
            )

    def _check_input_amount(self, settings: TokenMergingSettings) -> None:
        """Checks that a number or a threshold decides how many tubelets enter, not both."""
        if settings.input is None or settings.input_threshold is None:
            return
        if not INPUT_STAGES[settings.input].takes_threshold:
            given: dict[str, Any] = {f"{PREFIX}input": settings.input}
            raise SettingError(f"{PREFIX}input_threshold", settings.input_threshold, "None", given=given)
        if settings.input_keep is not None:
            given = {f"{PREFIX}input_keep": settings.input_keep}
            because = "either a number or a threshold decides"
            raise SettingError(
                f"{PREFIX}input_threshold", settings.input_threshold, "None", given=given, because=because
            )
        r = settings.get("r")
        has_share = any(isinstance(entry, float) for entry in (r if isinstance(r, list) else [r]))
        if has_share and not MODES[settings.mode].adaptive:  # for those, r is only a limit
            given = {f"{PREFIX}input_threshold": settings.input_threshold}
            because = "the number of tokens of which it would be a share differs from clip to clip"
            raise SettingError(f"{PREFIX}r", r, "an int, or a list of ints", given=given, because=because)

    def _scope(self, settings: TokenMergingSettings) -> str:
        """Returns the scope: that of the settings, of the architecture, or the first that the mode supports."""
        if settings.scope is not None:
            return settings.scope
        scopes = MODES[settings.mode].scopes
        default = self.default_token_merging_scope
        return default if scopes is None or default in scopes else scopes[0]

    @property
    def supports_input_stage(self) -> bool:
        """Whether tubelets can be removed before the first layer."""
        return self.default_token_merging_scope == "clip"

    def _kept_at_input(self, layout: TokenLayout, settings: TokenMergingSettings) -> int | None:
        """Returns the number of patch tokens that the input stage keeps, None for all."""
        num_tokens = layout.num_frames * layout.num_patches
        if settings.input is None:
            return None
        if settings.input_threshold is not None:
            return num_tokens
        keep = DEFAULT_INPUT_KEEP if settings.input_keep is None else settings.input_keep
        if isinstance(keep, float):
            # 2/3 of 288 is 192, whatever the product rounds to.
            kept = max(math.ceil(keep * num_tokens - 1e-9), layout.num_patches)
        elif keep < layout.num_patches:
            raise SettingError(
                f"{PREFIX}input_keep", keep, f"a share, or at least the {layout.num_patches} tokens of a frame"
            )
        else:
            kept = min(keep, num_tokens)
        return None if kept == num_tokens else kept

    def _requested_removals(self, layout: TokenLayout, settings: TokenMergingSettings) -> list[int]:
        """Returns the number of tokens that each layer is asked to remove from each matched set."""
        set_tokens, num_protected = layout.set_size(self._scope(settings))
        kept = self._kept_at_input(layout, settings)
        if kept is not None:
            set_tokens = kept + layout.num_prefix_tokens
        mode = MODES[settings.mode]
        try:
            requested = requested_removals(
                settings.get("r"),
                settings.schedule,
                self.num_merging_layers,
                (set_tokens - num_protected) // mode.num_groups,
                max_share=mode.max_share,
                single_layer=mode.single_layer,
            )
            if mode.num_groups > 1 and any(requested):
                self._check_groups(mode, settings, set_tokens - num_protected)
        except SettingError as error:
            raise error.renamed(_full_name) from None
        return requested

    def _check_groups(self, mode: Mode, settings: TokenMergingSettings, num_tokens: int) -> None:
        """Checks that the tokens of a set can be divided into the groups of the mode."""
        because = f"it divides tokens into {mode.num_groups} equal groups"
        if num_tokens % mode.num_groups:
            raise SettingError("mode", mode.name, f"another for {num_tokens} patch tokens", because=because)
        if settings.input_threshold is not None:
            given = {"mode": mode.name}
            raise SettingError("input_threshold", settings.input_threshold, "None", given=given, because=because)

    def token_merging_plan(
        self, clip_shape: ClipShape | None = None, settings: TokenMergingSettings | None = None
    ) -> Plan:
        """Plans what each layer does, once per forward call and from one settings object.

        Args:
            clip_shape: Shape of the clips if it may differ from that of the config.
            settings: The settings; those of the config when None.

        Returns:
            The plan for such clips; if r is a share, it refers to the number of their tokens.

        Raises:
            ValueError: If the settings are not compatible with each other.
        """
        settings = self.token_merging if settings is None else settings
        requested, layout = self.check_token_merging(settings), self.token_layout
        if clip_shape is not None and clip_shape != self.clip_shape:
            layout = self.layout_of(clip_shape)
            requested = self._requested_removals(layout, settings)
        how = MergeSettings(
            mode=settings.mode,
            threshold=settings.threshold,
            head_aggregation=settings.head_aggregation,
            pooling=settings.pooling,
            position=settings.position,
            average=settings.average,
            thresholds=settings.thresholds,
            options=MODES[settings.mode].complete_options(settings.mode_options),
            **self._architecture_choices(settings, layout),
        )
        kept = self._kept_at_input(layout, settings)
        return Plan(
            requested,
            layout,
            how,
            input_stage=settings.input if kept is not None else None,
            input_keep=kept,
            input_threshold=settings.input_threshold,
            tubelet_shape=self.tubelet_shape,
            reads="grid" if settings.restore else "tokens",
        )

    def default_segments(self, layout: TokenLayout) -> int | None:
        """Returns the number of segments of a clip, for modes that have a default; None for that of the mode."""
        return None

    def _architecture_choices(self, settings: TokenMergingSettings, layout: TokenLayout) -> dict[str, Any]:
        """Returns the architecture's choices for settings that are None, and clips of a layout."""
        proportional, segments, scope = settings.proportional_attention, settings.segments, self._scope(settings)
        default = MODES[settings.mode].default_segments
        if segments is None and scope == "clip" and default is not None:
            segments = self.default_segments(layout) or default
        return {
            "scope": scope,
            "segments": segments,
            "proportional_attention": self.default_proportional_attention if proportional is None else proportional,
        }

    def token_merging_settings(
        self, resolved: bool = False, settings: TokenMergingSettings | None = None
    ) -> dict[str, Any]:
        """Returns the token merging fields as settings for `update_token_merging` and `set_token_merging`.

        Args:
            resolved: Whether to replace None by the architecture's choice, for scope and proportional attention.
            settings: The settings; those of the config when None.

        Returns:
            Field names without the prefix `token_merging_`, and their JSON-safe values.

        Examples:
            >>> from hf_video_tome import VideoMAEConfig
            >>> VideoMAEConfig(token_merging_r=150).token_merging_settings(resolved=True)["scope"]
            'clip'
        """
        settings = self.token_merging if settings is None else settings
        values = {name: settings.get(name) for name in self.token_merging_defaults()}
        return values | self._architecture_choices(settings, self.token_layout) if resolved else values

    def update_token_merging(self, **changes: Any) -> None:
        """Sets several token merging fields at once.

        A forward call that runs in another thread meanwhile sees either all of the changes or none.

        Args:
            **changes: Field names with or without the prefix `token_merging_`, and their new values.

        Raises:
            ValueError: If a name is unknown, or a value is out of range or incompatible with the others. The config
                is then left unchanged.
        """
        changes = self.full_names(changes)
        with _REPLACING:
            settings = self.changed_settings(self.token_merging, changes)
            self.check_token_merging(settings)
            self.__dict__[_SETTINGS] = settings

    def full_names(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the prefix `token_merging_` to setting names that lack it.

        Raises:
            ValueError: If the architecture has no such setting, or one is given both with and without the prefix.
        """
        full = {_full_name(name): value for name, value in changes.items()}
        self._check_names(full)
        for name in changes:
            if name not in full and _full_name(name) in changes:
                raise ValueError(f"{name} and {_full_name(name)} are the same setting: give one of them")
        return full

    @classmethod
    def _check_names(cls, full_names: Iterable[str]) -> None:
        allowed = cls.token_merging_fields
        for name in full_names:
            if name not in allowed and name != PRESET:
                raise ValueError(f"{name} is not a setting of {cls.model_type}: use {', '.join(allowed)}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as a dictionary; if tokens merge, settings whose default may change are resolved."""
        output: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        settings = output.pop(_SETTINGS, self.token_merging)
        values = self.token_merging_settings(settings=settings)
        if not settings.is_off:
            values |= self._saved_choices(settings)
        return output | {PREFIX + name: value for name, value in values.items()}

    def _saved_choices(self, settings: TokenMergingSettings) -> dict[str, Any]:
        """Returns the values of settings whose default may change, as far as they matter to these settings."""
        resolved, mode = self.token_merging_settings(resolved=True, settings=settings), MODES[settings.mode]
        values = {name: resolved[name] for name in _SAVED_RESOLVED if name in resolved}
        if mode.scopes is not None and self.default_token_merging_scope not in mode.scopes:
            values["scope"] = settings.scope  # chosen by the mode: another mode must be free to choose
        if mode.default_segments is not None and resolved["scope"] == "clip":
            values["segments"] = resolved["segments"]
        if mode.options:
            values["mode_options"] = mode.complete_options(settings.mode_options)
        if settings.input is not None and settings.input_keep is None and settings.input_threshold is None:
            values["input_keep"] = DEFAULT_INPUT_KEEP
        return values

    def to_diff_dict(self) -> dict[str, Any]:
        """Returns the config as it is saved, without token merging fields at their defaults."""
        output: dict[str, Any] = super().to_diff_dict()  # type: ignore[misc]
        kept = () if self.token_merging.is_off else _SAVED_RESOLVED
        for name, default in self.token_merging_defaults().items():
            if name not in kept and output.get(PREFIX + name, default) == default:
                output.pop(PREFIX + name, None)
        return output

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """See `PreTrainedConfig.from_dict`; saved settings keep their meaning even if defaults have changed since."""
        given = {name: value for name, value in kwargs.items() if name.startswith(PREFIX)}
        cls._check_names(given)
        if PRESET in given:
            cls._check_preset_alone(given[PRESET], {name: value for name, value in given.items() if name != PRESET})
        # They are set one by one, and a new mode resets its options.
        kwargs = dict(sorted(kwargs.items(), key=lambda item: item[0] != f"{PREFIX}mode"))
        missing = settings_of_file(cls.model_type, config_dict, PREFIX)
        return super().from_dict({**config_dict, **missing}, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_json_file(cls, json_file: Any) -> Any:
        """See `PreTrainedConfig.from_json_file`; saved settings keep their meaning."""
        return cls.from_dict(read_json_object(Path(json_file)))

    @classmethod
    def token_merging_defaults(cls) -> dict[str, Any]:
        """Returns the defaults of the architecture's settings."""
        return {name.removeprefix(PREFIX): getattr(cls, name) for name in cls.token_merging_fields}

    @classmethod
    def from_stock(cls: type[ConfigT], config: PreTrainedConfig) -> ConfigT:
        """Returns a copy of a config of transformers with the token merging fields added.

        Token merging fields that the stock config loaded from a JSON file are kept and validated.

        Args:
            config: The stock config, or one of this class (which is copied).

        Returns:
            A new config of this class, including attention implementation, dtype and labels.

        Raises:
            ValueError: If such a field is out of range or unknown.
        """
        converted = copy.deepcopy(config)
        # A stock config accepts any field of a JSON file.
        brought = {name: converted.__dict__.pop(name) for name in vars(config) if name.startswith(PREFIX)}
        converted.__class__ = cls
        converted._take_settings(brought)
        check_layers(converted)
        converted.check_token_merging()
        return converted

    def to_stock(self, stock_class: type[PreTrainedConfig]) -> PreTrainedConfig:
        """Returns a copy of this config without the token merging fields.

        Args:
            stock_class: The transformers class that this class extends.

        Returns:
            A new config of that class.
        """
        converted = copy.deepcopy(self)
        converted.__dict__.pop(_SETTINGS, None)
        converted.__class__ = stock_class
        return converted


def token_counts_of_config(config: TokenMergingConfigMixin, settings: TokenMergingSettings | None = None) -> list[int]:
    """Returns the number of tokens before the first layer and after each layer, without running the model.

    Args:
        config: A config with token merging fields.
        settings: The settings; those of the config when None.

    Returns:
        L + 1 ints; entry i is the length of `hidden_states[i]`.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig
        >>> token_counts_of_config(VideoMAEConfig(token_merging_r=150))
        [1568, 1418, 1268, 1118, 968, 818, 668, 518, 368, 218, 109, 55, 28]
    """
    plan = config.token_merging_plan(settings=settings)
    return plan.token_counts()
