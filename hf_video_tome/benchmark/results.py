"""Benchmark results and their file."""

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
    """Measurements of one variant at one batch size.

    Attributes:
        variant: The measured variant.
        batch_size: Number of clips per forward pass.
        requested_per_layer: Number of tokens to remove from each matched set per layer, on average.
        token_counts: Number of tokens before the first and after each layer that can merge; the first is that after
            an input stage.
        macs: Multiply-accumulates of one clip, in total and by part: see `hf_video_tome.mac_count`.
        mac_ratio: Multiply-accumulates without merging relative to those of the variant.
        seconds: Seconds of each timed pass, in the order of the rounds; empty if it failed.
        first_seconds: Seconds of the very first pass, including compilation.
        memory: Memory of one pass; None if not measured.
        failure: Reason for missing seconds, "out of memory"; None if there are seconds.
        parts: Seconds of one pass by kind of work, see `time_parts`; None if not measured.
        processor_time: Processor time of the timed passes; None if not measured.
        num_tokens: Number of tokens of the clip, before the input stage; None in files of older versions.
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
        """Number of tokens of the clip: `num_tokens`, or those entering the first layer if it is unknown."""
        return self.token_counts[0] if self.num_tokens is None else self.num_tokens

    @property
    def median(self) -> float:
        """Median seconds of a pass."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class BenchmarkResults:
    """Results of a benchmark.

    Attributes:
        conditions: Measuring conditions: machine, versions, command, model, shape of the clips; JSON-safe.
        measured: Measurements, by batch size.
    """

    conditions: dict[str, Any]
    measured: list[MeasuredVariant]

    def baseline(self, of: MeasuredVariant, attn_implementation: str, dtype: str | None = None) -> MeasuredVariant:
        """Returns the measurements of the uncompiled stock model to compare with.

        Args:
            of: Measurements to compare.
            attn_implementation: Attention implementation of the stock model.
            dtype: Dtype of the stock model; None uses that of `of`.

        Returns:
            The stock model's measurements at the same batch size.

        Raises:
            LookupError: If there are none: the stock model lacks that attention, or did not fit in memory.
        """
        wanted = Variant(dtype or of.variant.dtype, attn_implementation)
        for other in self.measured:
            if other.variant == wanted and other.batch_size == of.batch_size and other.seconds:
                return other
        raise LookupError(f"there is no {wanted.name} at batch size {of.batch_size}")

    def speedup(
        self, of: MeasuredVariant, attn_implementation: str | None = None, dtype: str | None = None
    ) -> Ratio | None:
        """Returns the speed-up over a stock model, round by round; None if either is missing.

        Args:
            of: Measurements to compare.
            attn_implementation: As for `baseline`; None uses `reference_attention`.
            dtype: As for `baseline`.
        """
        try:
            baseline = self.baseline(of, attn_implementation or self.reference_attention, dtype)
        except LookupError:
            return None
        return ratio(baseline.seconds, of.seconds) if of.seconds else None

    def share(self, of: MeasuredVariant) -> float | None:
        """Returns the speed-up over the reference relative to the MAC ratio; None for stock models."""
        speedup = self.speedup(of)
        return None if speedup is None or of.variant.is_stock else speedup.median / of.mac_ratio

    @property
    def reference_attention(self) -> str:
        """Attention implementation of the stock model that a user would run: sdpa, or eager if it has no sdpa."""
        stock = {entry.variant.attn_implementation for entry in self.measured if entry.variant.is_stock}
        return "sdpa" if "sdpa" in stock else "eager"

    @property
    def processor_share(self) -> float | None:
        """Share of the time that the models had a processor, 0 to 1; None on GPUs and if not measured."""
        times = (entry.processor_time for entry in self.measured)
        return ProcessorTime.total(times).share if self.conditions.get("device") == "cpu" else None

    @property
    def batch_sizes(self) -> list[int]:
        """The batch sizes, in order."""
        return list(dict.fromkeys(entry.batch_size for entry in self.measured))

    def check_model(self, config: TokenMergingConfigMixin) -> None:
        """Checks that the measured models match a config, apart from weights and labels, which do not affect speed.

        Args:
            config: Config of the model.

        Raises:
            ValueError: If the architecture, size or number of tokens differs.
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
        """Returns the measurements with settings equivalent to those of a config, not compiled.

        Args:
            config: Config of a measured model, see `check_model`.
            dtype: Dtype of the model.

        Raises:
            ValueError: If there is not exactly one match.
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
        """Returns the results as a JSON-safe dictionary."""
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
        """Builds results from the output of `to_dict`.

        Raises:
            ValueError: If the format differs.
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
        """Writes `results.json` atomically.

        Returns:
            Its path.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        write_atomically(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> BenchmarkResults:
        """Reads a `results.json`, given its path or its folder.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it has no benchmark results.
        """
        path = path / FILE_NAME if path.is_dir() else path
        try:
            return cls.from_dict(read_json(path))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not benchmark results: {error}") from error


def _fields(kind: type[MeasuredVariant | Variant], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the dataclass fields that an entry has; older files lack some."""
    return {field.name: entry[field.name] for field in fields(kind) if field.name in entry}


def machine(device: torch.device, with_memory: bool = True) -> dict[str, Any]:
    """Describes the machine and its software, JSON-safe and without identifying it.

    Args:
        device: Device of the models.
        with_memory: Whether to include how memory is measured.
    """
    facts = {
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        # Over the last minute, for the whole machine: relative to the cores, it shows how busy the machine was before.
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
    """Returns the CPU's name as given by the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
