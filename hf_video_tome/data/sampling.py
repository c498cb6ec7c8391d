"""Sampling of clips and views from a video."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from .usual_inputs import USUAL_INPUTS

SamplingStrategy = Literal["start", "center", "uniform", "random"]
SamplingProtocol = Literal["paper", "full"]


def sample_frame_indices(
    total_frames: int,
    num_frames: int,
    sampling_rate: int = 1,
    strategy: SamplingStrategy = "center",
    rng: np.random.Generator | None = None,
) -> list[int]:
    """Samples the frame indices of one clip.

    Strategies:

    - `"start"`: `num_frames` frames from the first on, `sampling_rate` apart. With a rate of 1 this is what the
      transformers video-classification pipeline does with an image processor.
    - `"center"`: the same clip, spanning `num_frames * sampling_rate` frames, in the middle of the video.
    - `"random"`: the same clip with a uniformly random start.
    - `"uniform"`: the centres of `num_frames` segments of equal length. `sampling_rate` is ignored (the length
      determines the spacing).

    A video shorter than the clip is not an error: with `"start"`, `"center"` and `"random"` the clip begins at the
    first frame and its last frame is repeated; with `"uniform"` neighbouring segments share a frame.

    Args:
        total_frames: Number of frames in the video, at least 1.
        num_frames: Number of frames in the clip, at least 1.
        sampling_rate: Distance between two sampled frames, in frames, at least 1 (1: consecutive frames).
        strategy: `"start"`, `"center"`, `"uniform"` or `"random"`.
        rng: Random generator, required by `"random"`; the other strategies ignore it.

    Returns:
        `num_frames` ascending frame indices in [0, total_frames).

    Raises:
        TypeError: If a count is not an integer, or `rng` is missing or not a `numpy.random.Generator`.
        ValueError: If a count is below 1 or the strategy is unknown.

    Examples:
        >>> sample_frame_indices(10, 4, strategy="start")
        [0, 1, 2, 3]
        >>> sample_frame_indices(10, 4, sampling_rate=2, strategy="center")
        [1, 3, 5, 7]
        >>> sample_frame_indices(10, 4, strategy="uniform")
        [1, 3, 6, 8]
        >>> sample_frame_indices(3, 4, strategy="center")
        [0, 1, 2, 2]
        >>> import numpy as np
        >>> sample_frame_indices(100, 4, strategy="random", rng=np.random.default_rng(0))
        [82, 83, 84, 85]
    """
    _check_count("sampling_rate", sampling_rate)
    rate = 1 if strategy == "uniform" else sampling_rate
    return ClipSampling(num_frames, rate, strategy).sample(total_frames, rng)[0]


@dataclass(frozen=True)
class ClipSampling:
    """Sampling of the views of a video: `num_clips` clips in time, times `num_crops` crops in space.

    A model's predictions for all views of a video are averaged. With one clip, the strategies are those of
    `sample_frame_indices`; with several:

    - `"center"`: the starts are evenly spaced from the first frame to the last possible start, as in multi-view
      evaluation on Kinetics. With an odd number, the middle clip is that of `num_clips=1`.
    - `"uniform"`: clip j of n takes the frame at the fraction (j + 1/2) / n of every segment, as on
      Something-Something.
    - `"random"`: every clip has its own random start.
    - `"start"`: an error, because all clips would be the same.

    Args:
        num_frames: Number of frames in each clip, at least 1.
        sampling_rate: Distance between two sampled frames, in frames, at least 1; must be 1 with `"uniform"`.
        strategy: `"start"`, `"center"`, `"uniform"` or `"random"`.
        num_clips: Number of clips per video, at least 1; 1 with `"start"`.
        num_crops: Number of crops per clip: 1 (centre) or 3 (start, centre and end of the longer side).
        target_fps: Frames per second, above 0, to which the video is resampled by its time stamps; `sampling_rate`
            then counts frames at that rate. None keeps the stored frames. The reader of the video applies this;
            `sample` only counts frames.

    Raises:
        TypeError: If a count is not an integer.
        ValueError: If a field is invalid; the message names the field, the value and what is allowed.

    Examples:
        >>> ClipSampling(num_frames=4).sample(total_frames=10)
        [[1, 3, 6, 8]]
        >>> sampling = ClipSampling(num_frames=4, sampling_rate=2, strategy="center", num_clips=3, num_crops=3)
        >>> sampling.sample(total_frames=20)
        [[0, 2, 4, 6], [6, 8, 10, 12], [12, 14, 16, 18]]
        >>> sampling.num_views
        9
    """

    num_frames: int
    sampling_rate: int = 1
    strategy: SamplingStrategy = "uniform"
    num_clips: int = 1
    num_crops: int = 1
    target_fps: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_frames", "sampling_rate", "num_clips", "num_crops"):
            _check_count(name, getattr(self, name))
        _check_choice("strategy", self.strategy, get_args(SamplingStrategy))
        if self.strategy == "uniform" and self.sampling_rate != 1:
            raise ValueError(
                "sampling_rate must be 1 with the strategy 'uniform', whose spacing follows from the length of the "
                f"video, got {self.sampling_rate}"
            )
        if self.strategy == "start" and self.num_clips != 1:
            raise ValueError(
                "num_clips must be 1 with the strategy 'start', where all clips would be the same, got "
                f"{self.num_clips}; 'center' spreads several clips over the video"
            )
        if self.num_crops not in (1, 3):
            raise ValueError(f"num_crops must be 1 or 3, got {self.num_crops}")
        fps = self.target_fps
        if fps is not None and (
            isinstance(fps, bool) or not isinstance(fps, (int, float)) or not math.isfinite(fps) or fps <= 0
        ):
            raise ValueError(f"target_fps must be a finite number above 0 (frames per second) or None, got {fps!r}")

    @property
    def num_views(self) -> int:
        """Number of views per video: `num_clips * num_crops`."""
        return self.num_clips * self.num_crops

    def sample(self, total_frames: int, rng: np.random.Generator | None = None) -> list[list[int]]:
        """Samples the frame indices of every clip of a video.

        In a video shorter than a clip, the last frame is repeated, as in `sample_frame_indices`.

        Args:
            total_frames: Number of frames in the video, at least 1; with `target_fps`, at that rate.
            rng: Random generator, required by `"random"`; the other strategies ignore it.

        Returns:
            `num_clips` lists of `num_frames` ascending frame indices in [0, total_frames).

        Raises:
            TypeError: If the count is not an integer, or `rng` is missing or not a `numpy.random.Generator`.
            ValueError: If the count is below 1.

        Examples:
            >>> ClipSampling(num_frames=2, num_clips=2).sample(total_frames=8)
            [[1, 5], [3, 7]]
        """
        _check_count("total_frames", total_frames)
        _check_rng(rng, self.strategy)
        num, rate, clips = self.num_frames, self.sampling_rate, self.num_clips
        if self.strategy == "uniform":
            # The frame at the fraction (clip + 1/2) / clips of each of `num` equal segments, in integers to avoid
            # rounding errors.
            return [
                [(2 * (i * clips + clip) + 1) * total_frames // (2 * num * clips) for i in range(num)]
                for clip in range(clips)
            ]
        last_start = max(0, total_frames - num * rate)
        if self.strategy == "random":
            assert rng is not None  # checked above
            starts = [int(rng.integers(last_start + 1)) for _ in range(clips)]
        elif self.strategy == "center" and clips > 1:
            starts = [clip * last_start // (clips - 1) for clip in range(clips)]
        else:
            starts = [0 if self.strategy == "start" else last_start // 2]
        return [[min(first + i * rate, total_frames - 1) for i in range(num)] for first in starts]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON-safe dictionary; `ClipSampling(**d)` is the inverse.

        Examples:
            >>> ClipSampling(num_frames=16).to_dict()["strategy"]
            'uniform'
        """
        return asdict(self)


_MOVING_DIGITS_FRAMES = 16
_DATASETS = ("kinetics400", "something-something-v2", "epic-kitchens-100", "class-folders", "moving-digits")


def sampling_preset(
    model_type: str, dataset: str, *, num_frames: int | None = None, protocol: SamplingProtocol = "paper"
) -> ClipSampling:
    """Returns the usual sampling of a dataset for an architecture.

    Frames x sampling rate on `kinetics400`, in "Video, How Do Your Tokens Merge?" (CVPRW 2025) and in training:

    | model_type | `"paper"` | `"full"` |
    |---|---|---|
    | videomae | 16 x 1 | 16 x 4 |
    | vivit | 32 x 2 | 32 x 2 |
    | timesformer | 8 x 32 | 8 x 32 |
    | motionformer | 16 x 4 | 16 x 4 |

    | dataset | frames | views, `"paper"` | views, `"full"` |
    |---|---|---|---|
    | kinetics400 | the table above, centred | 1 | 5 clips x 3 crops |
    | epic-kitchens-100 | as kinetics400 | 1 | 5 clips x 3 crops |
    | something-something-v2 | uniform segments | 1 | 2 clips x 3 crops |
    | class-folders | uniform segments | 1 | 2 clips x 3 crops |
    | moving-digits | every (16 // `num_frames`)-th of the clip's 16 frames, from the first on | 1 | - |

    Two settings are choices of this project. The paper does not say how it samples EPIC-KITCHENS-100: the rates of
    Kinetics-400 are used, in stored frames (50 or 60 per second; change this with `target_fps` of `ClipSampling`). The
    number of views of `"full"` is the same for all architectures to keep them comparable; their publications use other
    numbers (10 clips x 3 crops on Kinetics is common too), such as `dataclasses.replace(preset, num_clips=10)`.

    Args:
        model_type: Architecture, as `config.model_type`. It must be in the first table if the sampling depends on it,
            that is, on kinetics400 and epic-kitchens-100, or without `num_frames`.
        dataset: A name from the second table.
        num_frames: Number of frames that the model takes (`config.num_frames`), if it differs from the table. The clip
            then spans the same time: the rate is adjusted, rounded down, and at least 1.
        protocol: `"paper"`: one view, as in the paper. `"full"`: many views at the sampling rate of training.

    Returns:
        The sampling.

    Raises:
        TypeError: If `num_frames` is not an integer.
        ValueError: If a name is unknown, `num_frames` is below 1 (or above the 16 frames of Moving Digits), or
            `"full"` is requested on Moving Digits, where one view shows the whole clip.

    Examples:
        >>> sampling_preset("timesformer", "kinetics400").sample(total_frames=300)
        [[22, 54, 86, 118, 150, 182, 214, 246]]
        >>> sampling_preset("videomae", "kinetics400", protocol="full").num_views
        15
        >>> sampling_preset("videomae", "moving-digits", num_frames=8).sample(total_frames=16)
        [[0, 2, 4, 6, 8, 10, 12, 14]]
    """
    _check_choice("dataset", dataset, _DATASETS)
    _check_choice("protocol", protocol, get_args(SamplingProtocol))
    if num_frames is not None:
        _check_count("num_frames", num_frames)
    by_rate = dataset in ("kinetics400", "epic-kitchens-100")
    clips = {name: usual.kinetics_clip for name, usual in USUAL_INPUTS.items() if usual.kinetics_clip}
    clip = clips.get(model_type)
    if clip is None and (by_rate or num_frames is None):
        known = ", ".join(map(repr, clips))
        what = f"the frames and the sampling rate on {dataset!r}" if by_rate else "num_frames"
        raise ValueError(
            f"model_type must be one whose usual clip is known ({known}), got {model_type!r}: give {what} yourself, "
            f"{'as ClipSampling(...)' if by_rate else 'sampling_preset(..., num_frames=...)'}"
        )
    if num_frames is None:
        assert clip is not None  # checked above
        num_frames = clip.num_frames

    if dataset == "moving-digits":
        if protocol != "paper":
            raise ValueError(
                f"protocol must be 'paper' on 'moving-digits', got {protocol!r}: one view shows the whole clip"
            )
        if num_frames > _MOVING_DIGITS_FRAMES:
            raise ValueError(
                f"num_frames must be at most {_MOVING_DIGITS_FRAMES} on 'moving-digits', whose clips have no more, "
                f"got {num_frames}"
            )
        return ClipSampling(num_frames, _MOVING_DIGITS_FRAMES // num_frames, "start")
    views = {"num_clips": 5 if by_rate else 2, "num_crops": 3} if protocol == "full" else {}
    if not by_rate:
        return ClipSampling(num_frames, strategy="uniform", **views)
    assert clip is not None  # checked above
    span = clip.num_frames * (clip.sampling_rate if protocol == "paper" else clip.training_rate)
    return ClipSampling(num_frames, max(1, span // num_frames), "center", **views)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _check_rng(rng: object, strategy: str) -> None:
    if isinstance(rng, np.random.Generator) or (rng is None and strategy != "random"):
        return
    allowed = "a numpy.random.Generator with the strategy 'random'" if rng is None else "a numpy.random.Generator"
    raise TypeError(f"rng must be {allowed}, got {rng!r}")
