"""`hf-video-tome benchmark`: measure speed and memory on this machine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...merging.setting_error import SettingError
from ...merging.settings import are_off
from ..common import (
    Dtype,
    InputError,
    JsonOption,
    check_device,
    check_writable,
    cpu_threads,
    input_errors,
    load_classifier,
    make_folder,
    parse_named_values,
    print_busy,
    quiet_transformers,
    require_packages,
    with_settings,
)
from ..imports import IMPORTED
from ..merging_options import (
    SEVERAL,
    MatchingOptions,
    ModesOption,
    PresetName,
    SchedulesOption,
    option_of,
    parse_setting,
    parse_settings,
)
from ..option_groups import grouped_options
from ..printing import one_line, print_line, print_paragraph, print_table, progress_bar, write_json

if TYPE_CHECKING:
    import torch

    from ...benchmark import BenchmarkResults

HELP = """Measure the speed-up of token merging over stock transformers on this machine.

Stock models with sdpa and eager attention are always measured as baselines. All variants run in turn (A B C, A B C,
...), so that other load on the machine affects them equally; speed-ups are medians of the ratios in each round.

\b
Examples:
  hf-video-tome benchmark videomae --dtype bfloat16
  hf-video-tome benchmark vivit --r 0 --r 150 --r 300 --schedule constant --schedule decreasing --output speed/vivit
  hf-video-tome benchmark vjepa2 --r 100 --config-option num_frames=16 --config-option num_hidden_layers=12
  hf-video-tome benchmark MCG-NJU/videomae-base-finetuned-kinetics --r 150 --device cuda --batch-size 8 --compile
"""
SHORT_HELP = "Measure speed and memory against stock transformers."
NUM_LABELS = 400
PLOT_NAME = "speed.png"

_TEXT = ("variant",)
SIZE_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_spatial_layers",
    "num_temporal_layers",
    "num_attention_heads",
    "intermediate_size",
    "num_labels",
)
"""Config fields that describe the size of a model."""


@dataclass(frozen=True)
class BenchmarkedModel:
    """Model to benchmark.

    Attributes:
        name: Name given by the user, without folders.
        stock: The config of transformers.
        merging: The config with token merging fields, as saved or unset.
        weights: "random" or "checkpoint".
    """

    name: str
    stock: Any
    merging: Any
    weights: str


@grouped_options
def command(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Architecture (videomae, vivit, timesformer, motionformer, vjepa2, videoprism_vision_model) with "
            "random weights at its default size, or a checkpoint: a folder, a model id on the Hub, or the name of a "
            "bundled checkpoint.",
        ),
    ],
    *,
    r: Annotated[
        list[str] | None,
        option_of("r", SEVERAL, default="as saved with the checkpoint, or the paper's for an architecture"),
    ] = None,
    schedule: SchedulesOption = None,
    mode: ModesOption = None,
    matching: MatchingOptions,
    preset: Annotated[
        list[PresetName] | None,
        typer.Option(
            help="Also measure the settings of this name; without --r, instead. Can be given more than once."
        ),
    ] = None,
    config_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Config field of an architecture, such as num_frames=64 or hidden_size=1024; can be given more than "
            "once.",
        ),
    ] = None,
    dtype: Annotated[
        list[Dtype] | None, typer.Option(help="Data type; can be given more than once.", show_default="float32")
    ] = None,
    float32_baseline: Annotated[
        bool, typer.Option("--float32-baseline", help="Also measure the stock model in float32.")
    ] = False,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of clips per forward pass; can be given more than once.",
            show_default="1",
        ),
    ] = None,
    attn_implementation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Attention implementation of the models that merge: sdpa, eager, flex_attention, flash_attention_2; "
            "can be given more than once. Stock models that support it are measured with it too.",
            show_default="sdpa, or eager if unsupported",
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile/--no-compile", help="Also measure all variants with torch.compile(fullgraph=True)."),
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps, or auto: a GPU if available.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads.", show_default="torch's default")
    ] = None,
    warmup: Annotated[int, typer.Option(metavar="N", min=0, help="Number of untimed rounds.")] = 2,
    rounds: Annotated[int, typer.Option(metavar="N", min=2, help="Number of timed rounds.")] = 10,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure the peak memory of a pass.")] = True,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Break down the time of a pass: linear layers, attention, merging, ..."),
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of random weights and clips.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for results.json and a plot."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    import torch

    from ..._compat import compiler_freezes
    from ...benchmark import BenchmarkResults, machine, make_variants, run_benchmark
    from ...benchmark.runner import BenchmarkError, num_passes
    from ...presets import preset as preset_of

    if output is not None:
        require_packages({"matplotlib": "matplotlib"}, extra="viz")
    elif overwrite:
        raise InputError("--overwrite has no effect without --output")
    target = check_device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if compiled:
        _check_compiler(target)
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise InputError(f"--threads must be at most {cores}, the cores of this machine, got {threads}")
    dtypes = list(dict.fromkeys(dtype or [Dtype.float32]))
    batch_sizes = list(dict.fromkeys(batch_size or [1]))
    subject = _find_model(model, config_option or [])
    common = matching.settings()
    with input_errors(SettingError):
        usual = type(subject.merging)().token_merging_settings()
        presets = [preset_of(name, subject.merging) for name in preset or []]
        named = [{key: value for key, value in found.items() if value != usual[key]} for found in presets]
    settings = named if named and not r else _settings(subject, r, schedule or [], mode or [], common) + named
    wanted = list(dict.fromkeys(attn_implementation or []))
    with quiet_transformers():
        attentions, stock_attentions = _attentions(subject, wanted)
    variants = make_variants(
        settings,
        dtypes=dtypes,
        attn_implementations=attentions,
        stock_attn_implementations=stock_attentions,
        compiled=(False, True) if compiled else (False,),
        float32_baseline=float32_baseline,
    )
    if output is not None:
        _check_output(output, overwrite)

    freezing = compiled and compiler_freezes()
    with cpu_threads(threads or torch.get_num_threads()):
        conditions = {
            "model": subject.name,
            "model_type": subject.merging.model_type,
            "weights": subject.weights,
            "config": _sizes(subject.merging, config_option or []),
            "clip_shape": list(subject.merging.clip_shape),
            "dtypes": dtypes,
            "batch_sizes": batch_sizes,
            "warmup": warmup,
            "rounds": rounds,
            "seed": seed,
            **machine(target, memory),
            "inductor_freezing": freezing,
            "command": ("TORCHINDUCTOR_FREEZING=1 " if freezing else "")
            + _command_line(context, {"model": subject.name, "device": target.type, "imports": [*IMPORTED]}),
        }
        stock = _build(model, subject, seed, config_option or [])
        with (
            progress_bar("measuring", num_passes(len(variants), len(batch_sizes), warmup, rounds)) as advance,
            quiet_transformers(),
            input_errors(BenchmarkError),
        ):
            measured = run_benchmark(
                stock,
                variants,
                device=target,
                batch_sizes=batch_sizes,
                warmup=warmup,
                rounds=rounds,
                with_memory=memory,
                with_parts=profile,
                seed=seed,
                advance=advance,
            )
    results = BenchmarkResults(conditions, measured)
    files = {} if output is None else _save(results, output)
    if as_json:
        write_json({**results.to_dict(), "files": {name: str(path) for name, path in files.items()}})
        print_busy(results.processor_share)
        return
    print_results(results)
    for name, path in files.items():
        print_line(f"{name + ':':9}{path}")


# --- models and settings
def _find_model(name: str, config_options: Sequence[str]) -> BenchmarkedModel:
    """Returns the model of an architecture or a checkpoint, without its weights."""
    from huggingface_hub.errors import StrictDataclassError

    from ...models import ARCHITECTURES
    from ...models.embedding_limit import check_embeddings

    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        if config_options:
            raise InputError(
                f"--config-option needs the name of an architecture ({', '.join(ARCHITECTURES)}), got MODEL "
                f"{name!r}: a checkpoint has its own config"
            )
        # Loading the checkpoint validates it; the stock model is built from it.
        config = load_classifier(name, {}).model.config
        stock_class = ARCHITECTURES[config.model_type].stock_config_class
        return BenchmarkedModel(Path(name).name, config.to_stock(stock_class), config, "checkpoint")
    fields: dict[str, Any] = {"num_labels": NUM_LABELS}
    known = architecture.config_class()
    for field, value in parse_named_values(config_options, "--config-option").items():
        text = f"{field}={value}"
        if field in known.token_merging_fields:
            raise InputError(f"--config-option {text}: use the token merging options for this setting")
        if not hasattr(known, field):
            raise InputError(f"--config-option {text}: the config of {name} has no field {field!r}")
        try:
            fields[field] = json.loads(value)
        except ValueError:
            fields[field] = value
    errors = (ValueError, TypeError, AttributeError, StrictDataclassError)
    with input_errors(*errors, at="--config-option"), quiet_transformers():
        config = architecture.config_class(**fields)
        check_embeddings(config)
    if config.num_merging_layers < 1:
        raise InputError(f"--config-option: {name} must have a layer that merges, got {config.num_merging_layers}")
    return BenchmarkedModel(name, config.to_stock(architecture.stock_config_class), config, "random")


def _settings(
    subject: BenchmarkedModel,
    r: Sequence[str] | None,
    schedules: Sequence[str],
    modes: Sequence[str],
    common: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Returns all combinations of settings, checked against the architecture."""
    from ...models import ARCHITECTURES

    config = subject.merging
    fresh = type(config)().token_merging_settings()
    # A saved config states scope and proportional attention even if they are the architecture's defaults.
    usual = type(config)().token_merging_settings(resolved=True)
    chosen_before = config.token_merging_settings(resolved=True)
    saved = {name: value for name, value in chosen_before.items() if value != usual[name]}
    if r:
        values: list[Any] = [parse_setting("r", text) for text in r]
    elif "r" in saved:
        values = [saved["r"]]
    else:
        paper = ARCHITECTURES[config.model_type].paper_settings if subject.weights == "random" else {}
        if not paper:
            raise InputError(f"--r must be given: neither the paper nor the checkpoint has one for {subject.name}")
        values = [paper["r"]]
    found: list[dict[str, Any]] = []
    chosen_schedules: list[str | None] = [*schedules] or [None]
    chosen_modes: list[str | None] = [*modes] or [None]
    for value, schedule, mode in product(values, chosen_schedules, chosen_modes):
        chosen = {**saved, **parse_settings(schedule=schedule, mode=mode), **common, "r": value}
        if are_off(chosen):
            chosen = {"r": 0}  # other settings have no effect
        with_settings(config, {**fresh, **chosen})
        if chosen not in found:
            found.append(chosen)
    return found


def _attentions(subject: BenchmarkedModel, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the attention implementations of models that merge, and of stock models."""
    from ...benchmark import supports
    from ...models import ARCHITECTURES

    architecture = ARCHITECTURES[subject.merging.model_type]
    merging, stock_class = subject.merging, architecture.stock_head_class
    for name in wanted:
        reason = supports(architecture.head_class, merging, name)
        if reason is not None:
            raise InputError(f"--attn-implementation {name}: {reason}")
    default = next(name for name in ("sdpa", "eager") if supports(architecture.head_class, merging, name) is None)
    chosen = list(wanted) or [default]
    names = dict.fromkeys(("sdpa", "eager", *chosen))
    return chosen, [name for name in names if supports(stock_class, subject.stock, name) is None]


def _check_compiler(device: torch.device) -> None:
    """Checks that torch.compile has a compiler."""
    from importlib.util import find_spec

    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    if not any(name and shutil.which(name) for name in compilers):
        raise InputError("--compile needs a C++ compiler (g++ or clang++): none was found")
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError("--compile needs triton on a GPU: pip install triton")


def _build(name: str, subject: BenchmarkedModel, seed: int, config_options: Sequence[str]) -> Any:
    """Returns the stock classifier of transformers, in float32 on the CPU."""
    import torch

    from ..._compat import build_model
    from ...api import remove_token_merging
    from ...models import ARCHITECTURES

    if subject.weights == "checkpoint":
        return remove_token_merging(load_classifier(name, {}).model)
    stock_class: Any = ARCHITECTURES[subject.merging.model_type].stock_head_class
    torch.manual_seed(seed)
    with quiet_transformers():
        try:
            return build_model(stock_class, subject.stock)
        except Exception as error:
            # Invalid sizes and names raise any error in transformers and torch: KeyError, RuntimeError, ...
            if not config_options:
                raise
            given, reason = " ".join(config_options), f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"--config-option {given}: such a model cannot be built: {reason}") from error


def _sizes(config: Any, options: Sequence[str]) -> dict[str, Any]:
    """Returns the config fields that describe the model's size, and those given as options."""
    shown = [*SIZE_FIELDS, *(text.partition("=")[0] for text in options)]
    return {name: getattr(config, name) for name in dict.fromkeys(shown) if hasattr(config, name)}


def _command_line(context: typer.Context, changes: Mapping[str, Any]) -> str:
    """Returns the command line without options for local folders."""
    words = ["hf-video-tome", "benchmark", changes["model"]]
    for option in context.command.params:
        name, value = str(option.name), {**context.params, **changes}.get(str(option.name))
        if name in ("model", "seed", "output", "overwrite", "as_json") or value is None:
            continue
        if isinstance(value, bool):
            words += [] if value == option.default else (option.opts if value else option.secondary_opts)
        else:
            for one in value if isinstance(value, (list, tuple)) else [value]:
                words += [option.opts[0], str(one)]
    return shlex.join(words)


def _check_output(folder: Path, overwrite: bool) -> None:
    """Checks that a folder is writable and has no results, unless they may be overwritten."""
    from ...benchmark.results import FILE_NAME

    for name in (FILE_NAME, PLOT_NAME):
        if (folder / name).exists() and not overwrite:
            raise InputError(f"--output {folder} already has a {name}: replace it with --overwrite")
    check_writable(folder)


def _save(results: BenchmarkResults, folder: Path) -> dict[str, Path]:
    """Writes the results and, if possible, a plot."""
    from ...benchmark.plot import save_plot

    make_folder(folder)
    files = {"results": results.save(folder)}
    (folder / PLOT_NAME).unlink(missing_ok=True)  # an earlier plot must not remain beside new results
    picture = save_plot(results, folder / PLOT_NAME)
    return files if picture is None else {**files, "plot": picture}


# --- printing
def print_results(results: BenchmarkResults) -> None:
    """Prints the tables of each batch size with footnotes."""
    from ...benchmark.page import (
        PARTS_TITLE,
        columns,
        describe_conditions,
        footnotes,
        parts_columns,
        parts_rows,
        rows,
    )

    for batch_size in results.batch_sizes:
        title = f"{results.conditions['model']}, batch size {batch_size}"
        print_table(columns(results), rows(results, batch_size), text=_TEXT, title=title)
        print_line()
        parts = parts_rows(results, batch_size)
        if parts:
            print_table(parts_columns(results, batch_size), parts, text=_TEXT, title=PARTS_TITLE)
            print_line()
    for line in (*footnotes(results), describe_conditions(results)):
        print_paragraph(line)
