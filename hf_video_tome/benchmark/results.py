"""What a benchmark found, and the file that holds it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers

from ..configuration import TokenMergingConfigMixin
from ..describe import setting_name
from ..evaluation.journal import write_atomically
from ..saved_files import read_json
from ..version import __version__
from .memory import HOW, Memory
from .timing import ProcessorTime, Ratio, ratio, spread
from .variants import Variant

FORMAT = 1
FILE_NAME = "results.json"
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class MeasuredVariant:
    """One variant at one batch size.

    Attributes:
        variant: What was measured.
        batch_size: Clips that went through the model together.
        requested_per_layer: Tokens that a layer is asked to remove from each matched set, on average.
        token_counts: Tokens of the sequence before the first and after each layer that can merge; the first are those
            that an input stage lets in.
        macs: Multiply-accumulates of one clip, in total and by part: see `hf_video_tome.mac_count`.
        mac_ratio: How many times fewer that is than without merging.
        seconds: Of each pass that counts, in the order of the rounds; empty where it failed.
        first_seconds: Of the very first pass: with compilation, that is in it.
        memory: Of one pass; None where it was not measured.
        failure: Why there are no seconds, "out of memory"; None where there are.
        parts: Seconds of one pass by kind of work, see `time_parts`; None where it was not looked into.
        processor_time: Of the passes that count; None where it was not measured.
        num_tokens: Tokens of the clip, before the input stage; None in files of older versions.
    """

    variant: Variant
    batch_size: int
    requested_per_layer: float
    token_counts: list[int]
    macs: dict[str, int]
    mac_ratio: float
    seconds: list[float]
    first_seconds: float | None = None
    memory: Memory | None = None
    failure: str | None = None
    parts: dict[str, float] | None = None
    processor_time: ProcessorTime | None = None
    num_tokens: int | None = None

    @property
    def full_tokens(self) -> int:
        """Tokens of the clip, as far as is known: those of `num_tokens`, or else those that enter the first layer."""
        return self.token_counts[0] if self.num_tokens is None else self.num_tokens

    @property
    def median(self) -> float:
        """Median seconds of a pass."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class BenchmarkResults:
    """A whole benchmark.

    Attributes:
        conditions: Under which it was measured: machine, versions, command, model, shape of the clips; JSON-safe.
        measured: What was measured, batch size by batch size.
    """

    conditions: dict[str, Any]
    measured: list[MeasuredVariant]

    def baseline(self, of: MeasuredVariant, attn_implementation: str, dtype: str | None = None) -> MeasuredVariant:
        """Returns the stock model, not compiled, that something is compared with.

        Args:
            of: What is compared.
            attn_implementation: Attention of the stock model.
            dtype: Its dtype; that of `of` when None.

        Returns:
            What was measured of it at the same batch size.

        Raises:
            LookupError: If there is none: the stock model lacks that attention, or did not fit in memory.
        """
        wanted = Variant(dtype or of.variant.dtype, attn_implementation)
        for other in self.measured:
            if other.variant == wanted and other.batch_size == of.batch_size and other.seconds:
                return other
        raise LookupError(f"there is no {wanted.name} at batch size {of.batch_size}")

    def speedup(
        self, of: MeasuredVariant, attn_implementation: str | None = None, dtype: str | None = None
    ) -> Ratio | None:
        """How many times faster than a stock model, round by round; None where one of them is not there.

        Args:
            of: What is compared.
            attn_implementation: As for `baseline`; None for `reference_attention`.
            dtype: As for `baseline`.
        """
        try:
            baseline = self.baseline(of, attn_implementation or self.reference_attention, dtype)
        except LookupError:
            return None
        return ratio(baseline.seconds, of.seconds) if of.seconds else None

    def share(self, of: MeasuredVariant) -> float | None:
        """Share of the MAC ratio that the speed-up over the reference reaches; None for stock models."""
        speedup = self.speedup(of)
        return None if speedup is None or of.variant.is_stock else speedup.median / of.mac_ratio

    @property
    def reference_attention(self) -> str:
        """Attention of the stock model that a user would run: sdpa, or eager where it has no sdpa."""
        stock = {entry.variant.attn_implementation for entry in self.measured if entry.variant.is_stock}
        return "sdpa" if "sdpa" in stock else "eager"

    @property
    def processor_share(self) -> float | None:
        """Share of the time that the models had a processor, 0 to 1; None on GPUs and where it was not measured."""
        times = (entry.processor_time for entry in self.measured)
        return ProcessorTime.total(times).share if self.conditions.get("device") == "cpu" else None

    @property
    def batch_sizes(self) -> list[int]:
        """Batch sizes, in their order."""
        return list(dict.fromkeys(entry.batch_size for entry in self.measured))

    def check_model(self, config: TokenMergingConfigMixin) -> None:
        """Makes sure that models like that of a config were measured; neither weights nor labels matter to speed.

        Args:
            config: Config of the model.

        Raises:
            ValueError: If they are of another architecture or size, or of clips with other numbers of tokens.
        """
        num_tokens, num_layers = config.token_layout.num_tokens, config.num_merging_layers
        model_type = self.conditions.get("model_type", config.model_type)
        if model_type != config.model_type:
            raise ValueError(f"the benchmark is of a {model_type} model, while this one is {config.model_type}")
        for name, value in self.conditions.get("config", {}).items():
            own = json.loads(json.dumps(getattr(config, name, value)))  # JSON has no tuples
            if name != "num_labels" and own != value:
                raise ValueError(f"the benchmark is of a model with {name}={value!r}, while this one has {own!r}")
        for entry in self.measured:
            layers = len(entry.token_counts) - 1
            if (entry.full_tokens, layers) != (num_tokens, num_layers):
                raise ValueError(
                    f"the benchmark is of a model with {entry.full_tokens} tokens and {layers} layers, while this one "
                    f"has {num_tokens} tokens and {num_layers} layers"
                )

    def measured_with(self, config: TokenMergingConfigMixin, dtype: str = "float32") -> MeasuredVariant:
        """What was measured of the model of a config with its very settings, however they are spelled; not compiled.

        Args:
            config: Config of a model that was measured, see `check_model`.
            dtype: Dtype of the model.

        Raises:
            ValueError: If that is not exactly one.
        """
        config_class: Any = type(config)
        candidate, wanted = config_class.from_stock(config), config.token_merging_plan()
        unset = config_class().token_merging_settings()
        found = []
        for entry in self.measured:
            variant = entry.variant
            if variant.settings is None or variant.compiled or variant.dtype != dtype or not entry.seconds:
                continue
            candidate.update_token_merging(**{**unset, **variant.settings})
            if candidate.token_merging_plan() == wanted:
                found.append(entry)
        if len(found) != 1:
            settings = config.token_merging_settings()
            changed = {name: value for name, value in settings.items() if value != unset[name]}
            name = setting_name({"r": 0, **changed})
            raise ValueError(
                f"the benchmark must have one entry in {dtype}, not compiled, for {name}, got "
                f"{len(found)}" + (" (of several batch sizes or attentions)" if len(found) > 1 else "")
            )
        return found[0]

    def to_dict(self) -> dict[str, Any]:
        """Returns all that is known; JSON-safe."""
        return {
            "format": FORMAT,
            "conditions": self.conditions,
            "processor_share": self.processor_share,
            "results": [self._entry(it) for it in self.measured],
        }

    def _entry(self, of: MeasuredVariant) -> dict[str, Any]:
        derived: dict[str, Any] = {}
        if of.seconds:
            speedups = {
                "stock_sdpa": self.speedup(of, "sdpa"),
                "stock_eager": self.speedup(of, "eager"),
                "stock_float32": self.speedup(of, dtype="float32"),
            }
            derived = {
                "median_seconds": of.median,
                "spread": spread(of.seconds),
                "clips_per_second": of.batch_size / of.median,
                "speedup": {name: None if it is None else it._asdict() for name, it in speedups.items()},
                "share_of_mac_ratio": self.share(of),
            }
        own = asdict(of)
        return {"name": of.variant.name, **own.pop("variant"), **own, **derived}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> BenchmarkResults:
        """Returns the inverse of `to_dict`.

        Raises:
            ValueError: If it is of another format.
        """
        if content.get("format") != FORMAT or "results" not in content:
            raise ValueError(f"must be results of a benchmark in format {FORMAT}, got format {content.get('format')}")
        measured = [
            MeasuredVariant(
                **{
                    **_fields(MeasuredVariant, entry),
                    "variant": Variant(**_fields(Variant, entry)),
                    "memory": None if entry["memory"] is None else Memory(**entry["memory"]),
                    "processor_time": ProcessorTime(**entry["processor_time"])
                    if entry.get("processor_time")
                    else None,
                }
            )
            for entry in content["results"]
        ]
        return cls(dict(content["conditions"]), measured)

    def save(self, folder: Path) -> Path:
        """Writes `results.json`, whole or not at all.

        Returns:
            Its path.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        write_atomically(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> BenchmarkResults:
        """Reads a `results.json`, or that of a folder.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is no such file.
        """
        path = path / FILE_NAME if path.is_dir() else path
        try:
            return cls.from_dict(read_json(path))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: no results of a benchmark: {error}") from error


def _fields(kind: type[MeasuredVariant | Variant], entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry says of the fields of a dataclass; older files lack some."""
    return {field.name: entry[field.name] for field in fields(kind) if field.name in entry}


def machine(device: torch.device, with_memory: bool = True) -> dict[str, Any]:
    """What the machine is and what runs on it: enough to judge numbers by, nothing that names it. JSON-safe.

    Args:
        device: What models run on.
        with_memory: Whether to say how memory is measured.
    """
    facts = {
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        # Of the last minute, of all that runs on the machine: beside the cores, it says how busy it was before.
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "device": device.type,
        "gpu": None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hf_video_tome": __version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if with_memory and device.type in HOW:
        facts["memory_method"] = HOW[device.type]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu_name() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
