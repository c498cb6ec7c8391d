"""Which frames of a video make a clip."""

from __future__ import annotations

from typing import Literal, get_args

SamplingStrategy = Literal["start", "center", "uniform"]


def sample_frame_indices(
    total_frames: int,
    num_frames: int,
    sampling_rate: int = 1,
    strategy: SamplingStrategy = "center",
) -> list[int]:
    """Chooses the frames of one clip.

    The strategies:

    - `"start"`: `num_frames` frames from the first on, `sampling_rate` apart. With a rate of 1 this is what the
      transformers video-classification pipeline does with an image processor.
    - `"center"`: the same clip, spanning `num_frames * sampling_rate` frames, placed in the middle of the video.
    - `"uniform"`: the video is cut into `num_frames` segments of equal length and the centre of each is taken.
      `sampling_rate` plays no part (the spacing follows from the length).

    A video that is shorter than the clip is not an error: with `"start"` and `"center"` the clip begins at the first
    frame and the indices beyond the end are clamped, so that the last frame is repeated; with `"uniform"`
    neighbouring segments share a frame.

    Args:
        total_frames: Frames in the video, at least 1.
        num_frames: Frames in the clip, at least 1.
        sampling_rate: Distance in frames between two frames of the clip, at least 1 (1: consecutive frames).
        strategy: `"start"`, `"center"` or `"uniform"`.

    Returns:
        `num_frames` ascending frame indices in [0, total_frames).

    Raises:
        TypeError: If a count is not an integer.
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
    """
    for name, value in (("total_frames", total_frames), ("num_frames", num_frames), ("sampling_rate", sampling_rate)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"`{name}` must be an integer, got {value!r} ({type(value).__name__}).")
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if strategy not in get_args(SamplingStrategy):
        allowed = ", ".join(repr(name) for name in get_args(SamplingStrategy))
        raise ValueError(f"`strategy` must be one of {allowed}, got {strategy!r}.")

    if strategy == "uniform":
        # floor((i + 1/2) * total / num) in integers, so that no rounding error can move an index.
        return [(2 * i + 1) * total_frames // (2 * num_frames) for i in range(num_frames)]
    first = 0 if strategy == "start" else max(0, (total_frames - num_frames * sampling_rate) // 2)
    return [min(first + i * sampling_rate, total_frames - 1) for i in range(num_frames)]
