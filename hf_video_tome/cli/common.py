"""Shared code of the commands: options, loading of checkpoints, and errors.

torch and transformers are only imported inside the functions that need them.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .. import loading
from ..checkpoints import DEFAULT_CHECKPOINT
from ..describe import describe_settings
from ..loading import Classifier
from ..loading import quiet_transformers as quiet_transformers  # for the commands
from ..merging.setting_error import PREFIX, SettingError
from ..merging.settings import are_off
from .printing import one_line, print_note

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ..benchmark import BenchmarkResults
    from ..configuration import TokenMergingConfigMixin


class InputError(Exception):
    """Raised for bad input; only its message is printed, on one line."""


# --- options
Dtype = StrEnum("Dtype", ["float32", "bfloat16", "float16"])  # no Literal: Typer takes no lists of these
Strategy = Literal["uniform", "center", "start"]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="ID_OR_FOLDER",
        help="Checkpoint: a folder, a model id on the Hub such as MCG-NJU/videomae-base-finetuned-kinetics, or the "
        "name of a bundled checkpoint.",
        show_default=f"{DEFAULT_CHECKPOINT}, bundled",
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Checkpoint: a folder, a model id on the Hub, or the name of a bundled checkpoint."
    ),
]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Data type of the model.")]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Device of the model: cpu, cuda, cuda:1, mps.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@dataclass(frozen=True)
class FrameOptions:
    """Options for sampling a single clip from a video."""

    strategy: Annotated[
        Strategy,
        typer.Option(
            help="Sample frames evenly over the whole video (uniform), or consecutive frames from its middle (center) "
            "or its start (start)."
        ),
    ] = "uniform"
    sampling_rate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Distance between two sampled frames, in frames of the video; for center and start.",
            show_default="1",
        ),
    ] = None

    def check(self) -> None:
        """Rejects a sampling rate if the strategy determines it."""
        if self.sampling_rate is not None and self.strategy == "uniform":
            raise InputError("--sampling-rate has no effect with --strategy uniform; use --strategy center or start")

    def to_dict(self) -> dict[str, Any]:
        """Returns the chosen options, JSON-safe."""
        rate = None if self.strategy == "uniform" else self.sampling_rate or 1
        return {"strategy": self.strategy, "sampling_rate": rate}

    def read(self, classifier: Classifier, file: str) -> torch.Tensor:
        """Decodes one clip of a video file or folder of frames, with as many frames as the model takes.

        Args:
            classifier: The model.
            file: Path of the video.

        Returns:
            (T, 3, H, W) uint8 RGB frames.

        Raises:
            InputError: If the file cannot be read.
        """
        from ..data.sampling import ClipSampling
        from ..data.video.clips import read_clips
        from ..data.video.types import VideoDecodingError

        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", file):
            raise InputError(f"{file}: is a URL, but videos must be local files: download it first")
        sampling = ClipSampling(classifier.model.config.clip_shape.frames, self.sampling_rate or 1, self.strategy)
        with (
            input_errors(OSError, MemoryError, at=file),
            input_errors(VideoDecodingError),
        ):
            return read_clips(file, sampling)[0]


# --- errors
@contextmanager
def input_errors(
    *kinds: type[Exception],
    at: object = "",
    rewrite: Callable[[str], str] = str,
    options: Sequence[str] | Mapping[str, str] | None = (),
) -> Iterator[None]:
    """Converts exceptions known to be caused by bad input to `InputError`; wrap as little code as possible in it.

    Args:
        *kinds: Exception types to convert; others pass. A `SettingError` then names options instead of settings.
        at: Subject of the message, printed before it.
        rewrite: Function applied to the message.
        options: Arguments of the called function that are options of the command; a mapping gives other names for
            them. None keeps all names, for values that were not typed.
    """
    try:
        yield
    except kinds as error:
        if options is None:
            message = one_line(error)
        elif isinstance(error, SettingError):
            message = error.message(option_name, " ", takes_none=False)
        else:
            message = _with_options(one_line(error), options)
        raise InputError(f"{at}: {rewrite(message)}" if at else rewrite(message)) from error


def _with_options(message: str, options: Sequence[str] | Mapping[str, str]) -> str:
    """Replaces arguments in a message with their options: the first word, and words with underscores."""
    names = options if isinstance(options, Mapping) else {name: option_name(name) for name in options}
    words = message.split(" ")
    for index, word in enumerate(words):
        name = word.rstrip(",:")
        if name in names and (index == 0 or "_" in name):
            words[index] = names[name] + word.removeprefix(name)
    return " ".join(words)


def require_packages(packages: Mapping[str, str], extra: str) -> None:
    """Checks that the packages of an extra are installed.

    Args:
        packages: Mapping from each package to its module.
        extra: Extra of this package that installs them.

    Raises:
        InputError: If a package is missing; the message says how to install it.
    """
    missing = [package for package, module in packages.items() if find_spec(module) is None]
    if missing:
        raise InputError(f'this command needs {" and ".join(missing)}: pip install "hf-video-tome[{extra}]"')


# --- values of options
def parse_named_values(texts: Sequence[str], option: str) -> dict[str, str]:
    """Parses the values of a repeatable NAME=VALUE option.

    Args:
        texts: The values.
        option: Name of the option in errors.

    Returns:
        Mapping from names to values.

    Raises:
        InputError: If a value is malformed, or a name occurs twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier():
            raise InputError(f"{option} must be NAME=VALUE, got {text!r}")
        if name in values:
            raise InputError(f"{option} must be given once for {name}, got {values[name]!r} and {value!r}")
        values[name] = value
    return values


def with_settings(config: Any, settings: Mapping[str, Any]) -> TokenMergingConfigMixin:
    """Returns a copy of a config with other token merging settings.

    Args:
        config: A config with token merging fields.
        settings: Settings given as options.

    Returns:
        The copy.

    Raises:
        InputError: If the architecture does not support them.
    """
    with input_errors(SettingError, loading.UnsupportedSettingsError):
        return loading.with_settings(config, settings)


def option_name(name: str) -> str:
    """Returns the option of an argument or setting: "token_merging_head_aggregation" becomes "--head-aggregation"."""
    return "--" + name.removeprefix(PREFIX).replace("_", "-")


def check_device(name: str) -> torch.device:
    """Checks a value of `--device` by using the device.

    Args:
        name: Device name, such as "cpu" or "cuda:1".

    Returns:
        The device.

    Raises:
        InputError: If there is no such device here.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        names = ["cpu"]
        names += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        names += ["mps"] if torch.backends.mps.is_available() else []
        raise InputError(f"--device must be a device of this machine ({', '.join(names)}), got {name!r}") from error
    return device


def check_writable(folder: Path, option: str = "--output") -> None:
    """Checks that a folder is writable, without creating it.

    Args:
        folder: The folder; it need not exist.
        option: Name of the option in the error.

    Raises:
        InputError: If files cannot be written there.
    """
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(f"{option} {folder}: {error.strerror}: {existing}") from error


def make_folder(folder: Path, option: str = "--output") -> None:
    """Creates a folder and its parents, if needed.

    Args:
        folder: The folder.
        option: Name of the option in the error.

    Raises:
        InputError: If it cannot be created.
    """
    with input_errors(OSError, at=f"{option} {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


def check_output_file(file: Path, option: str = "--output") -> None:
    """Checks that the folder of an output file exists.

    Args:
        file: The output file.
        option: Name of the option in the error.

    Raises:
        InputError: If the folder does not exist.
    """
    if not file.parent.is_dir():
        raise InputError(f"{option} {file}: no such folder: {file.parent}")


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Sets the number of torch's CPU threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def print_busy(share: float | None) -> None:
    """Prints a warning if the machine was busy, judging by the share of processor time."""
    from ..benchmark.timing import busy_warning

    warning = busy_warning(share)
    if warning is not None:
        print_note(warning)


# --- checkpoints
def find_checkpoint(name: str | None, argument: str = "MODEL") -> str:
    """Calls `hf_video_tome.loading.find_checkpoint`; errors name the command's argument.

    Args:
        name: Name of the checkpoint; None for the default one.
        argument: The command's name for it.

    Returns:
        A folder, or a model id on the Hub.

    Raises:
        InputError: If the name must be a folder, but it does not exist or has no checkpoint.
    """
    with input_errors(loading.CheckpointError, rewrite=lambda text: f"{argument} {text}"):
        return loading.find_checkpoint(name)


def load_classifier(
    name: str | None,
    settings: Mapping[str, Any],
    dtype: str = "float32",
    device: str = "cpu",
    argument: str = "MODEL",
) -> Classifier:
    """Calls `hf_video_tome.loading.load_classifier`; prints notes, and errors name the command's arguments.

    Args:
        name: Name of the checkpoint; None for the default one.
        settings: Merging settings, from `parse_settings`.
        dtype: Name of a torch dtype.
        device: Value of `--device`.
        argument: The command's name for the checkpoint.

    Returns:
        The classifier, in eval mode.

    Raises:
        InputError: If the checkpoint cannot be loaded, is not a video classifier, or conflicts with the settings.
    """
    import torch

    location, target = find_checkpoint(name, argument), check_device(device)
    if not Path(location).is_dir():
        print_note(f"{name} is not a local folder: looking for it on the Hub")
    with (
        input_errors(SettingError, loading.UnsupportedSettingsError),
        input_errors(torch.OutOfMemoryError, at=f"--device {device}"),
        input_errors(loading.CheckpointError, rewrite=lambda text: f"{argument} {text}"),
    ):
        classifier = loading.load_classifier(name, dtype=dtype, device=target, **settings)
    if classifier.transform_source != loading.SAVED_TRANSFORM:
        model_type = classifier.model.config.model_type
        print_note(
            f"{classifier.name} has no preprocessor_config.json: frames are resized and normalised with the usual "
            f"settings of {model_type}; save the processor beside the checkpoint if it was trained with others"
        )
    return classifier


def merging_summary(model: PreTrainedModel) -> dict[str, Any]:
    """Returns the token merging settings with the architecture's defaults filled in, JSON-safe."""
    config: Any = model.config
    return config.token_merging_settings(resolved=True)


def describe_merging(summary: Mapping[str, Any]) -> str:
    """Describes the result of `merging_summary`."""
    if are_off(summary):
        return describe_settings(summary)
    attention = "with" if summary["proportional_attention"] else "without"
    position = f", position {summary['position']}" if "position" in summary else ""
    return f"{describe_settings(summary)}, {summary['pooling']} pooling, {attention} proportional attention{position}"


def describe_counts(counts: list[int], num_tokens: int) -> str:
    """Describes the token counts of all layers, for clips of `num_tokens` tokens."""
    if num_tokens == counts[-1]:
        return f"{counts[0]} in all {len(counts) - 1} layers"
    start = "" if num_tokens == counts[0] else f"{num_tokens}, of which "
    return f"{start}{' → '.join(map(str, counts))}  ({1 - counts[-1] / num_tokens:.0%} removed)"


# --- results of other commands
def read_evaluation(folder: Path) -> dict[str, Any]:
    """Reads the results of the finished evaluation given by `--evaluation`.

    Raises:
        InputError: If there are no results, or they have no accuracy.
    """
    from ..hub import read_evaluation as read

    with input_errors(ValueError, at="--evaluation"):
        return read(folder)


def read_benchmark(path: Path) -> BenchmarkResults:
    """Reads the results of the benchmark given by `--benchmark`, a file or its folder.

    Raises:
        InputError: If there are no results.
    """
    from ..benchmark import BenchmarkResults

    with input_errors(OSError, ValueError, at="--benchmark"):
        return BenchmarkResults.load(path)
