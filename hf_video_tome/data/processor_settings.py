"""Settings of transformers processors for clip transforms, and the files that store them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..merging.values import shown
from ..saved_files import find_saved_files, read_json_object

# Where transformers stores processor settings, the most specific first, as in its own video loader; the nested file
# stores them under a key, beside those of other modalities.
_PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
_NESTED_FILE = "processor_config.json"
PROCESSOR_FILES = (_NESTED_FILE, *_PROCESSOR_FILES)
"""Files that may store the processor of a checkpoint, in the order of precedence."""
_NESTED_KEYS = ("video_processor", "image_processor")

PROCESSOR_SETTINGS = (
    *("do_resize", "size", "default_to_square", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "rescale_offset", "do_normalize", "image_mean", "image_std"),
    "subtract_mean_frame",
)
"""Settings of transformers processors that describe a clip transform."""

_SWITCHES = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "subtract_mean_frame")

RESAMPLE_CODES = {"nearest": 0, "bilinear": 2, "bicubic": 3}
"""PIL's codes of resampling modes, by their names in PyTorch."""
_PIL_NAMES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

_CLASS_SUFFIXES = ("Fast", "Pil", "ImageProcessor", "VideoProcessor", "FeatureExtractor")
_IMAGENET = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
# Defaults of the stock processor classes; kept here because those of the video processors cannot be read without
# torchvision.
_DEFAULTS = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), True) | {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "rescale_factor": 1 / 255,
    "image_mean": HALF,
    "image_std": HALF,
    "resample": 2,
}
_OTHER_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "videomae": {},
    "vivit": {"size": {"shortest_edge": 256}, "rescale_factor": 1 / 127.5, "offset": True},
    "timesformer": _IMAGENET,
    "vjepa2": {**_IMAGENET, "size": {"shortest_edge": 292}, "crop_size": {"height": 256, "width": 256}},
}


def transform_fields(processor: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the fields of the clip transform described by a processor configuration.

    Args:
        processor: As for `ClipTransform.from_dict`.
        source: Name of the configuration in error messages.

    Returns:
        Fields of `ClipTransform`.

    Raises:
        ValueError: If a key is missing, malformed or asks for an unsupported step.
    """

    def fail(problem: str) -> NoReturn:
        raise ValueError(f"{source}: {problem}")

    class_name = _class_name(processor)
    family = _family(class_name)
    defaults = _DEFAULTS | _OTHER_DEFAULTS[family] if family in _OTHER_DEFAULTS else {}
    settings = {**defaults, **{key: value for key, value in processor.items() if value is not None}}

    def need(key: str) -> Any:
        if key not in settings:
            known = f"its class, {shown(class_name)}, is unknown here" if class_name else "it names no processor class"
            fail(f"the key {key!r} is missing, and {known}, so that no default applies")
        return settings[key]

    for key in _SWITCHES:
        if not isinstance(settings.get(key, False), bool):
            fail(f"{key!r} must be True or False, got {shown(settings[key])}")
    for key in ("do_pad", "do_flip_channel_order"):
        if settings.get(key):
            fail(f"{key!r} is set, but this transform has no such step")

    fields: dict[str, Any] = {"resize": None, "crop": None, "rescale_factor": 1.0, "mean": None, "std": None}
    if need("do_resize"):
        size = need("size")
        if family == "vjepa2":
            # The stock class ignores the stored size and derives it from the crop.
            crop_size = _read_size(settings["crop_size"], square=True)
            fields["resize"] = int(crop_size[0] * 256 / 224) if isinstance(crop_size, tuple) else None
        else:
            fields["resize"] = _read_size(size, square=bool(settings.get("default_to_square", not defaults)))
        if fields["resize"] is None:
            fail(
                "'size' must be an integer, {'shortest_edge': n} or {'height': h, 'width': w} with positive "
                f"integers, got {shown(size)}"
            )
    if settings.get("do_center_crop", False):
        fields["crop"] = _read_size(need("crop_size"), square=True)
        if not isinstance(fields["crop"], tuple):
            fail(
                "'crop_size' must be an integer or {'height': h, 'width': w} with positive integers, got "
                f"{shown(settings['crop_size'])}"
            )
    if need("do_rescale"):
        fields["rescale_factor"] = need("rescale_factor")
        # VivitVideoProcessor shifts whatever its file says; VivitImageProcessor and others follow the key.
        always = class_name.startswith("VivitVideoProcessor")
        fields["rescale_offset"] = -1.0 if always or settings.get("offset") or settings.get("rescale_offset") else 0.0
    if need("do_normalize"):
        fields |= {"mean": _read_channels(need("image_mean")), "std": _read_channels(need("image_std"))}

    resample = settings.get("resample", RESAMPLE_CODES["bilinear"])
    names = {code: name for name, code in RESAMPLE_CODES.items()}
    if isinstance(resample, bool) or not isinstance(resample, int) or resample not in names:
        name = _PIL_NAMES.get(resample, "unknown") if isinstance(resample, int) else "not a PIL code"
        allowed = ", ".join(f"{code} ({text})" for code, text in names.items())
        fail(f"'resample' must be one of {allowed}, got {shown(resample)} ({name})")
    return {**fields, "resample": names[resample], "subtract_mean_frame": settings.get("subtract_mean_frame", False)}


def load_processor_settings(name_or_path: str | os.PathLike[str], **hub_options: Any) -> tuple[dict[str, Any], str]:
    """Reads the processor settings saved with a checkpoint, as `ClipTransform.from_dict` takes them.

    Args:
        name_or_path: A folder, one JSON file, or a model id on the Hub; see `ClipTransform.from_pretrained`.
        **hub_options: Hub options, as for `ClipTransform.from_pretrained`.

    Returns:
        The settings, and their source for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a JSON object.
    """
    path = Path(name_or_path)
    if path.is_file():
        return read_json_object(path), str(path)
    # A model id has at most two parts; anything else must be meant as a folder.
    is_path = path.is_absolute() or str(name_or_path).startswith((".", "~")) or len(path.parts) > 2
    if is_path and not path.is_dir():
        raise FileNotFoundError(f"{name_or_path}: no such folder")
    try:
        for file in find_saved_files(name_or_path, PROCESSOR_FILES, **hub_options):
            content = read_json_object(file)
            if file.name != _NESTED_FILE:
                return content, str(file)
            for key in _NESTED_KEYS:
                if isinstance(content.get(key), dict):
                    return content[key], f"{file} ({key!r})"
    except OSError as error:
        raise FileNotFoundError(
            f"{name_or_path}: no such folder, and no processor configuration could be loaded from the Hub: {error}"
        ) from error
    where = "" if path.is_dir() else " on the Hub (or, offline, in its cache), nor is it a folder"
    raise FileNotFoundError(
        f"{name_or_path} has no {' or '.join(_PROCESSOR_FILES)}{where}, so it is unknown how to resize and "
        "normalise its frames. Save the checkpoint's processor beside it, or choose the usual settings of its "
        "architecture with ClipTransform.from_config(config)"
    )


def _class_name(processor: Mapping[str, Any]) -> str:
    keys = ("video_processor_type", "image_processor_type", "feature_extractor_type")
    return next((str(processor[key]) for key in keys if processor.get(key)), "")


def _family(class_name: str) -> str:
    """Reduces the name of a processor class to its architecture: "VideoMAEImageProcessorFast" to "videomae"."""
    name, previous = class_name, ""
    while name != previous:
        previous = name
        for suffix in _CLASS_SUFFIXES:
            name = name.removesuffix(suffix)
    return name.lower()


def is_length(value: object) -> bool:
    """Returns whether a value is a length in pixels, an integer of at least 1.

    Args:
        value: Any value.
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_size(value: object) -> bool:
    """Returns whether a value is a tuple of two lengths, (height, width).

    Args:
        value: Any value.
    """
    return isinstance(value, tuple) and len(value) == 2 and all(map(is_length, value))


def _read_size(value: Any, *, square: bool) -> int | tuple[int, int] | None:
    """Reads a size entry: an integer (both edges with `square`, else the shortest edge), a pair, or a dictionary."""
    if is_length(value):
        return (value, value) if square else int(value)
    if isinstance(value, Mapping):
        given = {key: edge for key, edge in value.items() if edge is not None}
        if set(given) == {"shortest_edge"} and is_length(given["shortest_edge"]):
            return int(given["shortest_edge"])
        value = (given["height"], given["width"]) if set(given) == {"height", "width"} else None
    return tuple(value) if isinstance(value, (list, tuple)) and is_size(tuple(value)) else None


def _read_channels(value: Any) -> Any:
    """Returns a mean or standard deviation as a tuple of three; the transform validates it."""
    return (value,) * 3 if isinstance(value, (int, float)) else tuple(value) if isinstance(value, list) else value
