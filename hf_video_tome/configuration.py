"""The token merging fields of a model config: defined once, validated on load and on set."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from transformers import PreTrainedConfig

from .merging import (
    MODES,
    SCOPES,
    MergeSettings,
    TokenLayout,
    TokenMergingPlan,
    check_r,
    check_schedule,
    requested_removals,
    token_counts,
)

PREFIX = "token_merging_"
HEAD_AGGREGATIONS = ("mean", "concat")
POOLINGS = ("weighted", "mean")

ConfigT = TypeVar("ConfigT", bound="TokenMergingConfigMixin")


def one_of(allowed: Iterable[str], optional: bool = False) -> Callable[[object], object]:
    """A check of a field that takes one of a few names.

    Args:
        allowed: The names.
        optional: Whether None is fine too.

    Returns:
        A function that returns a value that is allowed, and raises a ValueError for any other.

    Examples:
        >>> one_of(("mean", "concat"))("mean")
        'mean'
    """

    def check(value: object) -> object:
        if (optional and value is None) or (isinstance(value, str) and value in allowed):
            return value
        names = ", ".join(repr(name) for name in allowed) + (", or None" if optional else "")
        raise ValueError(f"must be one of {names}, got {value!r}")

    return check


def _check_threshold(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and -1 <= float(value) <= 1:
        return float(value)
    raise ValueError(f"must be a cosine similarity in [-1, 1] or None, got {value!r}")


def _check_optional_bool(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ValueError(f"must be True, False, or None for the architecture's default, got {value!r}")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "token_merging_r": check_r,
    "token_merging_schedule": check_schedule,
    "token_merging_mode": one_of(MODES),
    "token_merging_threshold": _check_threshold,
    "token_merging_head_aggregation": one_of(HEAD_AGGREGATIONS),
    "token_merging_proportional_attention": _check_optional_bool,
    "token_merging_pooling": one_of(POOLINGS),
    "token_merging_scope": one_of(SCOPES, optional=True),
}


class ClipShape(NamedTuple):
    """Shape of one clip, (frames, channels, height, width)."""

    frames: int
    channels: int
    height: int
    width: int


def sizes_of(config: Any, name: str, count: int = 1) -> tuple[int, ...]:
    """The sizes that a field of a config holds, checked.

    Args:
        config: The config.
        name: The field: ints of at least 1, of which one alone stands for both sides of a frame.
        count: How many sizes it has: 1, 2 for (height, width), or 3 for (frames, height, width).

    Returns:
        The sizes.

    Raises:
        ValueError: Naming the field, its value and what is allowed.

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
        raise ValueError(f"{name} must be {allowed[count]} of at least 1, got {value!r}")
    return tuple(map(int, sizes))


@dataclass(kw_only=True, repr=False)
class TokenMergingConfigMixin:
    """Adds token merging to a transformers config.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025), https://arxiv.org/abs/2506.03885, which advises r = 150 for
    VideoMAE-B, 300 for ViViT-B, and 18 per frame for TimeSformer-B.

    Args:
        token_merging_r: Tokens that each layer removes: an int >= 0, a share of the initial tokens in (0, 0.5], or a
            list of ints, one per layer (padded with zeros). With scope "frame" or "tube" it counts per frame, with
            "time" frames. A layer removes at most half of its tokens. 0, the default, is the stock model.
        token_merging_schedule: How r is spread over the layers: "constant" (default), "decreasing" (2r to 0, fastest),
            "increasing" (0 to 2r, most careful), or an inflection in [-1, 1] between the two.
        token_merging_mode: "merge" (default), "drop", "hybrid", "random_merge", "random_drop", or any registered mode.
        token_merging_threshold: Cosine similarity in [-1, 1] under which "hybrid" drops instead of merging (paper: 0.8
            for VideoMAE, 0.4 for ViViT). Other modes do not read it.
        token_merging_head_aggregation: Whether keys are averaged over the heads ("mean", default) or lined up
            ("concat") before tokens are compared.
        token_merging_proportional_attention: Whether a token that stands for s tokens weighs like s tokens in the
            attention. None (default): the architecture's own choice.
        token_merging_pooling: Whether heads that pool tokens weigh them by size ("weighted", default) or not ("mean").
        token_merging_scope: Which tokens are matched: all of a "clip", those of each "frame" alone, those of a frame
            by one matching shared by all frames ("tube"), or those of a place over "time" by one matching shared by
            all places, which merges whole frames. None (default): the architecture's own choice.
    """

    token_merging_r: Any = 0
    token_merging_schedule: Any = "constant"
    token_merging_mode: str = "merge"
    token_merging_threshold: float | None = None
    token_merging_head_aggregation: str = "mean"
    token_merging_proportional_attention: bool | None = None
    token_merging_pooling: str = "weighted"
    token_merging_scope: str | None = None

    default_token_merging_scope: ClassVar[str] = "clip"
    default_proportional_attention: ClassVar[bool] = True
    token_merging_checks: ClassVar[dict[str, Callable[[Any], Any]]] = _CHECKS
    clip_fields: ClassVar[tuple[str, str, str]] = ("num_frames", "num_channels", "image_size")
    """Fields of the stock config that hold the frames, the channels and the pixels of a clip."""

    if TYPE_CHECKING:  # fields of the configs that this is mixed into
        model_type: ClassVar[str]
        num_hidden_layers: int

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """Values of `token_merging_scope` that the architecture can do."""
        return SCOPES

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_name(name)
        if name in self.token_merging_checks:
            try:
                value = self.token_merging_checks[name](value)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        super().__setattr__(name, value)

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[misc]
        self.check_token_merging()

    @classmethod
    def _check_name(cls, name: str) -> None:
        """Refuses a setting that there is not: it would do nothing."""
        if name.startswith(PREFIX) and name not in cls.token_merging_checks:
            allowed = ", ".join(cls.token_merging_checks)
            raise ValueError(f"{name} is no setting of {cls.model_type}; there are {allowed}")

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """Where the tokens of a clip lie in the sequence of this model.

        Args:
            clip: Shape of the clip. Architectures that take other shapes than that of the config go by it.
        """
        raise NotImplementedError

    @property
    def token_layout(self) -> TokenLayout:
        """Where the tokens lie of a clip of the shape that the config says."""
        return self.layout_of(self.clip_shape)

    @property
    def num_merging_layers(self) -> int:
        """Layers that can merge tokens, in their order: those that r and the schedule count."""
        return self.num_hidden_layers

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of the clips that the checkpoint takes."""
        frames, channels, pixels = self.clip_fields
        return ClipShape(*sizes_of(self, frames), *sizes_of(self, channels), *sizes_of(self, pixels, 2))

    @property
    def tubelet_shape(self) -> tuple[int, ...]:
        """Frames, height and width of what becomes one token."""
        tubelet = getattr(self, "tubelet_size", None)
        if tubelet is None:
            return (1, *sizes_of(self, "patch_size", 2))
        if isinstance(tubelet, int):
            return (*sizes_of(self, "tubelet_size"), *sizes_of(self, "patch_size", 2))
        return sizes_of(self, "tubelet_size", 3)

    def tubelet_grid(self, clip: ClipShape) -> tuple[int, int, int]:
        """Tokens of a clip along time, height and width.

        Raises:
            ValueError: If it has none, naming the field that says how large it is.
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

    def check_token_merging(self) -> list[int]:
        """Validates the fields against each other and against the architecture, and that a clip has tokens at all.

        Returns:
            Tokens that each layer is asked to remove from each matched set.

        Raises:
            ValueError: Naming the field, its value and what is allowed.
        """
        self.tubelet_grid(self.clip_shape)
        mode, scope = self.token_merging_mode, self.token_merging_scope
        if MODES[mode].needs_threshold and self.token_merging_threshold is None:
            raise ValueError(
                f"token_merging_threshold must be a number in [-1, 1] for token_merging_mode={mode!r}, got None"
            )
        if scope is not None and scope not in self.supported_token_merging_scopes:
            allowed = ", ".join(repr(name) for name in self.supported_token_merging_scopes)
            raise ValueError(f"token_merging_scope must be one of {allowed} for {self.model_type}, got {scope!r}")
        return self._requested_removals(self.token_layout)

    def _requested_removals(self, layout: TokenLayout) -> list[int]:
        """Tokens that each layer is asked to remove from each matched set of a clip of that layout."""
        set_tokens, num_protected = layout.set_size(self._scope)
        try:
            return requested_removals(
                self.token_merging_r, self.token_merging_schedule, self.num_merging_layers, set_tokens - num_protected
            )
        except ValueError as error:
            raise ValueError(f"token_merging_r: {error}") from None

    @property
    def _scope(self) -> str:
        return self.token_merging_scope or self.default_token_merging_scope

    def token_merging_plan(self, clip_shape: ClipShape | None = None) -> TokenMergingPlan:
        """What each layer will do: made once per forward call.

        Args:
            clip_shape: Shape of the clips, where it may be another than that of the config.

        Returns:
            The plan for such clips: a share of r is one of their tokens.

        Raises:
            ValueError: If the fields do not go with each other.
        """
        requested, layout = self.check_token_merging(), self.token_layout
        if clip_shape is not None and clip_shape != self.clip_shape:
            layout = self.layout_of(clip_shape)
            requested = self._requested_removals(layout)
        return TokenMergingPlan(requested, layout, self._merge_settings())

    def _merge_settings(self) -> MergeSettings:
        """The fields that say how to merge, with the architecture's choices filled in."""
        proportional = self.token_merging_proportional_attention
        return MergeSettings(
            mode=self.token_merging_mode,
            threshold=self.token_merging_threshold,
            scope=self._scope,
            head_aggregation=self.token_merging_head_aggregation,
            proportional_attention=self.default_proportional_attention if proportional is None else proportional,
            pooling=self.token_merging_pooling,
        )

    def token_merging_settings(self, resolved: bool = False) -> dict[str, Any]:
        """The token merging fields as settings for `update_token_merging` and `set_token_merging`.

        Args:
            resolved: Whether the architecture's choices take the place of None, for scope and proportional attention.

        Returns:
            From the names of the fields, without the prefix `token_merging_`, to their JSON-safe values.

        Examples:
            >>> from hf_video_tome import VideoMAEConfig
            >>> VideoMAEConfig(token_merging_r=150).token_merging_settings(resolved=True)["scope"]
            'clip'
        """
        settings = {name.removeprefix(PREFIX): getattr(self, name) for name in self.token_merging_checks}
        if resolved:
            chosen = self.token_merging_plan().settings
            settings |= {"scope": chosen.scope, "proportional_attention": chosen.proportional_attention}
        return settings

    def update_token_merging(self, **changes: Any) -> None:
        """Sets token merging fields, all or none of them.

        Args:
            **changes: Field names with or without the prefix `token_merging_`, and their new values.

        Raises:
            ValueError: If a name is unknown, or a value is out of range or does not go with the others; nothing is
                changed then.
        """
        candidate = copy.copy(self)
        changes = {name if name.startswith(PREFIX) else PREFIX + name: value for name, value in changes.items()}
        for name, value in changes.items():
            if name not in self.token_merging_checks:
                allowed = ", ".join(field.removeprefix(PREFIX) for field in self.token_merging_checks)
                raise ValueError(
                    f"{name.removeprefix(PREFIX)!r} is no token merging setting of {self.model_type}, "
                    f"allowed are: {allowed}"
                )
            setattr(candidate, name, value)
        candidate.check_token_merging()
        # One step, so that a forward call in another thread sees either all of it or nothing.
        self.__dict__.update({name: getattr(candidate, name) for name in changes})

    def to_diff_dict(self) -> dict[str, Any]:
        """The config as it is saved: token merging fields only where they differ from their defaults."""
        output = super().to_diff_dict()  # type: ignore[misc]
        for name, default in self._token_merging_defaults().items():
            if name in output and output[name] == default:
                del output[name]
        return output

    @classmethod
    def _token_merging_defaults(cls) -> dict[str, Any]:
        """The token merging fields of the architecture and their defaults."""
        return {field.name: field.default for field in fields(cls) if field.name in cls.token_merging_checks}

    @classmethod
    def from_stock(cls: type[ConfigT], config: PreTrainedConfig) -> ConfigT:
        """A copy of a config of transformers that has the token merging fields.

        Fields that a JSON file brought along are kept and validated.

        Args:
            config: The stock config, or one of this class (then it is copied).

        Returns:
            A new config of this class; attention implementation, dtype and labels included.

        Raises:
            ValueError: If a token merging field that came along is out of range, or is none.
        """
        for name in vars(config):  # a JSON file can bring along whatever it likes
            cls._check_name(name)
        converted = copy.deepcopy(config)
        converted.__class__ = cls
        for name, default in cls._token_merging_defaults().items():
            setattr(converted, name, converted.__dict__.get(name, default))
        converted.check_token_merging()
        return converted

    def to_stock(self, stock_class: type[PreTrainedConfig]) -> PreTrainedConfig:
        """A copy of this config without the token merging fields.

        Args:
            stock_class: The class of transformers that this class extends.

        Returns:
            A new config of that class.
        """
        converted = copy.deepcopy(self)
        for name in self.token_merging_checks:
            converted.__dict__.pop(name, None)
        converted.__class__ = stock_class
        return converted


def token_counts_of_config(config: TokenMergingConfigMixin) -> list[int]:
    """Tokens in the sequence before the first and after each layer, known without running the model.

    Args:
        config: A config with token merging fields.

    Returns:
        L + 1 ints; entry i is the length of `hidden_states[i]`.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig
        >>> token_counts_of_config(VideoMAEConfig(token_merging_r=150))
        [1568, 1418, 1268, 1118, 968, 818, 668, 518, 368, 218, 109, 55, 28]
    """
    plan = config.token_merging_plan()
    return token_counts(plan.requested, plan.layout, plan.settings.scope)
