"""Measures what choosing tokens costs: methods at full size, with random weights, on this machine.

    python examples/measure_overhead.py measure videomae --dtype float32 --output videomae-float32.json
    python examples/measure_overhead.py page videomae-float32.json --output docs/overhead.md

`measure` times a model with several methods, each with the same reduction factor of operations, and with a control
that drops as many tokens in the same layers at random, without looking at them. All of them run in turn; leave the
machine alone meanwhile. `page` writes a table between the lines `<!-- study -->` and `<!-- end of study -->` of a
page.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from study_budgets import table, write_json, write_page
from study_methods import METHODS, fit

import hf_video_tome
from hf_video_tome.benchmark.timing import ProcessorTime, busy_warning, interleave, ratio, timer_of
from hf_video_tome.merging import Assignment, Context, assign_kept, register_mode
from hf_video_tome.merging.modes.registry import all_but_one
from hf_video_tome.merging.noise import uniform_noise
from hf_video_tome.models import ARCHITECTURES

NAMES = (
    "merge decreasing",
    "cluster",
    "runs",
    "absorb norm",
    "pitome decreasing",
    "input run_length",
    "input temporal_difference",
)
"""Names of the methods, as in study_methods.py."""
UNSEEN = "drop_unseen"
"""Name of the control."""


def drop_unseen(context: Context) -> Assignment:
    """Drops r random tokens."""
    keys, first = context.keys, context.num_protected
    noise = uniform_noise(keys.shape[:3], keys[..., 0].float(), context.generator)
    noise[..., :first] = -1  # are kept
    kept = noise.argsort(dim=-1)[..., : keys.shape[2] - context.r].sort(dim=-1).values
    return assign_kept(kept, keys.shape[2])


def control_of(config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that drop as many tokens in the same layers at random, with the same kind of attention."""
    if settings.get("input"):
        return {**settings, "input": "random"}
    tried = type(config).from_stock(config)
    tried.update_token_merging(**settings)
    counts = hf_video_tome.token_counts(tried)
    removed = [before - after for before, after in pairwise(counts)]
    return {"mode": UNSEEN, "r": removed, "proportional_attention": settings["proportional_attention"]}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times all methods and their controls; returns the content of the file."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    architecture = ARCHITECTURES[arguments.architecture]
    model: Any = architecture.head_class(architecture.config_class(**json.loads(arguments.config)))
    model = model.eval().to(dtype=getattr(torch, arguments.dtype))
    config = model.config
    clips = torch.randn(arguments.batch_size, *config.clip_shape).to(model.dtype)
    if UNSEEN not in hf_video_tome.merging.MODES:
        register_mode(UNSEEN, removals=all_but_one, max_share=0.99, averages=False)(drop_unseen)
    chosen: dict[str, dict[str, Any]] = {"": dict(config.unmerged_settings)}
    factors: dict[str, float] = {}
    for name in arguments.methods:
        fitted = fit(config, METHODS[name], arguments.factor)
        if fitted is None:
            raise SystemExit(f"error: {arguments.architecture} does not support {name}")
        chosen[name], factors[name] = fitted
        chosen[f"{name}, {UNSEEN}"] = control_of(config, chosen[name])
    before = config.token_merging_settings()

    def prepare(settings: Mapping[str, Any]) -> Callable[[], object]:
        model.set_token_merging(**{**before, **settings})
        return lambda: model(clips)

    runs = [partial(prepare, settings) for settings in chosen.values()]
    processor = ProcessorTime()
    with torch.inference_mode():
        interleave(runs, 1, timer_of(clips.device))
        times = interleave(runs, arguments.rounds, timer_of(clips.device), processor=[processor] * len(runs))
    seconds = dict(zip(chosen, times, strict=True))
    warning = busy_warning(processor.share)
    if warning:
        print(warning)
    return {
        "architecture": arguments.architecture,
        "tokens": config.token_layout.num_tokens,
        "dtype": arguments.dtype,
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "seconds": round(median(seconds[""]), 3),
        "busy": bool(warning),
        "versions": {"torch": torch.__version__, "hf_video_tome": hf_video_tome.__version__},
        "methods": [
            {
                "name": name,
                "factor": factors[name],
                "speed": [round(it, 3) for it in ratio(seconds[""], seconds[name])],
                "against_control": [round(it, 3) for it in ratio(seconds[f"{name}, {UNSEEN}"], seconds[name])],
            }
            for name in arguments.methods
        ],
    }


def render(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table."""
    rows = []
    for study in studies:
        for method in study["methods"]:
            speed, low, high = method["speed"]
            rows.append(
                [
                    f"{study['architecture']}, {study['dtype']}, batch {study['batch_size']}",
                    method["name"],
                    f"{method['factor']:.2f}x",
                    f"{speed:.2f}x ({low:.2f} to {high:.2f})",
                    f"{100 * speed / method['factor']:.0f} %",
                    "{:.2f} ({:.2f} to {:.2f})".format(*method["against_control"]),
                ]
            )
    header = [
        "model",
        "method",
        "fewer operations",
        "faster (quartiles)",
        "reached",
        "speed relative to random dropping",
    ]
    return table(header, rows)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="time a model with all methods")
    measuring.add_argument("architecture", help="videomae, vivit or vjepa2", choices=["videomae", "vivit", "vjepa2"])
    measuring.add_argument("--config", default="{}", help="fields of the config, in JSON")
    measuring.add_argument("--methods", nargs="+", choices=NAMES, default=list(NAMES), metavar="METHOD")
    measuring.add_argument("--factor", type=float, default=2.5, help="reduction factor of operations")
    measuring.add_argument("--dtype", default="float32")
    measuring.add_argument("--batch-size", type=int, default=1)
    measuring.add_argument("--rounds", type=int, default=7)
    measuring.add_argument("--threads", type=int, default=os.cpu_count())
    measuring.add_argument("--output", type=Path, required=True, help="output file, in JSON")
    writing = commands.add_parser("page", help="write the table into a page")
    writing.add_argument("files", type=Path, nargs="+")
    writing.add_argument("--output", type=Path, required=True, help="output page, in Markdown")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    chosen = parse_arguments(arguments)
    if chosen.command == "page":
        write_page(chosen.files, chosen.output, render)
    else:
        write_json(chosen.output, measure(chosen))


if __name__ == "__main__":
    main()
