"""`hf-video-tome convert`: convert the checkpoint of an original implementation for from_pretrained."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import InputError, JsonOption, input_errors, quiet_transformers
from ..printing import print_fields, print_line, print_note, print_table, write_json

if TYPE_CHECKING:
    from ...conversion.state_dict import ConvertedCheckpoint

_OPTIONS = ("key", "num_frames", "image_size", "num_attention_heads", "label_groups")
HELP = """Convert a checkpoint of an original implementation into a folder for from_pretrained.

ARCHITECTURE is videomae, timesformer or motionformer; ORIGINAL is a .pth, .pyth, .pt or .safetensors file of its
original training code. No code from the file is executed. Every weight must be known and none may be missing.

\b
Examples:
  hf-video-tome convert videomae checkpoint.pth videomae-k400 --labels kinetics_400_labels.csv
  hf-video-tome convert motionformer epic.pyth motionformer-epic --labels verb=verbs.csv --labels noun=nouns.csv
"""
WRITTEN_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
SHORT_HELP = "Convert a checkpoint of an original implementation."
LABEL_SUFFIXES = (".txt", ".csv", ".json")


def command(
    architecture: Annotated[
        str, typer.Argument(metavar="ARCHITECTURE", help="videomae, timesformer or motionformer.", show_default=False)
    ],
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="Checkpoint file of the original training.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK=]FILE",
            help="Label names: .txt (one per line), .csv (id and name) or .json (a list, or an object from names to "
            "indices or from indices to names). With several tasks, one file for each, as in verb=FILE, or one for "
            "all.",
        ),
    ] = None,
    label_groups: Annotated[
        str | None,
        typer.Option(
            metavar="TASK=N,...",
            help="Tasks of the classifier and their numbers of labels, in the order of its outputs; none for a single "
            "task.",
            show_default="verb and noun for two heads or 397 outputs",
        ),
    ] = None,
    num_frames: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of frames in a clip.", show_default="as in the file, else 16"),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", min=1, help="Height and width of a frame.", show_default="as in the file, else 224"
        ),
    ] = None,
    num_attention_heads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of attention heads, which cannot be read from the weights.",
            show_default="as published for the width, else width / 64",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Entry of the file with the weights, such as model_ema.",
            show_default="model_state, model, module or state_dict",
        ),
    ] = None,
    ignore_unknown: Annotated[bool, typer.Option("--ignore-unknown", help="Skip unknown weights.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is a checkpoint folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    from ...conversion.original_files import load_original_checkpoint
    from ...conversion.state_dict import ConversionError, convert_original_state_dict, convertible_architectures

    known = convertible_architectures()
    if architecture not in known:
        raise InputError(f"ARCHITECTURE must be one of {', '.join(known)}, got {architecture!r}")
    _check_out(out, overwrite)
    sizes = None if label_groups is None else parse_label_groups(label_groups)
    with input_errors(ConversionError, OSError, options=_OPTIONS):
        checkpoint = load_original_checkpoint(original, key)
    with input_errors(ConversionError, at=original, options=_OPTIONS):
        converted = convert_original_state_dict(
            architecture,
            checkpoint.state_dict,
            num_frames=num_frames,
            image_size=image_size,
            num_attention_heads=num_attention_heads,
            label_groups=sizes,
            settings=checkpoint.settings,
        )
    if converted.unknown and not ignore_unknown:
        names = converted.unknown
        raise InputError(
            f"{original}: {len(names)} of its weights are unknown ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}), so the model may be a different one; skip them with "
            "--ignore-unknown"
        )
    if labels:
        _name_labels(converted.config, labels)
    _write(converted, out, overwrite)
    unused = {**checkpoint.unused, **converted.unused}
    summary = _summary(architecture, original, out, converted, unused)
    if as_json:
        write_json(summary)
    else:
        _print(summary)
        if not labels:
            print_note("the labels have no names: give them with --labels")


def parse_label_groups(text: str) -> dict[str, int]:
    """Parses a value of `--label-groups`.

    Args:
        text: The value, such as "verb=97,noun=300", or "none".

    Returns:
        Mapping from tasks to numbers of labels, in order; empty for a single task.

    Raises:
        InputError: If the value is malformed.

    Examples:
        >>> parse_label_groups("verb=97,noun=300")
        {'verb': 97, 'noun': 300}
    """
    if text == "none":
        return {}
    sizes: dict[str, int] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*([A-Za-z_]\w*)=([1-9]\d*)\s*", part)
        # These two names are reserved: see `hf_video_tome.tasks`.
        if not found or found[1] in sizes or found[1] in ("label", "action"):
            raise InputError(f"--label-groups must be like verb=97,noun=300, or none, got {text!r}")
        sizes[found[1]] = int(found[2])
    return sizes


# --- labels
def _name_labels(config: Any, options: Sequence[str]) -> None:
    """Sets the label names of a config."""
    groups: dict[str, list[int]] = getattr(config, "label_groups", None) or {}
    whole = {"": [0, config.num_labels]}
    files: dict[str, Path] = {}
    for option in options:
        task, separator, file = option.partition("=")
        if not separator or (task not in groups and Path(option).is_file()):
            task, file = "", option
        elif task not in groups:
            raise InputError(f"--labels {option}: the tasks of the classifier are {', '.join(groups) or 'not named'}")
        if task in files:
            raise InputError(f"--labels {option}: there is another file for the same labels")
        files[task] = Path(file)
    ranges = whole if "" in files else groups
    if set(files) != set(ranges):
        absent = [task for task in groups if task not in files]
        raise InputError(
            "--labels: give one file for all labels or one for each task, not both"
            if not absent or "" in files
            else f"--labels: no file for {', '.join(absent)}"
        )
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for task, (start, stop) in sorted(ranges.items(), key=lambda item: item[1]):
        read = read_labels(files[task])
        if len(read) != stop - start:
            what = f"{task} outputs" if task else "outputs"
            raise InputError(
                f"--labels {files[task]}: has {len(read)} labels, while the classifier has {stop - start} {what}"
            )
        for index, name in enumerate(read, start):
            names[index] = name
            # A verb and a noun may have the same name, which evaluation looks up per task; but the mapping from names
            # to indices has no tasks, and must not lose an output.
            numbers[name if name not in numbers else f"{name} ({task})"] = index
    config.id2label, config.label2id = names, numbers


def read_labels(path: Path) -> list[str]:
    """Reads label names, ordered by index.

    Args:
        path: A .txt, .csv or .json file, as for `read_label_names`.

    Returns:
        The names.

    Raises:
        InputError: If the file cannot be read, or the indices are not 0, 1, 2, ..., each once.
    """
    from ...data.label_names import read_label_names

    if path.suffix.lower() not in LABEL_SUFFIXES:
        raise InputError(f"--labels {path}: must be a {', '.join(LABEL_SUFFIXES)} file")
    with input_errors(OSError, ValueError, rewrite=lambda text: f"--labels {text}"):
        return read_label_names(path)


# --- writing
def _check_out(out: Path, overwrite: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise InputError(f"{out} already exists; replace it with --overwrite")
    if out.is_symlink() or not (out / "config.json").is_file():
        raise InputError(
            f"{out} is not a checkpoint folder (it has no config.json), so --overwrite does not replace it"
        )
    # Only files written by this command are ever deleted: the original may be in the folder.
    others = sorted(path.name for path in out.iterdir() if path.name not in WRITTEN_FILES)
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise InputError(
            f"{out} has other files than a converted checkpoint ({shown}), so --overwrite does not replace it"
        )


@contextmanager
def _new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `out` on success and deleted on failure."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".{out.name}.{os.getpid()}.new")
    old = scratch.with_suffix(".old")
    scratch.mkdir()
    try:
        yield scratch
        _check_out(out, overwrite)  # it may have been created in the meantime
        if out.exists():
            out.rename(old)
        scratch.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)


def _write(converted: ConvertedCheckpoint, out: Path, overwrite: bool) -> None:
    """Writes the folder and loads it as a check."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from ...data.transforms import ClipTransform
    from ...models import ARCHITECTURES

    config = converted.config
    config.architectures = [ARCHITECTURES[config.model_type].head_class.__name__]
    config.dtype = torch.float32
    weights = {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in converted.state_dict.items()
    }
    with input_errors(OSError, SafetensorError), _new_folder(out, overwrite) as folder:
        config.save_pretrained(folder)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        # transformers' VideoMAE image processor applies the same steps in the same order.
        processor = {
            "image_processor_type": "VideoMAEImageProcessor",
            **ClipTransform.from_config(config).to_processor_settings(),
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
        _check_loading(folder)


def _check_loading(folder: Path) -> None:
    from transformers import AutoModelForVideoClassification

    with quiet_transformers():
        _, report = AutoModelForVideoClassification.from_pretrained(folder, output_loading_info=True)
    problems = {name: sorted(map(str, names)) for name, names in report.items() if names}
    if problems:
        raise RuntimeError(f"the converted checkpoint does not load correctly: {problems}")


# --- the report
def _summary(
    architecture: str, original: Path, out: Path, converted: ConvertedCheckpoint, unused: Mapping[str, str]
) -> dict[str, Any]:
    config = converted.config
    fields = ("num_frames", "image_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_labels")
    return {
        "architecture": architecture,
        "original": str(original),
        "output": str(out),
        "parameters": sum(tensor.numel() for tensor in converted.state_dict.values()),
        "config": {name: getattr(config, name) for name in fields},
        "label_groups": getattr(config, "label_groups", None),
        "assumed": converted.assumed,
        "used": converted.used,
        "unused": dict(unused),
    }


def _print(summary: Mapping[str, Any]) -> None:
    config, assumed = summary["config"], summary["assumed"]
    fields = [("architecture", f"{summary['architecture']}, {summary['parameters']:,} parameters")]
    groups = ", ".join(f"{task} {start}-{stop - 1}" for task, (start, stop) in (summary["label_groups"] or {}).items())
    for name, value in {**config, "label_groups": groups}.items():
        if value != "":
            source = f"  (from {assumed[name]})" if name in assumed else ""
            fields.append((name.replace("_", " "), f"{value}{source}"))
    print_fields([*fields, ("output", summary["output"])])
    for title, second, names in (
        ("used", "name in transformers", summary["used"]),
        ("not used", "why", summary["unused"]),
    ):
        if not names:
            continue
        print_line()
        print_table((title, second), _collapse(names), text=(title, second))


def _collapse(names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Collapses equal lines of all layers into one: "blocks.0-11.norm1.bias"."""
    lines: dict[tuple[str, str], list[str]] = {}
    for name, text in names.items():
        found = re.search(r"(?<=\.)\d+(?=\.)", name)
        number = found[0] if found else ""
        general = (
            re.sub(r"(?<=\.)\d+(?=\.)", "{}", name, count=1),
            re.sub(rf"(?<=\.){number}(?=\.)", "{}", text) if number else text,
        )
        lines.setdefault(general, []).append(number)
    collapsed = []
    for (first, second), numbers in lines.items():
        runs = _runs(sorted(map(int, filter(None, numbers))))
        collapsed.append((first.replace("{}", runs), second.replace("{}", runs)))
    return collapsed


def _runs(numbers: Sequence[int]) -> str:
    """Formats numbers as runs: "0-3,5"."""
    # Inside a run a number and its position differ by the same.
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
