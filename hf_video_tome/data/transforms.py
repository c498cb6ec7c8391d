"""From decoded frames to `pixel_values`, in plain torch.

transformers' own video processors need torchvision, and its PIL image processors work frame by frame. `ClipTransform`
reads the same configuration files, handles a whole clip at once, on any device, and gives what the stock processors
give: the frames are resized as uint8 (so are PIL's), and every later step is exact.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from ..merging.values import is_between, shown
from ..saved_files import find_saved_files, read_json_object
from .usual_inputs import USUAL_INPUTS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

# Where transformers stores processor settings. The most specific comes first, as in its own video loader; the third
# holds them under a key, beside those of other modalities.
_PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
_NESTED_FILE = "processor_config.json"
PROCESSOR_FILES = (_NESTED_FILE, *_PROCESSOR_FILES)
"""Files in which a checkpoint may have its processor, that first which counts before the others."""
_NESTED_KEYS = ("video_processor", "image_processor")

MAX_ENLARGEMENT = 16
"""How many times larger than the model's frames a checkpoint may have them before the crop; usual is 1.3 at most."""

PROCESSOR_SETTINGS = (
    "do_resize",
    "size",
    "default_to_square",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "rescale_offset",
    "do_normalize",
    "image_mean",
    "image_std",
    "subtract_mean_frame",
)
"""What a clip transform is made of in the words of the processors of transformers."""

_PIL_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_PIL_NAMES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_CLASS_SUFFIXES = ("Fast", "Pil", "ImageProcessor", "VideoProcessor", "FeatureExtractor")


@dataclass(frozen=True)
class ClipTransform:
    """Turns the uint8 frames of one clip into a model's float input.

    In this order: resize (kept as uint8, as PIL does), centre crop (zero padding where the crop is larger), then
    `(frame * rescale_factor + rescale_offset - mean) / std`, from which the mean frame of the clip may be taken off.
    The two halves are also methods of their own: `crop_views`, which can take three crops, and `normalize`.

    Args:
        resize: Length of the shortest edge in pixels (the other keeps the aspect ratio, rounded down), or
            (height, width), or None for no resizing.
        crop: (height, width) of the centre crop in pixels, or None for no crop.
        rescale_factor: What uint8 values are multiplied by; 1 / 255 gives [0, 1].
        rescale_offset: What is added after that. ViViT's "offset" is -1 with a factor of 1 / 127.5: [-1, 1].
        mean: Per-channel mean to subtract, in rescaled units, or None for no normalisation.
        std: Per-channel standard deviation to divide by, in rescaled units; None exactly where `mean` is None.
        resample: `"bilinear"`, `"bicubic"` (both antialiased) or `"nearest"`.
        subtract_mean_frame: Whether to subtract the mean of the clip's frames from each of them, last: what does not
            move becomes 0. A model that is trained from scratch on few videos of one static camera learns motion so,
            rather than backgrounds. No processor of transformers has this step; `hf_video_tome.ClipProcessor` does.

    Raises:
        ValueError: If a field is not as described; the message names the field, the value and what is allowed.

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
        if self.resize is not None and not _is_length(self.resize) and not _is_size(self.resize):
            raise ValueError(
                "`resize` must be the length of the shortest edge (an integer of at least 1), a (height, width) tuple "
                f"or None, got {shown(self.resize)}."
            )
        if self.crop is not None and not _is_size(self.crop):
            raise ValueError(
                f"`crop` must be a (height, width) tuple of positive integers or None, got {shown(self.crop)}."
            )
        for name in ("rescale_factor", "rescale_offset"):
            value = getattr(self, name)
            if not _is_number(value) or (name == "rescale_factor" and value == 0):
                raise ValueError(f"`{name}` must be a finite number (the factor not 0), got {shown(value)}.")
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"`mean` and `std` must both be given or both be None, got {shown(self.mean)} and {shown(self.std)}."
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is None:
                continue
            if not isinstance(values, tuple) or len(values) != 3 or not all(_is_number(v) for v in values):
                raise ValueError(
                    f"`{name}` must be a tuple of 3 finite numbers (R, G, B) or None, got {shown(values)}."
                )
            if name == "std" and min(values) <= 0:
                raise ValueError(f"`std` must be above 0, got {shown(values)}.")
        if self.resample not in _PIL_RESAMPLE.values():
            allowed = ", ".join(repr(name) for name in _PIL_RESAMPLE.values())
            raise ValueError(f"`resample` must be one of {allowed}, got {shown(self.resample)}.")
        if not isinstance(self.subtract_mean_frame, bool):
            raise ValueError(f"`subtract_mean_frame` must be True or False, got {shown(self.subtract_mean_frame)}.")

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of every result in pixels, or None where it depends on the input's aspect ratio."""
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
        """Returns the transform in the words of the processors of transformers; `from_dict` is the inverse.

        Returns:
            JSON-safe settings without the name of a class, as in a `preprocessor_config.json`.

        Raises:
            ValueError: If `rescale_offset` is neither 0 nor -1: processors know no other.

        Examples:
            >>> settings = ClipTransform(resize=256).to_processor_settings()
            >>> settings["size"], settings["crop_size"]
            ({'shortest_edge': 256}, {'height': 224, 'width': 224})
            >>> ClipTransform.from_dict(settings) == ClipTransform(resize=256)
            True
        """
        if self.rescale_offset not in (0, -1):
            raise ValueError(f"rescale_offset must be 0 or -1 in a processor, got {self.rescale_offset!r}")
        settings: dict[str, Any] = {"do_resize": self.resize is not None}
        if self.resize is not None:
            settings["size"] = _processor_size(self.resize)
        settings["resample"] = next(code for code, name in _PIL_RESAMPLE.items() if name == self.resample)
        settings["do_center_crop"] = self.crop is not None
        if self.crop is not None:
            settings["crop_size"] = _processor_size(self.crop)
        settings["do_rescale"] = (self.rescale_factor, self.rescale_offset) != (1, 0)
        if settings["do_rescale"]:
            settings["rescale_factor"] = self.rescale_factor
        if self.rescale_offset:
            settings["rescale_offset"] = True
        settings["do_normalize"] = self.mean is not None
        if self.mean is not None and self.std is not None:
            settings |= {"image_mean": list(self.mean), "image_std": list(self.std)}
        if self.subtract_mean_frame:
            settings["subtract_mean_frame"] = True
        return settings

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Transforms one clip: `crop_views` with the centre crop only, then `normalize`.

        Args:
            frames: (T, 3, H, W) uint8 RGB frames, 0 to 255, on any device; `read_frames` gives these.

        Returns:
            (T, 3, h, w) float32 on the same device: one sample of `pixel_values`.

        Raises:
            TypeError: If `frames` is not a uint8 tensor.
            ValueError: If the shape is another one or the clip is empty.
        """
        return self.normalize(self.crop_views(frames)[0])

    def crop_views(self, frames: torch.Tensor, num_crops: int = 1) -> torch.Tensor:
        """Resizes and crops one clip, which stays uint8: a quarter of the bytes to send to the device that normalises.

        Args:
            frames: (T, 3, H, W) uint8 RGB frames, 0 to 255, on any device; `read_frames` gives these.
            num_crops: 1 (the centre crop, or the whole frames where the transform has no crop) or 3 (begin, centre
                and end of the longer side, in this order, centred on the other side; of a square frame: left, centre
                and right). The centre crop of 3 is that of 1. Where the crop is as large as the frame, or larger and
                so padded, all three are the same.

        Returns:
            (num_crops, T, 3, h, w) uint8 on the same device, contiguous; it may share memory with `frames` where
            nothing is to be changed.

        Raises:
            TypeError: If `frames` is not a uint8 tensor.
            ValueError: If the shape is another one, the clip is empty, or `num_crops` is neither 1 nor 3, or is 3 with
                a transform that does not crop.

        Examples:
            >>> import torch
            >>> transform = ClipTransform(resize=32, crop=(32, 32))
            >>> views = transform.crop_views(torch.zeros(16, 3, 48, 64, dtype=torch.uint8), num_crops=3)
            >>> views.shape, views.dtype
            (torch.Size([3, 16, 3, 32, 32]), torch.uint8)
        """
        _check_uint8(frames)
        if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
            raise ValueError(f"`frames` must have the shape (T, 3, H, W), none of them 0, got {tuple(frames.shape)}.")
        if not _is_length(num_crops) or num_crops not in (1, 3):
            raise ValueError(f"`num_crops` must be 1 or 3, got {num_crops!r}.")
        if num_crops != 1 and self.crop is None:
            raise ValueError(
                f"`num_crops` must be 1 with a transform that takes whole frames (`crop=None`), got {num_crops}."
            )

        if self.resize is not None:
            frames = _resize(frames, _resized_size(frames.shape[-2:], self.resize), self.resample)
        if self.crop is None:
            return frames[None].contiguous()
        return _crops(frames, self.crop, num_crops)

    def normalize(self, frames: torch.Tensor) -> torch.Tensor:
        """Turns uint8 values into model input: `(frame * rescale_factor + rescale_offset - mean) / std`.

        Args:
            frames: (..., 3, h, w) uint8 RGB frames, 0 to 255, on any device: one clip, or any batch of clips or views.
                With `subtract_mean_frame` (..., T, 3, h, w): whole clips of T frames.

        Returns:
            float32 of the same shape on the same device, contiguous. Batching does not change a value.

        Raises:
            TypeError: If `frames` is not a uint8 tensor.
            ValueError: If the shape is another one or a dimension is 0.

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
            raise ValueError(f"`frames` must have the shape {shape}, none of them 0, got {tuple(frames.shape)}.")

        # A uint8 channel has 256 possible values: compute those in the order and the precision of the stock
        # processors (float64 product, then float32), then look them up. Exact, and needs no float64 on the device.
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
        """Builds the transform that a transformers processor configuration describes.

        Keys that are absent take the default of the stock class named in the configuration (VideoMAE, ViViT,
        TimeSformer, V-JEPA 2), as in transformers. For any other class nothing is guessed: what is needed must be
        there.

        Args:
            processor: The content of a `preprocessor_config.json` or `video_preprocessor_config.json`.
            source: What error messages call it.

        Returns:
            The transform.

        Raises:
            ValueError: If a key is missing, malformed or asks for a step that this transform does not have.

        Examples:
            >>> ClipTransform.from_dict({"image_processor_type": "VivitImageProcessor"}).rescale_offset
            -1.0
        """

        def fail(problem: str) -> NoReturn:
            raise ValueError(f"{source}: {problem}.")

        class_name = next(
            (
                str(processor[key])
                for key in ("video_processor_type", "image_processor_type", "feature_extractor_type")
                if processor.get(key)
            ),
            "",
        )
        defaults = _class_defaults(class_name)
        settings = {**defaults, **{key: value for key, value in processor.items() if value is not None}}

        def need(key: str) -> Any:
            if key not in settings:
                known = (
                    f"its class, {shown(class_name)}, is unknown here" if class_name else "it names no processor class"
                )
                fail(f"the key {key!r} is missing, and {known}, so that no default applies")
            return settings[key]

        for key, value in settings.items():
            is_switch = key.startswith("do_") or key == "subtract_mean_frame"
            if key in PROCESSOR_SETTINGS and is_switch and not isinstance(value, bool):
                fail(f"{key!r} must be True or False, got {shown(value)}")
        for key in ("do_pad", "do_flip_channel_order"):
            if settings.get(key):
                fail(f"{key!r} is set, and this transform has no such step")

        resize: int | tuple[int, int] | None = None
        if need("do_resize"):
            size = need("size")
            if _family(class_name) == "vjepa2":
                # The stock class ignores the stored size and derives it from the crop.
                crop_size = _read_size(settings["crop_size"], square=True)
                resize = int(crop_size[0] * 256 / 224) if isinstance(crop_size, tuple) else None
            else:
                resize = _read_size(size, square=bool(settings.get("default_to_square", not defaults)))
            if resize is None:
                fail(
                    "'size' must be an integer, {'shortest_edge': n} or {'height': h, 'width': w} with positive "
                    f"integers, got {shown(size)}"
                )
        crop: tuple[int, int] | None = None
        if settings.get("do_center_crop", False):
            crop_size = _read_size(need("crop_size"), square=True)
            if not isinstance(crop_size, tuple):
                fail(
                    "'crop_size' must be an integer or {'height': h, 'width': w} with positive integers, got "
                    f"{shown(settings['crop_size'])}"
                )
            crop = crop_size

        factor, offset = 1.0, 0.0
        if need("do_rescale"):
            factor = need("rescale_factor")
            # VivitVideoProcessor shifts whatever its file says; VivitImageProcessor and others follow the key.
            always = class_name.startswith("VivitVideoProcessor")
            offset = -1.0 if always or settings.get("offset") or settings.get("rescale_offset") else 0.0
        mean = std = None
        if need("do_normalize"):
            mean, std = _read_channels(need("image_mean")), _read_channels(need("image_std"))

        resample = settings.get("resample", 2)
        if isinstance(resample, bool) or not isinstance(resample, int) or resample not in _PIL_RESAMPLE:
            name = _PIL_NAMES.get(resample, "unknown") if isinstance(resample, int) else "not a PIL code"
            allowed = ", ".join(f"{code} ({text})" for code, text in _PIL_RESAMPLE.items())
            fail(f"'resample' must be one of {allowed}, got {shown(resample)} ({name})")
        try:
            subtract = settings.get("subtract_mean_frame", False)
            return cls(resize, crop, factor, offset, mean, std, _PIL_RESAMPLE[resample], subtract)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        config: PretrainedConfig | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> ClipTransform:
        """Reads the transform that was saved with a checkpoint.

        Looked for, in the order of transformers' video loader: `processor_config.json` (only where it holds a video or
        image processor), `video_preprocessor_config.json`, `preprocessor_config.json`.

        Args:
            name_or_path: A folder, one such JSON file, or a model id on the Hub (or in its cache).
            config: The model's config. Given, the result is checked against it: frames of another size or number of
                channels than the model takes are an error here rather than in the middle of a run.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Folder of downloads, if not the standard one.
            token: Hub token, or True for the stored one.
            local_files_only: Do not go to the network.

        Returns:
            The transform.

        Raises:
            FileNotFoundError: If there is no such file. Nothing is assumed in its place: a checkpoint without one can
                be used with `ClipTransform.from_config(config)`.
            ValueError: If the file cannot be understood or does not fit `config`.

        Examples:
            >>> import json, pathlib, tempfile
            >>> folder = pathlib.Path(tempfile.mkdtemp())
            >>> settings = {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 64},
            ...     "crop_size": {"height": 64, "width": 64}}
            >>> _ = (folder / "preprocessor_config.json").write_text(json.dumps(settings))
            >>> ClipTransform.from_pretrained(folder).output_size
            (64, 64)
        """
        settings, source = load_processor_settings(
            name_or_path, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        transform = cls.from_dict(settings, source)
        if config is not None:
            try:
                transform.check_config(config)
            except ValueError as error:
                raise ValueError(f"{source}: {error}") from error
        return transform

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> ClipTransform:
        """Chooses the usual settings of a model's architecture, for a checkpoint that came without a processor file.

        These are the settings that the published checkpoints of each architecture were trained with, scaled to the
        config's frame size s:

        | model_type | resize | crop | values |
        |---|---|---|---|
        | videomae | shortest edge s | s x s | ImageNet mean and standard deviation |
        | timesformer | shortest edge s | s x s | mean 0.45, standard deviation 0.225 |
        | motionformer | shortest edge s | s x s | mean and standard deviation 0.5 |
        | vivit | shortest edge 256/224 s | s x s | to [-1, 1], nothing else |
        | vjepa2 | shortest edge 256/224 s | s x s | ImageNet mean and standard deviation |
        | videoprism_vision_model | to s x s, aspect ratio not kept | none | to [0, 1], nothing else |

        A fine-tuned checkpoint may have used others: where there is a file, use `from_pretrained`.

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
            raise ValueError(f"The config of {model_type!r} has neither `image_size` nor `crop_size`.")
        if model_type not in USUAL_INPUTS:
            raise ValueError(
                f"No usual settings are known for the model type {model_type!r} (known: {', '.join(USUAL_INPUTS)}). "
                "Give the checkpoint a preprocessor_config.json or build a ClipTransform(...) with the settings it "
                "was trained with."
            )
        usual = USUAL_INPUTS[model_type].transform
        if usual.enlargement is None:
            return cls(resize=size, crop=None, **usual.fields)
        return cls(resize=int(min(size) * usual.enlargement), crop=size, **usual.fields)

    def check_config(self, config: PretrainedConfig) -> None:
        """Checks that a model takes what this transform makes.

        Args:
            config: The model's config.

        Raises:
            ValueError: If the frames' size or number of channels is not what the config says, or they are resized to
                many times that size first. A config without such a field is not checked against it.
        """
        expected = _config_size(config)
        if expected is not None and self.output_size != expected:
            made = "x".join(map(str, self.output_size)) if self.output_size else "frames of varying size"
            raise ValueError(
                f"The model expects frames of {expected[0]}x{expected[1]} pixels (height x width), but its transform "
                f"makes {made}: {self}."
            )
        edges = self.resize if isinstance(self.resize, tuple) else (self.resize or 1,)
        if expected is not None and max(edges) > MAX_ENLARGEMENT * max(expected):
            raise ValueError(
                f"The model expects frames of {expected[0]}x{expected[1]} pixels (height x width), but its transform "
                f"makes them more than {MAX_ENLARGEMENT} times as large before it crops: {self}."
            )
        channels = getattr(config, "num_channels", None) or getattr(config, "in_chans", None)
        if channels is not None and channels != 3:
            raise ValueError(f"The model expects {channels} channels, but video frames have 3 (RGB).")


def load_processor_settings(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> tuple[dict[str, Any], str]:
    """Reads the processor settings that were saved with a checkpoint; `ClipTransform.from_dict` understands them.

    Args:
        name_or_path: A folder, one JSON file, or a model id on the Hub; see `ClipTransform.from_pretrained`.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Folder of downloads, if not the standard one.
        token: Hub token, or True for the stored one.
        local_files_only: Do not go to the network.

    Returns:
        The settings, and where they are from, for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no JSON object.
    """
    path = Path(name_or_path)
    if path.is_file():
        return read_json_object(path), str(path)
    # Two parts at most make a model id; all else can only have been meant as a folder.
    is_path = path.is_absolute() or str(name_or_path).startswith((".", "~")) or len(path.parts) > 2
    if is_path and not path.is_dir():
        raise FileNotFoundError(f"{name_or_path}: no such folder.")
    try:
        for file in find_saved_files(
            name_or_path,
            PROCESSOR_FILES,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        ):
            content = read_json_object(file)
            if file.name != _NESTED_FILE:
                return content, str(file)
            for key in _NESTED_KEYS:
                if isinstance(content.get(key), dict):
                    return content[key], f"{file} ({key!r})"
    except OSError as error:
        raise FileNotFoundError(
            f"{name_or_path}: no such folder, and no processor configuration could be had from the Hub either: {error}"
        ) from error
    where = "" if path.is_dir() else " on the Hub (or, offline, in its cache), nor is it a folder"
    raise FileNotFoundError(
        f"{name_or_path} has no {' or '.join(_PROCESSOR_FILES)}{where}, so how its frames are to be resized and "
        "normalised is unknown. Save the checkpoint's processor beside it, or choose the usual settings of its "
        "architecture with ClipTransform.from_config(config)."
    )


def _check_uint8(frames: object) -> None:
    if not isinstance(frames, torch.Tensor) or frames.dtype != torch.uint8:
        kind = f"a {frames.dtype} tensor" if isinstance(frames, torch.Tensor) else f"a {type(frames).__name__}"
        raise TypeError(f"`frames` must be a uint8 tensor with values from 0 to 255, got {kind}.")


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_size(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_length(edge) for edge in value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and is_between(value, -sys.float_info.max, sys.float_info.max)


def _family(class_name: str) -> str:
    """Reduces the name of a processor class to its architecture: "VideoMAEImageProcessorFast" to "videomae"."""
    name, previous = class_name, ""
    while name != previous:
        previous = name
        for suffix in _CLASS_SUFFIXES:
            name = name.removesuffix(suffix)
    return name.lower()


def _class_defaults(class_name: str) -> dict[str, Any]:
    """What a stock processor class assumes where its file is silent; empty for a class that is not known here.

    Kept here because the video processors' own values cannot be read without torchvision.
    """
    steps = {"do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True}
    base = {
        **steps,
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "rescale_factor": 1 / 255,
        "image_mean": HALF,
        "image_std": HALF,
        "resample": 2,
    }
    family = _family(class_name)
    if family == "videomae":
        return base
    if family == "vivit":
        return {**base, "size": {"shortest_edge": 256}, "rescale_factor": 1 / 127.5, "offset": True}
    if family == "timesformer":
        return {**base, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    if family == "vjepa2":
        imagenet = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
        return {**base, **imagenet, "size": {"shortest_edge": 292}, "crop_size": {"height": 256, "width": 256}}
    return {}


def _read_size(value: Any, *, square: bool) -> int | tuple[int, int] | None:
    """Reads a size entry: an integer (both edges with `square`, else the shortest), a pair, or a dictionary."""
    if _is_length(value):
        return (value, value) if square else int(value)
    if isinstance(value, (list, tuple)):
        return tuple(value) if _is_size(tuple(value)) else None
    if not isinstance(value, Mapping):
        return None
    given = {key: edge for key, edge in value.items() if edge is not None}
    if set(given) == {"shortest_edge"} and _is_length(given["shortest_edge"]):
        return int(given["shortest_edge"])
    if set(given) == {"height", "width"} and _is_size((given["height"], given["width"])):
        return given["height"], given["width"]
    return None


def _processor_size(value: int | tuple[int, int]) -> dict[str, int]:
    """Gives a size as processors write it; `_read_size` is the inverse."""
    return {"shortest_edge": value} if isinstance(value, int) else {"height": value[0], "width": value[1]}


def _read_channels(value: Any) -> Any:
    """Gives a mean or standard deviation as a tuple of three; what is wrong with it the dataclass will say."""
    if _is_number(value):
        return (value, value, value)
    return tuple(value) if isinstance(value, list) else value


def _config_size(config: PretrainedConfig) -> tuple[int, int] | None:
    """Gives (height, width) in pixels of the frames that a model takes, if its config says so."""
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _resized_size(size: tuple[int, ...] | torch.Size, resize: int | tuple[int, int]) -> tuple[int, int]:
    """Gives the (height, width) that `resize` makes of `size`, with the stock processors' rounding (down)."""
    if isinstance(resize, tuple):
        return resize
    height, width = size
    if width <= height:
        return int(resize * height / width), resize
    return resize, int(resize * width / height)


def _resize(frames: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """Resizes (T, 3, H, W) uint8 frames to (T, 3, h, w) uint8 as PIL does."""
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
    # Elsewhere it only exists for floats: the same two passes, rounding (and clamping bicubic overshoot) after each.
    for target in ((frames.shape[-2], size[1]), size):
        passed = interpolate(frames.float(), size=target, mode=resample, antialias=True, align_corners=False)
        frames = passed.round_().clamp_(0, 255).to(torch.uint8)
    return frames


def _nearest_indices(old: int, new: int) -> list[int]:
    """Gives the index that PIL takes for each of `new` pixels out of `old`; torch's own nearest modes differ."""
    # The one under each target's centre; added up rather than multiplied, as PIL does, which decides ties.
    centres = accumulate([old / new] * (new - 1), initial=0.5 * old / new)
    return [min(int(centre), old - 1) for centre in centres]


def _crops(frames: torch.Tensor, size: tuple[int, int], num_crops: int) -> torch.Tensor:
    """Cuts (height, width) out of (T, 3, H, W) frames, 1 or 3 times: (num_crops, T, 3, height, width).

    A crop that is larger than the frame is padded with zeros (black).
    """
    height, width = frames.shape[-2:]
    along_width = width >= height
    crop_height, crop_width = size
    if crop_height > height or crop_width > width:
        missing_y, missing_x = max(0, crop_height - height), max(0, crop_width - width)
        # The odd pixel of padding goes to the top and left, as in transformers.
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
