"""What the commands share: options, the loading of checkpoints, and errors.

torch and transformers are imported inside the functions that need them.
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
    """Bad input: its message is for the person who typed it, and becomes the only line that is printed."""


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
        "name of a checkpoint that comes with the package.",
        show_default=f"{DEFAULT_CHECKPOINT}, which comes with the package",
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Checkpoint: a folder, a model id on the Hub, or one that comes with the package."
    ),
]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Precision that the model runs in.")]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where the model runs: cpu, cuda, cuda:1, mps.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of tables.")]


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a video make the one clip that is taken of it."""

    strategy: Annotated[
        Strategy,
        typer.Option(
            help="Which frames make the clip: spread over the whole video (uniform), or a run of frames in its middle "
            "(center) or from its first frame on (start)."
        ),
    ] = "uniform"
    sampling_rate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Distance between two frames of the clip, in frames of the video; for center and start.",
            show_default="1",
        ),
    ] = None

    def check(self) -> None:
        """Refuses a distance between frames where the strategy decides it."""
        if self.sampling_rate is not None and self.strategy == "uniform":
            raise InputError(
                "--sampling-rate has no effect with --strategy uniform; it goes with --strategy center or start"
            )

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, JSON-safe."""
        rate = None if self.strategy == "uniform" else self.sampling_rate or 1
        return {"strategy": self.strategy, "sampling_rate": rate}

    def read(self, classifier: Classifier, file: str) -> torch.Tensor:
        """Decodes as many frames of a video file, or of a folder of frames, as the model takes.

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
            raise InputError(f"{file}: is a URL, while videos are read from files: download it first")
        sampling = ClipSampling(classifier.model.config.clip_shape.frames, self.sampling_rate or 1, self.strategy)
        with (
            input_errors(OSError, MemoryError, rewrite=lambda text: f"{file}: {text}"),
            input_errors(VideoDecodingError),
        ):
            return read_clips(file, sampling)[0]


# --- errors
@contextmanager
def input_errors(
    *kinds: type[Exception],
    rewrite: Callable[[str], str] = str,
    options: Sequence[str] | Mapping[str, str] | None = (),
) -> Iterator[None]:
    """Turns exceptions that bad input is known to cause into an `InputError`; wrap as little code as possible in it.

    Args:
        *kinds: What to turn; all else passes. A `SettingError` names options in place of settings.
        rewrite: Applied to the message.
        options: Arguments of the function that is called which are options of the command; a mapping says what else
            to call them. None: what is wrong was not typed, and keeps its name.
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
        raise InputError(rewrite(message)) from error


def _with_options(message: str, options: Sequence[str] | Mapping[str, str]) -> str:
    """Calls arguments by their options: the one that the message begins with, and those that are no plain words."""
    names = options if isinstance(options, Mapping) else {name: option_name(name) for name in options}
    words = message.split(" ")
    return " ".join(names.get(word, word) if index == 0 or "_" in word else word for index, word in enumerate(words))


def require_packages(packages: Mapping[str, str], extra: str) -> None:
    """Refuses to go on without the packages of an extra.

    Args:
        packages: From the name of each package to the module that it brings.
        extra: Extra of this package that installs them.

    Raises:
        InputError: Naming what is missing and how to install it.
    """
    missing = [package for package, module in packages.items() if find_spec(module) is None]
    if missing:
        raise InputError(f'this command needs {" and ".join(missing)}: pip install "hf-video-tome[{extra}]"')


# --- values of options
def parse_named_values(texts: Sequence[str], option: str) -> dict[str, str]:
    """Reads the values of an option that takes NAME=VALUE and can be given more than once.

    Args:
        texts: The values.
        option: What the errors call it.

    Returns:
        The parts after the equals signs, by the names before them.

    Raises:
        InputError: If one has another form, or a name comes twice.
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
    """A copy of a config with other token merging settings.

    Args:
        config: A config with token merging fields.
        settings: Settings that were given as options.

    Returns:
        The copy.

    Raises:
        InputError: If the architecture does not have them.
    """
    with input_errors(SettingError, loading.SettingsError):
        return loading.with_settings(config, settings)


def option_name(name: str) -> str:
    """Returns the option of an argument or setting: "token_merging_head_aggregation" becomes "--head-aggregation"."""
    return "--" + name.removeprefix(PREFIX).replace("_", "-")


def check_device(name: str) -> torch.device:
    """Checks a value of `--device` by using it.

    Args:
        name: Such as "cpu" or "cuda:1".

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
    """Refuses a folder that could not be written to; it is not made, so that an error leaves nothing behind.

    Args:
        folder: The folder, which need not exist.
        option: What the error calls it.

    Raises:
        InputError: If files cannot be written there.
    """
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"{option} {folder}: {error.strerror}: {place}") from error


def make_folder(folder: Path, option: str = "--output") -> None:
    """Makes a folder with those above it; it may be there already.

    Args:
        folder: The folder.
        option: What the error calls it.

    Raises:
        InputError: If it cannot be made.
    """
    with input_errors(OSError, rewrite=lambda text: f"{option} {folder}: {text}"):
        folder.mkdir(parents=True, exist_ok=True)


def check_output_file(file: Path, option: str = "--output") -> None:
    """Refuses a file whose folder is not there.

    Args:
        file: The file that is to be written.
        option: What the error calls it.

    Raises:
        InputError: Naming the folder.
    """
    if not file.parent.is_dir():
        raise InputError(f"{option} {file}: no such folder: {file.parent}")


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Lets torch use that many CPU threads for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def print_busy(share: float | None) -> None:
    """Says that the machine was busy, if it was, given the share of the processor time that was had."""
    from ..benchmark.timing import busy_warning

    warning = busy_warning(share)
    if warning is not None:
        print_note(warning)


# --- checkpoints
def find_checkpoint(name: str | None, argument: str = "MODEL") -> str:
    """`hf_video_tome.checkpoints.find_checkpoint`, whose errors name the argument of the command.

    Args:
        name: The name; None for the default checkpoint.
        argument: What the command calls it.

    Returns:
        A folder, or an id of the Hub.

    Raises:
        InputError: If it can only be meant as a folder and is not there or holds no checkpoint.
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
    """`hf_video_tome.checkpoints.load_classifier`, with notes, and errors that name arguments of the command.

    Args:
        name: The name of the checkpoint; None for the default one.
        settings: Merging settings, from `parse_settings`.
        dtype: Name of a torch dtype.
        device: Value of `--device`.
        argument: What the command calls the checkpoint.

    Returns:
        The classifier, in eval mode.

    Raises:
        InputError: If the checkpoint cannot be loaded, is of another kind, or does not go with the settings.
    """
    import torch

    location, target = find_checkpoint(name, argument), check_device(device)
    if not Path(location).is_dir():
        print_note(f"{name} is no folder here: looking for it on the Hub")
    with (
        input_errors(SettingError, loading.SettingsError),
        input_errors(torch.OutOfMemoryError, rewrite=lambda text: f"--device {device}: {text}"),
        input_errors(loading.CheckpointError, rewrite=lambda text: f"{argument} {text}"),
    ):
        classifier = loading.load_classifier(name, dtype=dtype, device=target, **settings)
    if classifier.transform_source != loading.SAVED_TRANSFORM:
        model_type = classifier.model.config.model_type
        print_note(
            f"{classifier.name} has no preprocessor_config.json: frames are resized and normalised as is usual for "
            f"{model_type}; save the processor beside the checkpoint if it was trained otherwise"
        )
    return classifier


def merging_summary(model: PreTrainedModel) -> dict[str, Any]:
    """What was decided about the merging, with the architecture's choices filled in; JSON-safe."""
    config: Any = model.config
    return config.token_merging_settings(resolved=True)


def describe_merging(summary: Mapping[str, Any]) -> str:
    """Returns the same in words."""
    if are_off(summary):
        return describe_settings(summary)
    attention = "with" if summary["proportional_attention"] else "without"
    position = f", position {summary['position']}" if "position" in summary else ""
    return f"{describe_settings(summary)}, {summary['pooling']} pooling, {attention} proportional attention{position}"


def describe_counts(counts: list[int], num_tokens: int) -> str:
    """Tokens from layer to layer in words, of the `num_tokens` that a clip has."""
    if num_tokens == counts[-1]:
        return f"{counts[0]} in all {len(counts) - 1} layers"
    start = "" if num_tokens == counts[0] else f"{num_tokens}, of which "
    return f"{start}{' → '.join(map(str, counts))}  ({1 - counts[-1] / num_tokens:.0%} removed)"


# --- what other commands left behind
def read_evaluation(folder: Path) -> dict[str, Any]:
    """Returns the results of a finished evaluation, named by `--evaluation`.

    Raises:
        InputError: If there are none, or they have no accuracy.
    """
    from ..hub import read_evaluation as read

    with input_errors(ValueError, rewrite=lambda text: f"--evaluation: {text}"):
        return read(folder)


def read_benchmark(path: Path) -> BenchmarkResults:
    """Returns the results of a benchmark, named by `--benchmark`: a file, or the folder with it.

    Raises:
        InputError: If there are none.
    """
    from ..benchmark import BenchmarkResults

    with input_errors(OSError, ValueError, rewrite=lambda text: f"--benchmark: {text}"):
        return BenchmarkResults.load(path)
