"""Tables of benchmark results, on the screen and as a documentation page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from .parts import PARTS
from .plot import save_plot
from .results import FILE_NAME, BenchmarkResults, MeasuredVariant
from .timing import Ratio, busy_warning, spread

INTRODUCTION = """# Speed

Speed-ups by token merging, measured with the command [`benchmark`](benchmark.md), whose page explains the columns.
Ratios are comparable across machines, seconds are not. `examples/benchmark_page.py` generates this page from the
linked data, made by the commands below each table.
"""


PARTS_TITLE = "Where the time of one pass goes, in ms"


def describe_ratio(value: Ratio | None) -> str:
    """Formats a ratio with half its interquartile range: "1.86 ± 0.02"; "–" for None."""
    return "–" if value is None else f"{value.median:.2f} ± {(value.high - value.low) / 2:.2f}"


def columns(results: BenchmarkResults) -> list[str]:
    """Returns the column names of the tables, depending on what was measured."""
    absent = {"vs fp32": not _beside_float32(results), "peak MiB": not _has_memory(results)}
    return ["variant", "tokens", *(name for name in _CELLS if not absent.get(name))]


def _beside_float32(results: BenchmarkResults) -> bool:
    """Returns whether other dtypes can be compared with a stock model in float32."""
    dtypes = {entry.variant.dtype for entry in results.measured}
    return "float32" in dtypes and len(dtypes) > 1


def _has_memory(results: BenchmarkResults) -> bool:
    """Returns whether memory was measured for any variant."""
    return any(entry.memory is not None for entry in results.measured)


def rows(results: BenchmarkResults, batch_size: int) -> list[list[str]]:
    """Returns the table cells for one batch size, with the columns of `columns(results)`."""
    several = len({entry.variant.dtype for entry in results.measured}) > 1
    return [_row(results, entry, several) for entry in results.measured if entry.batch_size == batch_size]


def _row(results: BenchmarkResults, entry: MeasuredVariant, several_dtypes: bool) -> list[str]:
    variant, left = entry.variant, entry.token_counts[-1]
    name = variant.name if several_dtypes else variant.label
    tokens = str(left) if left == entry.full_tokens else f"{entry.full_tokens} → {left}"
    measured = columns(results)[2:]
    if not entry.seconds:
        return [name, tokens, entry.failure or "–", *[""] * (len(measured) - 1)]
    return [name, tokens, *(_CELLS[column](results, entry) for column in measured)]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 0.1 else f"{1000 * seconds:.2f}"


def _reached(results: BenchmarkResults, entry: MeasuredVariant) -> str:
    share = results.share(entry)
    return "" if share is None else f"{share:.0%}"


_CELLS: dict[str, Callable[[BenchmarkResults, MeasuredVariant], str]] = {
    "ms": lambda _, entry: _milliseconds(entry.median),
    "spread": lambda _, entry: f"{spread(entry.seconds):.1%}",
    "vs sdpa": lambda results, entry: describe_ratio(results.speedup(entry, "sdpa")),
    "vs eager": lambda results, entry: describe_ratio(results.speedup(entry, "eager")),
    "vs fp32": lambda results, entry: describe_ratio(results.speedup(entry, dtype="float32")),
    "MACs": lambda _, entry: "" if entry.variant.is_stock else f"{entry.mac_ratio:.2f}",
    "reached": _reached,
    "peak MiB": lambda _, entry: "–" if entry.memory is None else f"{entry.memory.peak_bytes / 2**20:.0f}",
}
"""What columns hold of a variant that ran."""


def parts_columns(results: BenchmarkResults, batch_size: int) -> list[str]:
    """Returns the column names for `parts_rows`: the kinds of work done by any variant."""
    entries = [entry for entry in results.measured if entry.batch_size == batch_size]
    return ["variant", *(part for part in PARTS if any((entry.parts or {}).get(part) for entry in entries))]


def parts_rows(results: BenchmarkResults, batch_size: int) -> list[list[str]]:
    """Returns the milliseconds of one pass by kind of work, with the columns of `parts_columns`; may be empty."""
    several = len({entry.variant.dtype for entry in results.measured}) > 1
    names = parts_columns(results, batch_size)[1:]
    return [
        [
            entry.variant.name if several else entry.variant.label,
            *(_milliseconds(entry.parts[part]) if entry.parts[part] else "" for part in names),
        ]
        for entry in results.measured
        if entry.batch_size == batch_size and entry.parts is not None
    ]


def footnotes(results: BenchmarkResults) -> list[str]:
    """Returns footnotes that explain the table."""
    reference = results.reference_attention
    notes = [
        "vs sdpa, vs eager: times as fast as stock transformers, not compiled, in the same dtype: median of the "
        "ratios in each round ± half their interquartile range. spread: interquartile range of the times relative to "
        "their median. MACs: times fewer multiply-accumulates. reached: speed-up over "
        f"stock {reference} relative to that."
    ]
    if _beside_float32(results):
        notes.append(f"vs fp32: the same against stock {reference} in float32.")
    if reference != "sdpa":
        notes.append("The stock model has no sdpa attention.")
    if any(entry.failure for entry in results.measured):
        notes.append("Variants without numbers did not fit in memory.")
    busy = busy_warning(results.processor_share)
    return notes if busy is None else [busy, *notes]


def describe_conditions(results: BenchmarkResults) -> str:
    """Describes the measuring conditions in one paragraph."""
    facts = results.conditions
    frames, channels, height, width = facts["clip_shape"]
    sizes = ", ".join(f"{name} {value}" for name, value in facts["config"].items())
    machine = facts["gpu"] or f"{facts['cpu']} ({facts['cpu_capability']})"
    memory = f" Peak memory: {facts['memory_method']}." if _has_memory(results) else ""
    model = (
        f"{facts['model']} ({facts['model_type']}; {sizes}), {facts['weights']} weights, clips of {frames} x "
        f"{channels} x {height} x {width}, {' and '.join(facts['dtypes'])}"
    )
    versions = (
        f"torch {facts['torch']}, transformers {facts['transformers']}, hf-video-tome {facts['hf_video_tome']}, "
        f"Python {facts['python']}"
    )
    return (
        f"{model}; {facts['device']}: {machine}, {facts['cores']} cores, {facts['threads']} threads; {versions}; "
        f"{facts['rounds']} interleaved rounds after {facts['warmup']}; {facts['date']}.{memory}"
    )


def write_page(sources: Sequence[Path], page: Path) -> list[Path]:
    """Writes a documentation page from benchmark results, with data and plots in a folder beside it.

    Args:
        sources: Folders with a `results.json`, or such files. Data and plots are named after the file, or after its
            folder if the file is named `results.json`.
        page: The Markdown file; data and plots are written to the folder of the same name without suffix.

    Returns:
        The written files, the page first.

    Raises:
        ImportError: If matplotlib is missing.
        OSError: If a file cannot be read or written.
        ValueError: If a source has no results, or two sources have the same name.
    """
    files = [source / FILE_NAME if source.is_dir() else source for source in sources]
    names = [file.resolve().parent.name if file.name == FILE_NAME else file.stem for file in files]
    loaded = list(map(BenchmarkResults.load, files))
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"sources must have unique names, got {name!r} more than once")
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    written, sections = [page], [INTRODUCTION]
    for file, name, results in zip(files, names, loaded, strict=True):
        data = folder / f"{name}.json"
        if not (data.exists() and data.samefile(file)):
            shutil.copyfile(file, data)
        written.append(data)
        lines = [f"## {_title(results)}", ""]
        picture = save_plot(results, folder / f"{name}.png")
        if picture is not None:
            written.append(picture)
            alt = f"Speed-up of {results.conditions['model']} and the ratio of multiply-accumulates"
            lines += [f"![{alt}]({folder.name}/{picture.name})", ""]
        for batch_size in results.batch_sizes:
            lines += [
                f"Batch size {batch_size}:",
                "",
                *markdown_table(columns(results), rows(results, batch_size)),
                "",
            ]
            parts = parts_rows(results, batch_size)
            if parts:
                lines += [PARTS_TITLE + ":", "", *markdown_table(parts_columns(results, batch_size), parts), ""]
        lines += [*footnotes(results), "", describe_conditions(results), f"[All data]({folder.name}/{data.name})", ""]
        lines += ["```", results.conditions["command"], "```", ""]
        sections.append("\n".join(lines))
    page.write_text("\n".join(sections), encoding="utf-8")
    return written


def _title(results: BenchmarkResults) -> str:
    """Returns the section title: what distinguishes the sections of a page."""
    facts = results.conditions
    variants = [entry.variant for entry in results.measured]
    words = [facts["model"], " and ".join(facts["dtypes"])]
    if len({variant.settings.get("schedule") for variant in variants if variant.settings}) > 1:
        words.append("schedules")
    if any(variant.compiled for variant in variants):
        words.append("compiled" + (" and frozen" if facts.get("inductor_freezing") else ""))
    words.append(f"batch size {' and '.join(map(str, results.batch_sizes))}")
    return ", ".join([*words, facts["gpu"] or facts["device"].upper()])


def markdown_table(names: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table, with the first column left-aligned and the others right-aligned.

    Examples:
        >>> markdown_table(("name", "ms"), [("stock", "12")])
        ['| name | ms |', '|---|---:|', '| stock | 12 |']
    """
    head = [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 1)}"]
    return head + [f"| {' | '.join(row)} |" for row in cells]
