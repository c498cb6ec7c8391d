"""Model cards: origin, token merging settings, accuracy and speed of a checkpoint.

Everything in a card is read from files: accuracy from the output folder of `hf-video-tome evaluate`, speed from that
of `hf-video-tome benchmark`, and the licence from the card of the base checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from transformers import PreTrainedModel

from ..benchmark import BenchmarkResults
from ..configuration import PREFIX, TokenMergingConfigMixin, token_counts_of_config
from ..describe import distinct_names
from ..evaluation.output import RESULTS_FILE
from ..evaluation.results import check_results
from ..evaluation.runner import digest_weights
from ..models import ARCHITECTURES
from ..saved_files import read_json
from ..tasks import classifier_tasks, names_digest

TASK = "video-classification"
TAG = "token-merging"
CARD_FILE = "README.md"
LICENSE_FIELDS = ("license", "license_name", "license_link")
PLACEHOLDER = "path/to/this/folder"
"""Stands for an unknown Hub id in code snippets; not a valid Hub id itself."""
_MARK = "<!-- written by hf-video-tome -->"
_ORIGINAL = "## The card of the checkpoint"
_METHOD = """\
The method is training-free: the weights are those of the checkpoint. It is described in
[*Video, How Do Your Tokens Merge?*](https://arxiv.org/abs/2506.03885) (CVPR Workshops 2025), and implemented by
hf-video-tome."""


@dataclass(frozen=True)
class BaseCheckpoint:
    """Base checkpoint, before token merging, as described by its card.

    Attributes:
        name: Name for the card.
        repo_id: Hub id; None if unknown.
        license: Fields `license`, `license_name` and `license_link` of its card; empty if it has none.
        tags: Tags of its card.
        text: Body of its card; empty if it has none.
    """

    name: str
    repo_id: str | None = None
    license: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    text: str = ""


def read_base_checkpoint(location: str | os.PathLike[str], name: str | None = None) -> BaseCheckpoint:
    """Reads the card of a checkpoint.

    Args:
        location: A folder or a Hub id.
        name: Name of the checkpoint; the last part of `location` if None.

    Returns:
        The content of its card; only the name if there is no card or it cannot be read.

    Raises:
        ValueError: If the card cannot be parsed.

    Examples:
        >>> from hf_video_tome.checkpoints import checkpoint_path
        >>> read_base_checkpoint(checkpoint_path("vivit-moving-digits")).license
        {'license': 'apache-2.0'}
    """
    is_folder = Path(location).is_dir()
    repo_id = None if is_folder else os.fspath(location)
    base = BaseCheckpoint(name or Path(location).resolve().name, repo_id)
    if is_folder:
        path = Path(location) / CARD_FILE
        if not path.is_file():
            return base
    else:
        try:
            path = Path(hf_hub_download(os.fspath(location), CARD_FILE))
        except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError):
            return base
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
    except Exception as error:  # parsing YAML can raise anything
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    data, text = card.data.to_dict(), card.text
    if _MARK in text:
        # Written by this module: it includes the origin of the weights and their card.
        repo_id = next(iter(_list(data.get("base_model"))), None)
        text = _shift_headings(text.partition(_ORIGINAL)[2], -2)
    return BaseCheckpoint(
        name=base.name,
        repo_id=repo_id,
        license={key: names[0] for key in LICENSE_FIELDS if (names := _list(data.get(key)))},
        tags=tuple(_list(data.get("tags"))),
        text=text.strip(),
    )


def read_evaluation(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the results of an evaluation.

    Args:
        folder: Its output folder, or the `results.json` in it.

    Returns:
        Content of `results.json`.

    Raises:
        ValueError: If there is no such file, or it has other content.
    """
    path = Path(folder)
    path = path / RESULTS_FILE if path.is_dir() else path
    try:
        results = read_json(path)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} is not the output folder of a finished evaluation: {path} does not exist"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(results, dict) or not {"run", "settings", "num_labelled"} <= results.keys():
        raise ValueError(f"{folder} does not hold the results of hf-video-tome evaluate")
    try:
        check_results(results)
        if not isinstance(getattr(torch, results["run"]["dtype"], None), torch.dtype):
            raise ValueError(f"run.dtype must be the name of a dtype, got {results['run']['dtype']!r}")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not results["num_labelled"]:
        raise ValueError(f"{folder}: the answers of this evaluation are unknown, so that it has no accuracy")
    return results


def check_evaluation(results: Mapping[str, Any], model: PreTrainedModel) -> None:
    """Checks that an evaluation belongs to a model: that weights and output names are the same.

    Args:
        results: Result of `read_evaluation`.
        model: The model.

    Raises:
        ValueError: If it belongs to another model.
    """
    run, names = results["run"], names_digest(model.config.id2label)
    evaluation = f"the evaluation of {run.get('model', 'a model')!r} on {run.get('dataset', 'a dataset')!r}"
    if digest_weights(model, getattr(torch, run["dtype"])) != run["weights"]:
        raise ValueError(f"{evaluation} is of other weights ({run['weights']}) than those of this model")
    if run.get("outputs", names) != names:
        raise ValueError(f"{evaluation} is of a model whose outputs have other names than those of this one")


def card_data(
    model_type: str,
    *,
    name: str | None = None,
    base_model: str | None = None,
    license: Mapping[str, str] | None = None,
    tags: Iterable[str] = (),
    metrics: Sequence[str] = (),
    eval_results: Sequence[EvalResult] = (),
) -> ModelCardData:
    """Returns the metadata of a card.

    Args:
        model_type: Model type of the config.
        name: Name of the model, needed for `eval_results`.
        base_model: Hub id of the base checkpoint, or None.
        license: Licence fields of the base checkpoint; empty if unknown.
        tags: More tags.
        metrics: Metrics in the card.
        eval_results: Measured results.

    Returns:
        Metadata for the Hub.

    Examples:
        >>> print(card_data("vivit", license={"license": "mit"}, tags=["moving-digits"]).to_yaml())
        library_name: transformers
        license: mit
        pipeline_tag: video-classification
        tags:
        - video-classification
        - vivit
        - moving-digits
        - token-merging
    """
    terms: dict[str, Any] = dict(license or {})
    return ModelCardData(
        base_model=base_model,
        library_name="transformers",
        metrics=list(metrics) or None,
        pipeline_tag=TASK,
        model_name=name,
        tags=list(dict.fromkeys((TASK, model_type, *tags, TAG))),
        eval_results=list(eval_results) or None,
        **terms,
    )


def render_card(data: ModelCardData, title: str, *sections: str) -> ModelCard:
    """Builds a card from its parts.

    Args:
        data: Its metadata.
        title: Its heading.
        *sections: Its paragraphs and sections; empty ones are skipped.

    Returns:
        The card.
    """
    body = "\n\n".join([f"# {title}", *(section.strip() for section in sections if section.strip())])
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def model_card(
    model: PreTrainedModel,
    base: BaseCheckpoint,
    *,
    evaluations: Sequence[Mapping[str, Any]] = (),
    benchmarks: Sequence[BenchmarkResults] = (),
    repo_id: str | None = None,
    remote_code: bool = False,
) -> ModelCard:
    """Returns the card of a checkpoint that merges tokens.

    Args:
        model: The model, with the settings to save.
        base: The base checkpoint.
        evaluations: Accuracy, from `read_evaluation`. Results with exactly the settings of the model are also included
            in the metadata.
        benchmarks: Speed, from `BenchmarkResults.load`.
        repo_id: Hub id for the code snippets; if None, they have a placeholder for the path of the folder.
        remote_code: Whether the code is saved with the checkpoint, see `save_remote_code`.

    Returns:
        The card.

    Raises:
        ValueError: If an evaluation has other weights, or a benchmark is of another kind of model.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, token_merging_r=10)
        >>> model = VideoMAEForVideoClassification(config)
        >>> card = model_card(model, BaseCheckpoint("tiny", repo_id="someone/tiny", license={"license": "mit"}))
        >>> card.data.base_model, card.data.license, card.data.pipeline_tag
        ('someone/tiny', 'mit', 'video-classification')
    """
    config: Any = model.config
    for results in evaluations:
        check_evaluation(results, model)
    for benchmark in benchmarks:
        benchmark.check_model(config)
        if not any(entry.seconds for entry in benchmark.measured):
            raise ValueError("the benchmark has no times: nothing in it fitted in memory")
    name = (repo_id or base.name).rpartition("/")[2]
    eval_results = [entry for results in evaluations for entry in _eval_results(results, config)]
    data = card_data(
        config.model_type,
        name=name,
        base_model=base.repo_id,
        license=base.license,
        tags=base.tags,
        metrics=["accuracy"] if evaluations else [],
        eval_results=eval_results,
    )
    return render_card(
        data,
        f"{name} with token merging" if TAG not in name else name,
        _MARK,
        _introduction(config, base),
        _settings_section(config),
        _accuracy_section(evaluations, config),
        _speed_section(benchmarks),
        _use_section(config, repo_id, remote_code),
        _origin_section(base),
    )


def _list(value: Any) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [one for one in values if isinstance(one, str)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(value: float, error: float | None = None, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f}" + ("" if error is None else f" ± {100 * error:.2f}")


def _shown(value: Any) -> str:
    return f"`{json.dumps(value)}`"


# --- sections
def _introduction(config: TokenMergingConfigMixin, base: BaseCheckpoint) -> str:
    counts = token_counts_of_config(config)
    source = f"[{base.repo_id}](https://huggingface.co/{base.repo_id})" if base.repo_id else f"`{base.name}`"
    num_tokens = config.token_layout.num_tokens
    if num_tokens == counts[-1]:
        return f"{source}, with token merging switched off: a setting away, see below.\n\n{_METHOD}"
    return (
        f"{source}, merging redundant tokens inside the model: of {num_tokens} tokens {counts[-1]} are left after the "
        f"last of {len(counts) - 1} layers, so that each layer has less to do than the one before.\n\n{_METHOD}"
    )


def _settings_section(config: TokenMergingConfigMixin) -> str:
    resolved = config.token_merging_settings(resolved=True)
    rows = [(f"`{PREFIX}{name}`", _shown(value)) for name, value in resolved.items()]
    counts = " → ".join(map(str, token_counts_of_config(config)))
    unmerged = ", ".join(f"{name}={value}" for name, value in config.unmerged_settings.items())
    return (
        "## Settings\n\n"
        f"Saved in `config.json`; `model.set_token_merging({unmerged})` is the unmerged model again.\n\n"
        f"{_table(('field', 'value'), rows)}\n\n"
        f"Tokens before the first and after each layer: {counts}."
    )


def _accuracy_section(evaluations: Sequence[Mapping[str, Any]], config: TokenMergingConfigMixin) -> str:
    if not evaluations:
        return "## Accuracy\n\nNot measured yet with these settings."
    return "## Accuracy\n\n" + "\n\n".join(_accuracy(results, config) for results in evaluations)


def _accuracy(results: Mapping[str, Any], config: TokenMergingConfigMixin) -> str:
    run, settings = results["run"], results["settings"]
    several = len(settings[0]["tasks"]) > 1
    header = ["settings", "tokens", *(["task"] if several else []), "top-1 %", "top-5 %", "agreement %", "change"]
    rows = []
    for name, setting in zip(distinct_names([entry["changes"] for entry in settings]), settings, strict=True):
        counts = setting["token_counts"]
        for number, (task, measured) in enumerate(setting["tasks"].items()):
            last = number == len(setting["tasks"]) - 1
            agreement, change = setting["agreement"], setting["top_1_difference"]
            this = "**" if _same_settings(setting, config) else ""
            rows.append(
                [
                    "" if number else f"{this}{name}{this}",
                    f"{config.token_layout.num_tokens} → {counts[-1]}" if counts and not number else "",
                    *([task] if several else []),
                    _percent(measured["top_1"]["value"], measured["top_1"]["standard_error"]),
                    _percent(measured["top_5"]["value"]),
                    _percent(agreement["value"]) if agreement and last else "",
                    _percent(change["value"], change["standard_error"], "+") if change and last else "",
                ]
            )
    counted = results["num_labelled"]
    unread = f" ({len(results['failures'])} could not be read)" if results["failures"] else ""
    sampling = run["sampling"]
    views = sampling["num_clips"] * sampling["num_crops"]
    precision = run["dtype"] if run["mixed_precision"] == "no" else f"{run['mixed_precision']} autocast"
    reference = "the first line" if run.get("reference") is None else "an earlier evaluation"
    return (
        f"On `{run.get('dataset', 'a dataset')}`, split `{run.get('split', '?')}`: {counted} of "
        f"{results['num_videos']} videos{unread}, {views} view{'s' if views > 1 else ''} each, {precision} on "
        f"{run['device']}, measured with `hf-video-tome evaluate`.\n\n"
        f"{_table(header, rows)}\n\n"
        f"± standard error. Agreement: the same answer as {reference}. Change: of top-1 to it, on the same videos. "
        "Bold: the settings of this checkpoint."
    )


def _same_settings(setting: Mapping[str, Any], config: TokenMergingConfigMixin) -> bool:
    """Returns whether a result was measured with the settings of the config."""
    return bool(setting["resolved"] == json.loads(json.dumps(config.token_merging_settings(resolved=True))))


def _eval_results(results: Mapping[str, Any], config: TokenMergingConfigMixin) -> list[EvalResult]:
    """Returns the results measured with the settings of this checkpoint, in the format of the Hub."""
    run = results["run"]
    entries = []
    for setting in results["settings"]:
        if not _same_settings(setting, config):
            continue
        for task, measured in setting["tasks"].items():
            suffix = f" ({task})" if len(setting["tasks"]) > 1 else ""
            entries += [
                EvalResult(
                    task_type=TASK,
                    dataset_type=run.get("dataset", "unknown"),
                    dataset_name=run.get("dataset", "unknown"),
                    dataset_split=run.get("split"),
                    metric_type="accuracy",
                    metric_name=f"{label} accuracy{suffix}",
                    metric_value=round(measured[key]["value"], 4),
                )
                for key, label in (("top_1", "Top-1"), ("top_5", "Top-5"))
            ]
    return entries


def _speed_section(benchmarks: Sequence[BenchmarkResults]) -> str:
    return "## Speed\n\n" + "\n\n".join(map(_speed, benchmarks)) if benchmarks else ""


def _speed(results: BenchmarkResults) -> str:
    rows = []
    for entry in results.measured:
        ratio = None if entry.variant.is_stock else results.speedup(entry)
        rows.append(
            [
                entry.variant.name,
                str(entry.batch_size),
                f"{entry.full_tokens} → {entry.token_counts[-1]}",
                f"{entry.mac_ratio:.2f}x",
                f"{1000 * entry.median:.1f}" if entry.seconds else entry.failure or "",
                f"{entry.batch_size / entry.median:.1f}" if entry.seconds else "",
                f"{ratio.median:.2f}x" if ratio else "",
            ]
        )
    conditions = results.conditions
    where = conditions.get("gpu") or conditions.get("cpu") or conditions.get("device", "?")
    threads = "" if conditions.get("gpu") else f", {conditions.get('threads', '?')} threads"
    rounds = sorted({len(entry.seconds) for entry in results.measured if entry.seconds})
    header = ("variant", "batch size", "tokens", "fewer operations", "milliseconds", "clips/s", "speed-up")
    return (
        f"On {where}{threads}; torch {conditions.get('torch', '?')}, transformers "
        f"{conditions.get('transformers', '?')}, measured {conditions.get('date', '')} with "
        "`hf-video-tome benchmark` on random clips.\n\n"
        f"{_table(header, rows)}\n\n"
        f"Medians of {' to '.join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))} rounds in which all variants "
        "take turns. Speed-up: over stock transformers at the same precision, with sdpa attention where it has that."
    )


def _use_section(config: TokenMergingConfigMixin, repo_id: str | None, remote_code: bool) -> str:
    shape, target = config.clip_shape, repo_id or PLACEHOLDER
    with_package = (
        "```python\n"
        "import hf_video_tome  # pip install hf-video-tome\n"
        "from transformers import AutoImageProcessor, AutoModelForVideoClassification\n\n"
        f'model = AutoModelForVideoClassification.from_pretrained("{target}")\n'
        f'processor = AutoImageProcessor.from_pretrained("{target}")\n'
        f'inputs = processor(frames, return_tensors="pt")  # {shape.frames} RGB frames of a clip\n'
        f"{_answer_snippet(config)}\n\n"
        "model.set_token_merging(r=0)  # any other setting, at any time\n"
        "```"
    )
    if remote_code:
        without = (
            "Without the package, the code that lies beside the weights does the same, if you trust it:\n\n"
            "```python\n"
            "from transformers import AutoModelForVideoClassification\n\n"
            f'model = AutoModelForVideoClassification.from_pretrained("{target}", trust_remote_code=True)\n'
            "```\n\n"
            + (
                "Without `trust_remote_code=True`, transformers loads its own model, which does not merge tokens."
                if _known_to_transformers(config)
                else f"transformers itself does not know the architecture `{config.model_type}`."
            )
        )
    elif _known_to_transformers(config):
        without = (
            "Without `import hf_video_tome`, transformers loads its own model, which takes the same weights and does "
            "not merge tokens."
        )
    else:
        without = f"Without `import hf_video_tome`, transformers does not know the architecture `{config.model_type}`."
    filled_in = "" if repo_id else f"`{PLACEHOLDER}` stands for the folder that holds this card.\n\n"
    return f"## Use\n\n{filled_in}{with_package}\n\n{without}"


def _answer_snippet(config: TokenMergingConfigMixin) -> str:
    """Returns code that prints the prediction: one label, or one per task."""
    if len(classifier_tasks(config)) == 1:
        return "print(model.config.id2label[model(**inputs).logits.argmax(-1).item()])"
    return (
        "logits = model(**inputs).logits[0]\n"
        "for task, (start, stop) in model.config.label_groups.items():\n"
        "    print(task, model.config.id2label[start + logits[start:stop].argmax(-1).item()])"
    )


def _known_to_transformers(config: TokenMergingConfigMixin) -> bool:
    """Returns whether transformers has the architecture."""
    return ARCHITECTURES[config.model_type].stock_config_class.__module__.startswith("transformers.")


def _origin_section(base: BaseCheckpoint) -> str:
    if base.repo_id:
        terms = base.license.get("license")
        sentence = f" Its licence, `{terms}`, applies." if terms else " Its licence applies; its card names none."
        return (
            "## Data, training, licence, limits\n\n"
            f"Those of [{base.repo_id}](https://huggingface.co/{base.repo_id}), whose weights these are.{sentence}"
        )
    return f"{_ORIGINAL}\n\n{_shift_headings(base.text, 2)}" if base.text else ""


def _shift_headings(text: str, levels: int) -> str:
    """Shifts the headings of a text down by some levels, or up if negative; code is unchanged."""
    lines, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        if line.startswith("#") and not fenced:
            line = "#" * levels + line if levels > 0 else line[-levels:]
        lines.append(line)
    return "\n".join(lines)
