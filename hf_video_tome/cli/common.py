"""What the commands share: options, the loading of checkpoints, errors, and printing.

torch and transformers are imported inside the functions that need them.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checkpoints import DEFAULT_CHECKPOINT, available, checkpoint_path

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from transformers import PreTrainedModel

    from ..benchmark import BenchmarkResults
    from ..configuration import TokenMergingConfigMixin
    from ..data.transforms import ClipTransform


class InputError(Exception):
    """Bad input: its message is for the person who typed it, and becomes the only line that is printed."""


class Dtype(Enum):
    """Values of `--dtype`."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Strategy(Enum):
    """Values of `--strategy`."""

    uniform = "uniform"
    center = "center"
    start = "start"


# --- options
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
ROption = Annotated[
    str | None,
    typer.Option(
        "--r",
        "-r",
        metavar="R",
        help="Tokens that each layer removes: a number (150), a share of the tokens up to 0.5 (0.1), or a list with "
        "one number per layer (8,8,4). 0 merges nothing.",
        show_default="as saved with the checkpoint, else 0",
    ),
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="What becomes of redundant tokens: merge, drop, hybrid (needs --threshold), random_merge or random_drop.",
        show_default="merge",
    ),
]
ModesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="merge, drop, hybrid (needs --threshold), random_merge or random_drop; can be given more than once.",
        show_default="merge",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="COSINE",
        help="Cosine similarity, -1 to 1, under which hybrid drops a token instead of merging it.",
    ),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="SCHEDULE",
        help="How the removal is spread over the layers: constant, decreasing (most in early layers: fastest), "
        "increasing, or a number from -1 (decreasing) to 1 (increasing).",
        show_default="constant",
    ),
]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="Which tokens may merge with each other: those of the whole clip (clip), of each frame alone (frame), of "
        "each frame with one matching shared by all frames (tube), or of each place over time with one matching "
        "shared by all places (time): whole frames then merge.",
        show_default="chosen by the architecture",
    ),
]
PoolingOption = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        metavar="POOLING",
        help="How a head that averages the tokens counts a merged one: by what is in it (weighted), or as one (mean).",
        show_default="weighted",
    ),
]
PositionOption = Annotated[
    str | None,
    typer.Option(
        "--position",
        metavar="POSITION",
        help="Where a merged token lies, for V-JEPA 2: where the token was that the others were merged into "
        "(destination), or in the middle of all of them (centroid).",
        show_default="centroid",
    ),
]
HeadAggregationOption = Annotated[
    str | None,
    typer.Option(
        "--head-aggregation",
        metavar="HOW",
        help="Compare tokens by their keys averaged over the attention heads (mean) or side by side (concat).",
        show_default="mean",
    ),
]
ProportionalAttentionOption = Annotated[
    bool | None,
    typer.Option(
        "--proportional-attention/--no-proportional-attention",
        help="Let a token that stands for several count as several in the attention.",
        show_default="chosen by the architecture",
    ),
]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Precision that the model runs in.")]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where the model runs: cpu, cuda, cuda:1, mps.")
]
StrategyOption = Annotated[
    Strategy,
    typer.Option(
        "--strategy",
        help="Which frames make the clip: spread over the whole video (uniform), or a run of frames in its middle "
        "(center) or from its first frame on (start).",
    ),
]
SamplingRateOption = Annotated[
    int | None,
    typer.Option(
        "--sampling-rate",
        metavar="N",
        min=1,
        help="Distance between two frames of the clip, in frames of the video; for center and start.",
        show_default="1",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of tables.")]


# --- errors
def is_main_process() -> bool:
    """Whether this process is the one that prints: the first of those that torchrun or accelerate launch started."""
    return os.environ.get("RANK", "0") == "0"


def one_line(message: object) -> str:
    """A message without line breaks."""
    if isinstance(message, OSError) and message.strerror:
        message = f"{message.strerror}: {message.filename}" if message.filename else message.strerror
    return " ".join(str(message).split())


def came_from_main(error: BaseException | None) -> bool:
    """Whether an exception, or what caused it, was raised in the main process for all of them."""
    from ..evaluation.processes import FROM_MAIN

    while error is not None:
        if FROM_MAIN in getattr(error, "__notes__", ()):
            return True
        error = error.__cause__
    return False


def print_error(message: object) -> None:
    """Prints one line, `error: ...`, on stderr; what concerns all processes only once, in the main one."""
    if not is_main_process() and isinstance(message, BaseException) and not came_from_main(message):
        print(f"error: process {os.environ['RANK']}: {one_line(message)}", file=sys.stderr, flush=True)
    elif is_main_process():
        print(f"error: {one_line(message)}", file=sys.stderr, flush=True)


def print_note(message: object) -> None:
    """Prints one line, `note: ...`, on stderr; once, however many processes there are."""
    if is_main_process():
        print(f"note: {one_line(message)}", file=sys.stderr, flush=True)


@contextmanager
def input_errors(*kinds: type[Exception], rewrite: Callable[[str], str] = str) -> Iterator[None]:
    """Turns exceptions that bad input is known to cause into an `InputError`; wrap as little code as possible in it.

    Args:
        *kinds: What to turn; all else passes.
        rewrite: Applied to the message.
    """
    try:
        yield
    except kinds as error:
        raise InputError(rewrite(one_line(error))) from error


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
def parse_r(text: str, option: str = "--r") -> int | float | list[int]:
    """Reads a value of `--r`.

    Args:
        text: Such as "150", "0.1" or "8,8,4".
        option: What the error calls it.

    Returns:
        Tokens per layer, a share, or tokens of each layer.

    Raises:
        InputError: If it is none of these.

    Examples:
        >>> parse_r("150"), parse_r("0.1"), parse_r("8,8,4")
        (150, 0.1, [8, 8, 4])
    """
    from ..merging import check_r

    try:
        if "," in text:
            return check_r([int(part) for part in text.split(",")])
        return check_r(float(text) if re.search(r"[.eE]", text) else int(text))
    except ValueError:
        raise InputError(
            f"{option} must be a number of tokens >= 0 (150), a share in (0, 0.5] (0.1), or a list of numbers >= 0, "
            f"one per layer (8,8,4), got {text!r}"
        ) from None


def merging_settings(r: str | None, schedule: str | None, **others: Any) -> dict[str, Any]:
    """Gathers the merging options that were given.

    Args:
        r: Value of `--r`.
        schedule: Value of `--schedule`.
        **others: Values of the other options by the name of the setting; None where not given.

    Returns:
        Settings for `set_token_merging`, checked as far as they can be without knowing the model.

    Raises:
        InputError: If a value is not possible for any model.
    """
    from ..configuration import PREFIX, TokenMergingConfigMixin

    settings = {name: value for name, value in others.items() if value is not None}
    if r is not None:
        settings["r"] = parse_r(r)
    if schedule is not None:
        try:
            settings["schedule"] = float(schedule)
        except ValueError:
            settings["schedule"] = schedule
    for name, value in settings.items():
        check = TokenMergingConfigMixin.token_merging_checks.get(f"{PREFIX}{name}")
        if check is not None:  # what only some architectures have is checked by their configs
            with input_errors(ValueError, rewrite=lambda text, name=name: f"{option_name(name)} {_typed(text)}"):  # type: ignore[misc]
                check(value)
    return settings


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
    from ..configuration import PREFIX
    from ..models import ARCHITECTURES

    for name in settings:
        name = name.removeprefix(PREFIX)
        field = f"{PREFIX}{name}"
        if field not in config.token_merging_checks:
            others = [key for key, it in ARCHITECTURES.items() if field in it.config_class.token_merging_checks]
            raise InputError(f"{option_name(name)} goes with {', '.join(others)} only, not with {config.model_type}")
    changed: TokenMergingConfigMixin = type(config).from_stock(config)
    with input_errors(ValueError, rewrite=option_names):
        changed.update_token_merging(**settings)
    return changed


def option_name(name: str) -> str:
    """The option of an argument or setting: "head_aggregation" becomes "--head-aggregation"."""
    return "--" + name.replace("_", "-")


def option_names(message: str, pattern: str = r"token_merging_(\w+)") -> str:
    """Calls arguments by the names of their options: "token_merging_head_aggregation" becomes "--head-aggregation".

    Args:
        message: What a function of the package said.
        pattern: How it calls its arguments; the group that matches is the name.

    Returns:
        The message for who gave options.
    """
    return _typed(re.sub(pattern, lambda match: option_name(match[match.lastindex or 0]), message))


def _typed(message: str) -> str:
    """Leaves out that a setting takes None: on a command line, that is the option not given."""
    return re.sub(r",? or None(?=, got )", "", message)


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


# --- checkpoints
@dataclass(frozen=True)
class Classifier:
    """A loaded checkpoint.

    Attributes:
        name: What the user called it.
        location: Folder or Hub id that it came from.
        model: The model, ready to run.
        transform: How frames become its input.
        transform_source: Where the transform came from.
        device: Where the model lies.
    """

    name: str
    location: str
    model: PreTrainedModel
    transform: ClipTransform
    transform_source: str
    device: torch.device


def find_checkpoint(name: str | None, argument: str = "MODEL") -> str:
    """Says what to load for the name of a checkpoint.

    A folder comes before a shipped checkpoint of the same name, as it does before a Hub id in transformers.

    Args:
        name: The name; None for the default checkpoint.
        argument: What the command calls it.

    Returns:
        A folder, or an id of the Hub.

    Raises:
        InputError: If it can only be meant as a folder and is not there or holds no checkpoint.
    """
    if name is None:
        with input_errors(ValueError):
            return str(checkpoint_path())
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(
                f"{argument} {name}: this folder has no config.json; a checkpoint folder holds config.json and "
                "model.safetensors, as save_pretrained writes them"
            )
        return str(path)
    if name in available():
        return str(checkpoint_path(name))
    allowed = f"{argument} takes a folder, a model id on the Hub, or one of: {', '.join(available())}"
    if path.exists():
        raise InputError(f"{argument} {name}: is a file; {allowed}")
    if path.is_absolute() or name.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError(f"{argument} {name}: no such folder; {allowed}")
    return name


def load_classifier(
    name: str | None,
    settings: Mapping[str, Any],
    dtype: str = "float32",
    device: str = "cpu",
    argument: str = "MODEL",
) -> Classifier:
    """Loads a checkpoint with its transform.

    Args:
        name: The name of the checkpoint; None for the default one.
        settings: Merging settings, from `merging_settings`.
        dtype: Name of a torch dtype.
        device: Value of `--device`.
        argument: What the command calls the checkpoint.

    Returns:
        The classifier, in eval mode.

    Raises:
        InputError: If the checkpoint cannot be loaded, is of another kind, or does not go with the settings.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForVideoClassification, PretrainedConfig

    from ..models import ARCHITECTURES

    location, target = find_checkpoint(name, argument), check_device(device)
    shown = name or DEFAULT_CHECKPOINT
    where = f"{argument} {shown}"
    is_folder = Path(location).is_dir()
    if not is_folder:
        print_note(f"{shown} is no folder here: looking for it on the Hub")

    def explain(message: str) -> str:
        if is_folder:
            return f"{where}: {message}"
        return (
            f"{where}: neither a folder here, nor one of the shipped checkpoints ({', '.join(available())}), "
            f"nor could it be loaded from the Hub: {message}"
        )

    with quiet_transformers():
        with input_errors(OSError, ValueError, StrictDataclassError, rewrite=explain):
            content, _ = PretrainedConfig.get_config_dict(location)
        model_type = content.get("model_type")
        if model_type not in ARCHITECTURES:
            raise InputError(
                f"{where}: the architecture {model_type!r} is not supported; supported are {', '.join(ARCHITECTURES)}"
            )
        with input_errors(OSError, ValueError, StrictDataclassError, rewrite=lambda text: f"{where}: {text}"):
            config = AutoConfig.from_pretrained(location)
        with_settings(config, settings)
        # Loaded as a user would load it: the settings, which were checked above, as keywords of `from_pretrained`.
        fields = {f"token_merging_{setting}": value for setting, value in settings.items()}
        with input_errors(OSError, SafetensorError, rewrite=lambda text: f"{where}: {text}"):
            model, report = AutoModelForVideoClassification.from_pretrained(
                location,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                **fields,
            )
        for key, found, expected in sorted(report["mismatched_keys"]):
            raise InputError(
                f"{where}: its weights do not fit its config.json: {key} has shape {tuple(found)}, expected "
                f"{tuple(expected)}"
            )
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise InputError(
                f"{where}: {len(missing)} of the weights of a {model_type} video classifier are missing "
                f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); its config says it is a "
                f"{', '.join(content.get('architectures') or ['?'])}"
            )
        transform, source = _load_transform(location, config, shown, where)
    with input_errors(torch.OutOfMemoryError, rewrite=lambda text: f"--device {device}: {text}"):
        model.to(target)
    return Classifier(shown, location, model.eval(), transform, source, target)


def _load_transform(location: str, config: Any, shown: str, where: str) -> tuple[ClipTransform, str]:
    """The transform saved with a checkpoint; for a folder without one the architecture's usual one, with a note."""
    from ..data.transforms import ClipTransform

    with input_errors(OSError, ValueError, rewrite=lambda text: f"{where}: {text}"):
        try:
            return ClipTransform.from_pretrained(location, config=config), "saved with the checkpoint"
        except FileNotFoundError:
            if not Path(location).is_dir():
                raise
        transform = ClipTransform.from_config(config)
    source = f"the usual one of {config.model_type}"
    print_note(
        f"{shown} has no preprocessor_config.json: frames are resized and normalised as is usual for "
        f"{config.model_type}; save the processor beside the checkpoint if it was trained otherwise"
    )
    return transform, source


def check_sampling(strategy: Strategy, sampling_rate: int | None) -> None:
    """Refuses a distance between frames where the strategy decides it."""
    if sampling_rate is not None and strategy is Strategy.uniform:
        raise InputError(
            "--sampling-rate has no effect with --strategy uniform; it goes with --strategy center or start"
        )


def read_clip(classifier: Classifier, file: str, strategy: Strategy, sampling_rate: int | None) -> torch.Tensor:
    """Decodes as many frames of a video file, or of a folder of frames, as the model takes.

    Args:
        classifier: The model.
        file: Path of the video.
        strategy: Which frames.
        sampling_rate: Distance between two frames; None for 1.

    Returns:
        (T, 3, H, W) uint8 RGB frames.

    Raises:
        InputError: If the file cannot be read.
    """
    from ..data.clips import read_clips
    from ..data.decoding import VideoDecodingError
    from ..data.sampling import ClipSampling

    num_frames = classifier.model.config.clip_shape.frames
    with input_errors(VideoDecodingError):
        return read_clips(Path(file), ClipSampling(num_frames, sampling_rate or 1, strategy.value))[0]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides progress bars and warnings of the loading: what matters of it is checked and said by the commands."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


def merging_summary(model: PreTrainedModel) -> dict[str, Any]:
    """What was decided about the merging, with the architecture's choices filled in; JSON-safe."""
    config: Any = model.config
    return config.token_merging_settings(resolved=True)


def describe_merging(summary: Mapping[str, Any]) -> str:
    """The same in words."""
    from ..visualization.captions import describe_settings

    r = summary["r"]
    if not (any(r) if isinstance(r, list) else r):
        return describe_settings(summary)
    attention = "with" if summary["proportional_attention"] else "without"
    position = f", position {summary['position']}" if "position" in summary else ""
    return f"{describe_settings(summary)}, {summary['pooling']} pooling, {attention} proportional attention{position}"


def describe_counts(counts: list[int]) -> str:
    """Tokens from layer to layer, in words."""
    if counts[0] == counts[-1]:
        return f"{counts[0]} in all {len(counts) - 1} layers"
    removed = 1 - counts[-1] / counts[0]
    return f"{' → '.join(map(str, counts))}  ({removed:.0%} removed)"


# --- what other commands left behind
def read_evaluation(folder: Path) -> dict[str, Any]:
    """The results of a finished evaluation, named by `--evaluation`.

    Raises:
        InputError: If there are none, or they have no accuracy.
    """
    from ..hub import read_evaluation as read

    with input_errors(ValueError, rewrite=lambda text: f"--evaluation: {text}"):
        return read(folder)


def read_benchmark(path: Path) -> BenchmarkResults:
    """The results of a benchmark, named by `--benchmark`: a file, or the folder with it.

    Raises:
        InputError: If there are none.
    """
    from ..benchmark import BenchmarkResults

    with input_errors(OSError, ValueError, rewrite=lambda text: f"--benchmark: {text}"):
        return BenchmarkResults.load(path)


# --- printing
def console(stderr: bool = False) -> Console:
    """A rich console that never reads markup into names of files and labels."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)


@contextmanager
def progress_bar(description: str, total: int, enabled: bool = True) -> Iterator[Callable[[], None]]:
    """Shows a progress bar on stderr; where stderr is no terminal, one line.

    Args:
        description: What is going on.
        total: Number of steps.
        enabled: Whether to show anything.

    Yields:
        The function to call after each step.
    """
    screen = console(stderr=True)
    if not enabled or not screen.is_terminal:
        if enabled:
            print(f"{description} ...", file=sys.stderr, flush=True)
        yield lambda: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # stdout stays as it is: it may be read by a machine.
    with Progress(*columns, console=screen, redirect_stdout=False) as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)


def write_json(content: Mapping[str, Any]) -> None:
    """Prints one JSON object on stdout."""
    import json

    print(json.dumps(content, indent=2, ensure_ascii=False))
