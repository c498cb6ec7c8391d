"""Transforms from decoded frames to `pixel_values`, in plain torch.

The video processors of transformers need torchvision, and its PIL image processors work frame by frame.
`ClipTransform` reads the same configuration files, handles a whole clip at once on any device, and matches the stock
processors: frames are resized as uint8 (like PIL), and every later step is exact.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from ..merging.values import is_between, shown
from .processor_settings import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RESAMPLE_CODES,
    is_length,
    is_size,
    load_processor_settings,
    transform_fields,
)
from .usual_inputs import USUAL_INPUTS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MAX_ENLARGEMENT = 16
"""Largest allowed ratio of the resized frames before the crop to the model's frame size; usual is at most 1.3."""


@dataclass(frozen=True)
class ClipTransform:
    """Transform from the uint8 frames of one clip to a model's float input.

    Applies in this order: resize (in uint8, like PIL), centre crop (zero-padded where the crop is larger), then
    `(frame * rescale_factor + rescale_offset - mean) / std`, and optionally subtracts the clip's mean frame. The two
    halves are also separate methods: `crop_views`, which can take three crops, and `normalize`.

    Args:
        resize: Length of the shortest edge in pixels (the other keeps the aspect ratio, rounded down), or
            (height, width), or None for no resizing.
        crop: (height, width) of the centre crop in pixels, or None for no crop.
        rescale_factor: Factor for uint8 values; 1 / 255 gives [0, 1].
        rescale_offset: Offset added after rescaling. ViViT's "offset" is -1 with a factor of 1 / 127.5: [-1, 1].
        mean: Per-channel mean to subtract, in rescaled units, or None for no normalisation.
        std: Per-channel standard deviation to divide by, in rescaled units; None if and only if `mean` is None.
        resample: `"bilinear"`, `"bicubic"` (both antialiased) or `"nearest"`.
        subtract_mean_frame: Whether to finally subtract the mean of the clip's frames from each of them, so that
            static pixels become 0. A model trained from scratch on few videos of one static camera then learns motion
            rather than backgrounds. Not in transformers' own processors; `hf_video_tome.ClipProcessor` has it.

    Raises:
        ValueError: If a field is invalid; the message names the field, the value and what is allowed.

    Examples:
        >>> import torch
        >>> transform = ClipTransform(resize=32, crop=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> pixel_values = transform(torch.zeros(16, 3, 48, 64, dtype=torch.uint8))
        >>> pixel_values.shape, pixel_values.dtype, pixel_values.min().item()
        (torch.Size([16, 3, 32, 32]), torch.float32, -1.0)
    """

    resize: int | tuple[int, int] | None = 224
    crop: tuple[int, int] | None = (224, 224)
    rescale_factor: float = 1 / 255
    rescale_offset: float = 0.0
    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[float, ...] | None = IMAGENET_STD
    resample: str = "bilinear"
    subtract_mean_frame: bool = False

    def __post_init__(self) -> None:
        modes = ", ".join(map(repr, RESAMPLE_CODES))
        for name, is_right, allowed in (
            (
                "resize",
                self.resize is None or is_length(self.resize) or is_size(self.resize),
                "the length of the shortest edge (an integer of at least 1), a (height, width) tuple or None",
            ),
            (
                "crop",
                self.crop is None or is_size(self.crop),
                "a (height, width) tuple of positive integers or None",
            ),
            (
                "rescale_factor",
                _is_number(self.rescale_factor) and self.rescale_factor,
                "a finite number other than 0",
            ),
            ("rescale_offset", _is_number(self.rescale_offset), "a finite number"),
            ("mean", self.mean is None or _are_channels(self.mean), "a tuple of 3 finite numbers (R, G, B) or None"),
            ("std", self.std is None or _are_channels(self.std), "a tuple of 3 finite numbers (R, G, B) or None"),
            ("std", self.std is None or min(self.std) > 0, "above 0"),
            ("resample", self.resample in RESAMPLE_CODES, f"one of {modes}"),
            ("subtract_mean_frame", isinstance(self.subtract_mean_frame, bool), "True or False"),
        ):
            if not is_right:
                raise ValueError(f"{name} must be {allowed}, got {shown(getattr(self, name))}")
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"mean and std must both be given or both be None, got {shown(self.mean)} and {shown(self.std)}"
            )

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of the output in pixels; None if it depends on the input's aspect ratio."""
        if self.crop is not None:
            return self.crop
        return self.resize if isinstance(self.resize, tuple) else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON-safe dictionary.

        Examples:
            >>> ClipTransform(resize=256).to_dict()["crop"]
            [224, 224]
        """
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def to_processor_settings(self) -> dict[str, Any]:
        """Returns the transform as settings of a transformers processor; `from_dict` is the inverse.

        Returns:
            JSON-safe settings without a class name, as in a `preprocessor_config.json`.

        Raises:
            ValueError: If `rescale_offset` is neither 0 nor -1, the only values that processors support.

        Examples:
            >>> settings = ClipTransform(resize=256).to_processor_settings()
            >>> settings["size"], settings["crop_size"]
            ({'shortest_edge': 256}, {'height': 224, 'width': 224})
            >>> ClipTransform.from_dict(settings) == ClipTransform(resize=256)
            True
        """
        if self.rescale_offset not in (0, -1):
            raise ValueError(f"rescale_offset must be 0 or -1 in a processor, got {self.rescale_offset!r}")
        size = {"shortest_edge": self.resize} if isinstance(self.resize, int) else _height_and_width(self.resize)
        given = {
            "size": size,
            "resample": RESAMPLE_CODES[self.resample],
            "crop_size": _height_and_width(self.crop),
            "rescale_factor": self.rescale_factor if (self.rescale_factor, self.rescale_offset) != (1, 0) else None,
            "rescale_offset": True if self.rescale_offset else None,
            "image_mean": None if self.mean is None else list(self.mean),
            "image_std": None if self.std is None else list(self.std),
            "subtract_mean_frame": self.subtract_mean_frame or None,
        }
        steps = {"resize": "size", "center_crop": "crop_size", "rescale": "rescale_factor", "normalize": "image_mean"}
        switches = {f"do_{step}": given[setting] is not None for step, setting in steps.items()}
        return switches | {name: value for name, value in given.items() if value is not None}

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Transforms one clip: `crop_views` with the centre crop, then `normalize`.

        Args:
            frames: (T, 3, H, W) uint8 RGB frames, 0 to 255, on any device, as from `read_frames`.

        Returns:
            (T, 3, h, w) float32 on the same device: one sample of `pixel_values`.

        Raises:
            TypeError: If `frames` is not a uint8 tensor.
            ValueError: If the shape is wrong or the clip is empty.
        """
        return self.normalize(self.crop_views(frames)[0])

    def crop_views(self, frames: torch.Tensor, num_crops: int = 1) -> torch.Tensor:
        """Resizes and crops one clip.

        The result stays uint8: a quarter of the bytes to send to the device that normalises it.

        Args:
            frames: (T, 3, H, W) uint8 RGB frames, 0 to 255, on any device, as from `read_frames`.
            num_crops: 1 (the centre crop, or whole frames for a transform without a crop) or 3 (start, centre and end
                of the longer side, in this order, centred on the other side; left, centre and right for square
                frames). The centre crop is the same for 1 and 3. If the crop is at least as large as the frame, all
                three are the same.

        Returns:
            (num_crops, T, 3, h, w) uint8 on the same device, contiguous; it may share memory with `frames` if nothing
            changes.

        Raises:
            TypeError: If `frames` is not a uint8 tensor.
            ValueError: If the shape is wrong, the clip is empty, `num_crops` is neither 1 nor 3, or it is 3 for a
                transform without a crop.

        Examples:
            >>> import torch
            >>> transform = ClipTransform(resize=32, crop=(32, 32))
            >>> views = transform.crop_views(torch.zeros(16, 3, 48, 64, dtype=torch.uint8), num_crops=3)
            >>> views.shape, views.dtype
            (torch.Size([3, 16, 3, 32, 32]), torch.uint8)
        """
        _check_uint8(frames)
        if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
            raise ValueError(f"frames must have the shape (T, 3, H, W), none of them 0, got {tuple(frames.shape)}")
        if not is_length(num_crops) or num_crops not in (1, 3):
            raise ValueError(f"num_crops must be 1 or 3, got {num_crops!r}")
        if num_crops != 1 and self.crop is None:
            raise ValueError(
                f"num_crops must be 1 with a transform that takes whole frames (crop=None), got {num_crops}"
            )

        if self.resize is not None:
            frames = _resize(frames, _resized_size(frames.shape[-2:], self.resize), self.resample)
        if self.crop is None:
            return frames[None].contiguous()
        return _crops(frames, self.crop, num_crops)

    def normalize(self, frames: torch.Tensor) -> torch.Tensor:
        """Normalises uint8 values: `(frame * rescale_factor + rescale_offset - mean) / std`.

        Args:
            frames: (..., 3, h, w) uint8 RGB frames, 0 to 255, on any device: one clip, or any batch of clips or views.
                With `subtract_mean_frame` (..., T, 3, h, w): whole clips of T frames.

        Returns:
            float32 of the same shape on the same device, contiguous. Batching does not change values.

        Raises:
            TypeError: If `frames` is not a uint8 tensor.
            ValueError: If the shape is wrong or a dimension is 0.

        Examples:
            >>> import torch
            >>> transform = ClipTransform(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
            >>> views = torch.full((8, 3, 16, 3, 32, 32), 255, dtype=torch.uint8)  # 8 videos of 3 views each
            >>> pixel_values = transform.normalize(views)
            >>> pixel_values.shape, pixel_values.dtype, pixel_values.max().item()
            (torch.Size([8, 3, 16, 3, 32, 32]), torch.float32, 1.0)
        """
        _check_uint8(frames)
        if frames.ndim < 3 + self.subtract_mean_frame or frames.shape[-3] != 3 or 0 in frames.shape:
            shape = "(..., T, 3, h, w)" if self.subtract_mean_frame else "(..., 3, h, w)"
            raise ValueError(f"frames must have the shape {shape}, none of them 0, got {tuple(frames.shape)}")

        # A uint8 channel has 256 possible values: they are computed in the order and precision of the stock
        # processors (float64 product, then float32), then looked up. Exact, without float64 on the device.
        levels = (torch.arange(256, dtype=torch.float64) * self.rescale_factor).to(torch.float32) + self.rescale_offset
        table = levels.expand(3, 256)
        if self.mean is not None and self.std is not None:
            table = (table - torch.tensor(self.mean)[:, None]) / torch.tensor(self.std)[:, None]
        table = table.to(frames.device)
        out = torch.empty(frames.shape, dtype=torch.float32, device=frames.device)
        for channel in range(3):
            values = frames[..., channel, :, :]
            out[..., channel, :, :] = table[channel].index_select(0, values.reshape(-1).int()).view(values.shape)
        return out - out.mean(dim=-4, keepdim=True) if self.subtract_mean_frame else out

    @classmethod
    def from_dict(cls, processor: Mapping[str, Any], source: str = "the processor configuration") -> ClipTransform:
        """Builds the transform described by a transformers processor configuration.

        Missing keys take the defaults of the stock class named in the configuration (VideoMAE, ViViT, TimeSformer,
        V-JEPA 2), as in transformers. For any other class all required keys must be present.

        Args:
            processor: The content of a `preprocessor_config.json` or `video_preprocessor_config.json`.
            source: Name of the configuration in error messages.

        Returns:
            The transform.

        Raises:
            ValueError: If a key is missing, malformed or asks for an unsupported step.

        Examples:
            >>> ClipTransform.from_dict({"image_processor_type": "VivitImageProcessor"}).rescale_offset
            -1.0
        """
        fields = transform_fields(processor, source)
        try:
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        config: PretrainedConfig | None = None,
        **hub_options: Any,
    ) -> ClipTransform:
        """Loads the transform saved with a checkpoint.

        Looks for these files, in the order of transformers' video loader: `processor_config.json` (if it has a video
        or image processor), `video_preprocessor_config.json`, `preprocessor_config.json`.

        Args:
            name_or_path: A folder, one such JSON file, or a model id on the Hub (or in its cache).
            config: The model's config; if given, the frame size and number of channels are checked against it, so that
                a mismatch is an error here rather than in the middle of a run.
            **hub_options: Hub options: `revision`, `cache_dir`, `token`, `local_files_only`.

        Returns:
            The transform.

        Raises:
            FileNotFoundError: If there is no such file. There is no fallback: use `ClipTransform.from_config(config)`
                for a checkpoint without one.
            ValueError: If the file is invalid or does not fit `config`.

        Examples:
            >>> import json, pathlib, tempfile
            >>> folder = pathlib.Path(tempfile.mkdtemp())
            >>> settings = {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 64},
            ...     "crop_size": {"height": 64, "width": 64}}
            >>> _ = (folder / "preprocessor_config.json").write_text(json.dumps(settings))
            >>> ClipTransform.from_pretrained(folder).output_size
            (64, 64)
        """
        settings, source = load_processor_settings(name_or_path, **hub_options)
        transform = cls.from_dict(settings, source)
        if config is not None:
            try:
                transform.check_config(config)
            except ValueError as error:
                raise ValueError(f"{source}: {error}") from error
        return transform

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> ClipTransform:
        """Builds the usual transform of an architecture, for a checkpoint without a processor file.

        These are the training settings of the architecture's published checkpoints, scaled to the config's frame size
        s:

        | model_type | resize | crop | values |
        |---|---|---|---|
        | videomae | shortest edge s | s x s | ImageNet mean and standard deviation |
        | timesformer | shortest edge s | s x s | mean 0.45, standard deviation 0.225 |
        | motionformer | shortest edge s | s x s | mean and standard deviation 0.5 |
        | vivit | shortest edge 256/224 s | s x s | to [-1, 1], nothing else |
        | vjepa2 | shortest edge 256/224 s | s x s | ImageNet mean and standard deviation |
        | videoprism_vision_model | to s x s, aspect ratio not kept | none | to [0, 1], nothing else |

        A fine-tuned checkpoint may have used others: if it has a processor file, use `from_pretrained`.

        Args:
            config: A model config with one of the model types above.

        Returns:
            The transform.

        Raises:
            ValueError: If the model type is not in the table or the config states no frame size.

        Examples:
            >>> from transformers import VideoMAEConfig
            >>> ClipTransform.from_config(VideoMAEConfig(image_size=96)).crop
            (96, 96)
        """
        size = _config_size(config)
        model_type = getattr(config, "model_type", None)
        if size is None:
            raise ValueError(f"the config of {model_type!r} has neither image_size nor crop_size")
        if model_type not in USUAL_INPUTS:
            raise ValueError(
                f"model_type must be one with known settings ({', '.join(USUAL_INPUTS)}), got {model_type!r}; give "
                "the checkpoint a preprocessor_config.json or build a ClipTransform(...) with its training settings"
            )
        usual = USUAL_INPUTS[model_type].transform
        if usual.enlargement is None:
            return cls(resize=size, crop=None, **usual.fields)
        return cls(resize=int(min(size) * usual.enlargement), crop=size, **usual.fields)

    def check_config(self, config: PretrainedConfig) -> None:
        """Checks that the output of this transform fits a model.

        Args:
            config: The model's config.

        Raises:
            ValueError: If the frame size or number of channels differs from the config's, or frames are first resized
                to many times that size. Fields missing from the config are not checked.
        """
        expected = _config_size(config)
        if expected is not None and self.output_size != expected:
            made = "x".join(map(str, self.output_size)) if self.output_size else "frames of varying size"
            raise ValueError(
                f"the model expects frames of {expected[0]}x{expected[1]} pixels (height x width), but its transform "
                f"makes {made}: {self}"
            )
        edges = self.resize if isinstance(self.resize, tuple) else (self.resize or 1,)
        if expected is not None and max(edges) > MAX_ENLARGEMENT * max(expected):
            raise ValueError(
                f"the model expects frames of {expected[0]}x{expected[1]} pixels (height x width), but its transform "
                f"makes them more than {MAX_ENLARGEMENT} times as large before it crops: {self}"
            )
        channels = getattr(config, "num_channels", None) or getattr(config, "in_chans", None)
        if channels is not None and channels != 3:
            raise ValueError(f"the model expects {channels} channels, but video frames have 3 (RGB)")


def _check_uint8(frames: object) -> None:
    if not isinstance(frames, torch.Tensor) or frames.dtype != torch.uint8:
        kind = f"a {frames.dtype} tensor" if isinstance(frames, torch.Tensor) else f"a {type(frames).__name__}"
        raise TypeError(f"frames must be a uint8 tensor with values from 0 to 255, got {kind}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and is_between(value, -sys.float_info.max, sys.float_info.max)


def _are_channels(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))


def _height_and_width(size: tuple[int, int] | None) -> dict[str, int] | None:
    return None if size is None else {"height": size[0], "width": size[1]}


def _config_size(config: PretrainedConfig) -> tuple[int, int] | None:
    """Returns the (height, width) of a model's input frames in pixels; None if its config does not say."""
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _resized_size(size: tuple[int, ...] | torch.Size, resize: int | tuple[int, int]) -> tuple[int, int]:
    """Returns the (height, width) after resizing, rounded down as in the stock processors."""
    if isinstance(resize, tuple):
        return resize
    height, width = size
    if width <= height:
        return int(resize * height / width), resize
    return resize, int(resize * width / height)


def _resize(frames: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """Resizes (T, 3, H, W) uint8 frames to (T, 3, h, w) uint8 like PIL."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    if resample == "nearest":
        rows, columns = (
            torch.tensor(_nearest_indices(old, new), device=frames.device)
            for old, new in zip(frames.shape[-2:], size, strict=True)
        )
        return frames[:, :, rows[:, None], columns]

    interpolate = torch.nn.functional.interpolate
    if frames.device.type == "cpu":
        # The uint8 kernel is a port of PIL's: horizontal pass, rounding, vertical pass, rounding.
        return interpolate(frames, size=size, mode=resample, antialias=True, align_corners=False)
    # Other devices only support floats: the same two passes, each rounded (and clamped, for bicubic overshoot).
    for target in ((frames.shape[-2], size[1]), size):
        passed = interpolate(frames.float(), size=target, mode=resample, antialias=True, align_corners=False)
        frames = passed.round_().clamp_(0, 255).to(torch.uint8)
    return frames


def _nearest_indices(old: int, new: int) -> list[int]:
    """Returns the source index of each of `new` pixels, as in PIL; torch's own nearest modes differ."""
    # The pixel under each target's centre; summed rather than multiplied, like PIL, which decides ties.
    centres = accumulate([old / new] * (new - 1), initial=0.5 * old / new)
    return [min(int(centre), old - 1) for centre in centres]


def _crops(frames: torch.Tensor, size: tuple[int, int], num_crops: int) -> torch.Tensor:
    """Crops (T, 3, H, W) frames to (height, width), 1 or 3 times: (num_crops, T, 3, height, width).

    Crops larger than the frame are padded with zeros (black).
    """
    height, width = frames.shape[-2:]
    along_width = width >= height
    crop_height, crop_width = size
    if crop_height > height or crop_width > width:
        missing_y, missing_x = max(0, crop_height - height), max(0, crop_width - width)
        # The odd pixel of padding is at the top and left, as in transformers.
        top, left = (missing_y + 1) // 2, (missing_x + 1) // 2
        frames = torch.nn.functional.pad(frames, (left, missing_x - left, top, missing_y - top))
        height, width = frames.shape[-2:]
    last_top, last_left = height - crop_height, width - crop_width
    top, left = last_top // 2, last_left // 2
    corners = [(top, left)]
    if num_crops == 3:
        corners = (
            [(top, 0), (top, left), (top, last_left)] if along_width else [(0, left), (top, left), (last_top, left)]
        )
    return torch.stack([frames[:, :, y : y + crop_height, x : x + crop_width] for y, x in corners])
