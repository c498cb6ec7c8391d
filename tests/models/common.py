"""The contracts that every architecture keeps, as one class of tests: see `TokenMergingModelTesterMixin`."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import math
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel, AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.merging import MODES, SETTINGS
from hf_video_tome.models import ARCHITECTURES
from tests.merging import mode_families
from tests.tiny import BATCH_SIZE, NUM_LABELS, PIXEL_SHAPE
from tests.toys import ADAPTIVE_MODES, toy_methods

LABELS = torch.tensor([1, 0, 5])


def with_threshold(modes: Sequence[str]) -> list[tuple[str, float | None]]:
    return [(mode, 0.5 if MODES[mode].needs_threshold else None) for mode in modes]


DETERMINISTIC_MODES = with_threshold(mode_families.DETERMINISTIC_MODES)
WRONG_SHAPES = [
    ((2, 6, 3, 32, 32), "frames=4", "frames=6"),
    ((2, 8, 3, 32, 32), "frames=4", "frames=8"),
    ((2, 4, 1, 32, 32), "channels=3", "channels=1"),
    ((2, 4, 3, 48, 32), "height=32", "height=48"),
    ((2, 4, 3, 32, 16), "width=32", "width=16"),
    ((4, 3, 32, 32), "frames=4, channels=3, height=32, width=32", "(4, 3, 32, 32)"),
]
ALL_MODES = with_threshold(mode_families.ALL_MODES)


class OperationCounter(TorchDispatchMode):
    """Writes down the name of every tensor operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def draw_pixels(seed: int = 0, batch_size: int = BATCH_SIZE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, *PIXEL_SHAPE[1:], generator=generator).to(dtype)


@torch.no_grad()
def logits_of(model: nn.Module, pixel_values: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """(B, num_labels), also of the stock head of VideoPrism, which has one dimension more."""
    return model(pixel_values, **kwargs).logits.reshape(len(pixel_values), -1)


def assert_same_files(folder: Path, expected: Path) -> None:
    """Two saved models are the same, byte for byte."""
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in expected.iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


class TokenMergingModelTesterMixin:
    """Inherit from it and give the architecture and a tiny config; all contracts are then tested.

    Attributes:
        model_type: The architecture.
        tiny_config: Fields of its config.
        scopes: The scopes that it can merge in, the default first.
        proportional_attention: Its default.
        r: `token_merging_r` of the models under test: tokens of the clip, or of each frame where the default scope is
            "frame" or "tube".
        wrong_shapes: Clips that do not fit: shape, what the message says is expected, and what it says it got.
        base_model_kwargs: What a call of the base model needs where tokens are merged.
        layers_field: Field of the config that holds the number of layers that can merge.
        implementations: Attention implementations that all tests run on, a fused one last if there is one.
    """

    model_type: ClassVar[str]
    tiny_config: ClassVar[dict[str, Any]]
    scopes: ClassVar[tuple[str, ...]]
    proportional_attention: ClassVar[bool]
    r: ClassVar[int]
    wrong_shapes: ClassVar[list[tuple[tuple[int, ...], str, str]]] = WRONG_SHAPES
    base_model_kwargs: ClassVar[dict[str, Any]] = {}
    layers_field: ClassVar[str] = "num_hidden_layers"
    implementations: ClassVar[tuple[str, ...]] = ("eager", "sdpa")

    # What the tests stand on

    @property
    def architecture(self):
        return ARCHITECTURES[self.model_type]

    @property
    def input_name(self) -> str:
        """What the model calls the clips."""
        return self.architecture.head_class.main_input_name

    @property
    def num_layers(self) -> int:
        """Layers whose hidden states and attentions are recorded."""
        return self.tiny_config["num_hidden_layers"]

    def sequences(self, hidden_states: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """The hidden states up to the last layer that merges, as sequences (BATCH_SIZE, N, C)."""
        return list(hidden_states)

    @property
    def stock_implementations(self) -> tuple[str, ...]:
        """Attention implementations that the stock model knows."""
        return self.architecture.encoder.stock_attn_implementations or ("eager", "sdpa")

    def stock_config(self, **changes: Any):
        return self.architecture.stock_config_class(**{**self.tiny_config, **changes})

    def stock_model(self, implementation: str = "eager", **changes: Any):
        """A model of transformers alone, always with the same weights."""
        torch.manual_seed(0)
        config = self.stock_config(**changes)
        config._attn_implementation = implementation
        return self.architecture.stock_head_class(config).eval()

    def merging_model(self, implementation: str = "eager", config: dict[str, Any] | None = None, **settings: Any):
        """The same weights in the model of this package, merging `r` tokens unless told otherwise."""
        fields = {f"token_merging_{name}": value for name, value in {"r": self.r, **settings}.items()}
        config = self.architecture.config_class(**{**self.tiny_config, **(config or {}), **fields})
        config._attn_implementation = implementation
        torch.manual_seed(0)
        return self.architecture.head_class(config).eval()

    @pytest.fixture
    def pixel_values(self) -> torch.Tensor:
        return draw_pixels()

    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        """A folder that stock transformers saved."""
        self.stock_model().save_pretrained(tmp_path / "checkpoint")
        return tmp_path / "checkpoint"

    def test_the_test_models_have_equal_weights(self):
        stock, merging = self.stock_model().state_dict(), self.merging_model().state_dict()
        assert stock.keys() == merging.keys()
        assert all(torch.equal(stock[name], merging[name]) for name in stock)

    def test_merging_changes_the_logits(self, pixel_values):
        """Were it otherwise, the comparisons below could not fail."""
        difference = logits_of(self.merging_model(), pixel_values) - logits_of(self.merging_model(r=0), pixel_values)
        assert difference.abs().max() > 1e-2

    # r = 0 is the stock model

    @pytest.mark.parametrize(
        ("way", "settings"),
        [
            ("auto class", {}),
            ("auto class", {"token_merging_r": 0}),
            ("class", {}),
            ("class", {"token_merging_r": [0, 0]}),
            ("apply", {}),
            ("apply", {"token_merging_r": [0, 0]}),
        ],
        ids=str,
    )
    def test_r_zero_gives_the_logits_of_the_stock_model(self, checkpoint, pixel_values, way, settings):
        for implementation in self.implementations:
            self.check_r_zero(checkpoint, pixel_values, way, implementation, settings)

    def check_r_zero(
        self, checkpoint: Path, pixel_values: torch.Tensor, way: str, implementation: str, settings: dict[str, Any]
    ) -> None:
        fused_here_only = implementation not in self.stock_implementations
        stock_implementation = "eager" if fused_here_only else implementation
        stock = self.architecture.stock_head_class.from_pretrained(
            checkpoint, attn_implementation=stock_implementation
        ).eval()
        expected = logits_of(stock, pixel_values)
        if way == "apply":
            model = hf_video_tome.apply_token_merging(
                stock, **{name.removeprefix("token_merging_"): value for name, value in settings.items()}
            )
            model.set_attn_implementation(implementation)
        else:
            model_class = {"auto class": AutoModelForVideoClassification, "class": self.architecture.head_class}[way]
            model = model_class.from_pretrained(checkpoint, attn_implementation=implementation, **settings)
        assert type(model) is self.architecture.head_class
        assert model.config._attn_implementation == implementation
        logits = logits_of(model, pixel_values)
        if fused_here_only:
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(logits, expected)

    def test_r_zero_does_no_extra_work(self, pixel_values):
        counters = []
        for model in (self.stock_model(), self.merging_model(r=0)):
            with OperationCounter() as counter, torch.no_grad():
                model(pixel_values)
            counters.append(counter.names)
        assert counters[0] == counters[1]

    def test_r_zero_gives_hidden_states_and_attentions_of_the_stock_model(self, pixel_values):
        with torch.no_grad():
            expected, actual = (
                model(pixel_values, output_hidden_states=True, output_attentions=True)
                for model in (self.stock_model(), self.merging_model(r=0))
            )
        for name in ("hidden_states", "attentions"):
            assert len(expected[name]) == len(actual[name])
            assert all(torch.equal(a, b) for a, b in zip(expected[name], actual[name], strict=True))

    def test_a_trace_at_r_zero_is_the_identity(self, pixel_values):
        stock, model = self.stock_model(), self.merging_model(r=0)
        with torch.no_grad():
            expected = stock(pixel_values, output_hidden_states=True)
            outputs = model(pixel_values, output_token_merging=True, output_hidden_states=True)
        torch.testing.assert_close(outputs.logits, logits_of(stock, pixel_values))
        for actual_states, expected_states in zip(outputs.hidden_states, expected.hidden_states, strict=True):
            torch.testing.assert_close(actual_states, expected_states)
        trace = outputs.token_merging
        tokens = model.config.token_layout.num_tokens
        assert trace.token_counts == (tokens,) * (model.config.num_merging_layers + 1)
        assert torch.equal(trace.sources, torch.arange(tokens).expand(BATCH_SIZE, -1))
        assert torch.equal(trace.sizes, torch.ones(BATCH_SIZE, tokens))

    # Files and names

    @pytest.mark.parametrize("auto_class", [AutoModelForVideoClassification, AutoModel])
    def test_an_unset_flag_leaves_names_keys_and_files_as_they_are(self, checkpoint, tmp_path, auto_class):
        head = auto_class is AutoModelForVideoClassification
        stock_class = self.architecture.stock_head_class if head else self.architecture.stock_model_class
        torch.manual_seed(1)  # the base model of ViViT has a pooler, which the checkpoint has no weights for
        stock = stock_class.from_pretrained(checkpoint)
        torch.manual_seed(1)
        model = auto_class.from_pretrained(checkpoint)
        assert type(model) is (self.architecture.head_class if head else self.architecture.model_class)
        assert type(model).__name__ == stock_class.__name__
        assert type(model.config).__name__ == type(stock.config).__name__
        assert list(model.state_dict()) == list(stock.state_dict())
        stock.save_pretrained(tmp_path / "stock")
        model.save_pretrained(tmp_path / "ours")
        assert_same_files(tmp_path / "ours", tmp_path / "stock")

    def test_only_fields_that_differ_or_whose_defaults_may_change_are_saved(self, checkpoint, tmp_path):
        model = AutoModelForVideoClassification.from_pretrained(
            checkpoint, token_merging_r=self.r, token_merging_mode="drop", token_merging_pooling="weighted"
        )
        model.save_pretrained(tmp_path / "merged")
        saved = json.loads((tmp_path / "merged" / "config.json").read_text())
        stock = json.loads((checkpoint / "config.json").read_text())
        fields = {name: saved.pop(name) for name in list(saved) if name.startswith("token_merging")}
        settings = model.config.token_merging_settings(resolved=True)
        resolved = {
            name: fields.pop(f"token_merging_{name}")
            for name, info in SETTINGS.items()
            if info.is_saved_resolved and name in settings
        }
        assert fields == {"token_merging_r": self.r, "token_merging_mode": "drop"}
        assert resolved == {name: settings[name] for name in resolved}
        assert saved == stock
        weights = (folder / "model.safetensors" for folder in (tmp_path / "merged", checkpoint))
        assert load_file(next(weights)).keys() == load_file(next(weights)).keys()

    def test_saving_and_loading_keeps_settings_and_logits(self, checkpoint, tmp_path, pixel_values):
        settings = {"r": [self.r, 1], "mode": "hybrid", "threshold": 0.4, "pooling": "mean"}
        model = AutoModelForVideoClassification.from_pretrained(checkpoint)
        model.set_token_merging(**settings)
        model.save_pretrained(tmp_path / "merged")
        for loaded in (
            AutoModelForVideoClassification.from_pretrained(tmp_path / "merged"),
            self.architecture.head_class.from_pretrained(tmp_path / "merged"),
        ):
            assert {name: getattr(loaded.config, f"token_merging_{name}") for name in settings} == settings
            assert torch.equal(logits_of(loaded, pixel_values), logits_of(model, pixel_values))

    def test_a_keyword_overrides_what_was_saved(self, checkpoint, tmp_path, pixel_values):
        AutoModelForVideoClassification.from_pretrained(checkpoint, token_merging_r=self.r).save_pretrained(
            tmp_path / "merged"
        )
        model = AutoModelForVideoClassification.from_pretrained(tmp_path / "merged", token_merging_r=0)
        stock = AutoModelForVideoClassification.from_pretrained(checkpoint)
        assert torch.equal(logits_of(model, pixel_values), logits_of(stock, pixel_values))

    def test_plain_transformers_loads_a_merged_checkpoint_unmerged(
        self, checkpoint, tmp_path, pixel_values, stock_transformers
    ):
        model = AutoModelForVideoClassification.from_pretrained(checkpoint, token_merging_r=self.r)
        model.save_pretrained(tmp_path / "merged")
        answer = stock_transformers(tmp_path / "merged", pixel_values, attn_implementation="eager")
        assert "error" not in answer, answer
        assert answer["class"].startswith("transformers.models.")
        assert answer["missing_keys"] == answer["unexpected_keys"] == []
        expected = logits_of(self.stock_model(), pixel_values)
        logits = torch.tensor(answer["logits"]).view_as(expected)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)

    def test_plain_transformers_refuses_the_flag(self, checkpoint, pixel_values, stock_transformers):
        answer = stock_transformers(checkpoint, pixel_values, token_merging_r=self.r)
        assert answer["error"] == "TypeError"
        assert "unexpected keyword argument 'token_merging_r'" in answer["message"]

    def test_weights_of_the_stock_model_load_strictly(self, pixel_values):
        stock, model = self.stock_model(), self.merging_model(r=0)
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        assert str(model.load_state_dict(stock.state_dict(), strict=True)) == "<All keys matched successfully>"
        assert torch.equal(logits_of(model, pixel_values), logits_of(stock, pixel_values))

    # The same input gives the same output

    @pytest.mark.parametrize(("mode", "threshold"), DETERMINISTIC_MODES)
    def test_a_second_call_equals_the_first(self, pixel_values, mode, threshold):
        model = self.merging_model(mode=mode, threshold=threshold)
        first = logits_of(model, pixel_values)
        logits_of(model, draw_pixels(1, batch_size=2), output_token_merging=True, output_hidden_states=True)
        assert torch.equal(logits_of(model, pixel_values), first)

    @pytest.mark.parametrize("mode", ["random_merge", "random_drop"])
    def test_random_modes_follow_the_global_seed(self, pixel_values, mode):
        model = self.merging_model(mode=mode)
        logits = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            logits.append(logits_of(model, pixel_values))
        assert torch.equal(logits[0], logits[1])
        assert not torch.equal(logits[0], logits[2])

    def test_threads_do_not_disturb_each_other(self):
        model = self.merging_model(proportional_attention=True)
        inputs = [draw_pixels(seed, batch_size=1 + seed % 3) for seed in range(4)]

        def run(pixel_values: torch.Tensor):
            with torch.no_grad():
                outputs = model(pixel_values, output_token_merging=True, output_hidden_states=True)
            return outputs.logits, outputs.token_merging.sources, *outputs.hidden_states

        expected = [run(pixel_values) for pixel_values in inputs]
        start = threading.Barrier(len(inputs))

        def run_often(pixel_values: torch.Tensor):
            start.wait()
            return [run(pixel_values) for _ in range(8)]

        with ThreadPoolExecutor(len(inputs)) as pool:
            results = list(pool.map(run_often, inputs))
        for own, repeated in zip(expected, results, strict=True):
            for outputs in repeated:
                assert len(own) == len(outputs)
                for a, b in zip(own, outputs, strict=True):
                    torch.testing.assert_close(a, b)

    @pytest.mark.parametrize("scope_index", [0, 1, -1])
    @pytest.mark.parametrize(("mode", "threshold"), DETERMINISTIC_MODES)
    def test_a_batch_gives_each_clip_what_it_would_get_alone(self, mode, threshold, scope_index):
        model = self.merging_model(
            mode=mode, threshold=threshold, scope=self.scopes[scope_index], proportional_attention=True
        ).double()
        pixel_values = draw_pixels(dtype=torch.float64)
        with torch.no_grad():
            together = model(pixel_values, output_token_merging=True)
            for index in range(BATCH_SIZE):
                alone = model(pixel_values[index : index + 1], output_token_merging=True)
                torch.testing.assert_close(together.logits[index], alone.logits[0])
                assert torch.equal(together.token_merging.sources[index], alone.token_merging.sources[0])

    # Clips with different numbers of tokens: padded to the longest one

    adaptive_threshold = 0.5

    def check_that_clips_are_alone(self, tolerance: float, pixel_values: torch.Tensor, **settings: Any) -> None:
        """Each clip of a padded batch gets what it would get alone, and the trace knows how long it is."""
        dtype, implementation = settings.pop("dtype", torch.float32), settings.pop("implementation", "sdpa")
        model = self.merging_model(implementation, **settings).to(dtype)
        asked = {"output_token_merging": True, "output_hidden_states": True}
        with torch.no_grad():
            together = model(pixel_values.to(dtype), **asked)
            counts = together.token_merging.clip_token_counts
            assert len(set(counts[:, -1].tolist())) > 1, "no clip is padded: the test would show nothing"
            assert together.logits.isfinite().all()
            for index in range(len(pixel_values)):
                alone = model(pixel_values[index : index + 1].to(dtype), **asked)
                trace = alone.token_merging
                difference = (together.logits[index] - alone.logits[0]).abs().max()
                assert difference <= tolerance * alone.logits.abs().max()
                assert counts[index].tolist() == trace.clip_token_counts[0].tolist()
                if dtype is torch.float32:
                    real = together.token_merging.sizes[index] > 0  # padding comes last in each frame
                    torch.testing.assert_close(together.token_merging.sizes[index, real], trace.sizes[0])
                    own, others = trace.sources[0], together.token_merging.sources[index]
                    assert torch.equal((real.cumsum(0) - 1)[others].where(others >= 0, -1), own)

    @pytest.fixture
    def uneven_clips(self) -> torch.Tensor:
        """Clips of which one is nearly the same everywhere, one is noise, and one is half of each."""
        pixel_values = draw_pixels()
        pixel_values[0] = 0.3 + 0.05 * pixel_values[0]  # not quite: equal scores would be put in order by rounding
        pixel_values[1, :, :, : pixel_values.shape[-2] // 2] *= 0.05
        return pixel_values

    @pytest.mark.usefixtures("uncompiled_flex_attention")
    @pytest.mark.parametrize(
        ("implementation", "mode"),  # flex attention, which is slow where it is not compiled, is told the same by all
        [*itertools.product(["eager", "sdpa"], ADAPTIVE_MODES), ("flex_attention", ADAPTIVE_MODES[0])],
    )
    @pytest.mark.parametrize("proportional_attention", [True, False])
    def test_a_padded_batch_gives_each_clip_what_it_would_get_alone(
        self, uneven_clips, implementation, mode, proportional_attention
    ):
        if implementation == "sdpa" and not self.architecture.head_class._supports_sdpa:
            pytest.skip("its soft-cap is left to others")
        with toy_methods():
            for scope in self.scopes:
                if scope == "frame":
                    continue
                settings = {
                    "implementation": implementation,
                    "mode": mode,
                    "threshold": self.adaptive_threshold,
                    "scope": scope,
                    "proportional_attention": proportional_attention,
                    "r": 10**6,
                }
                self.check_that_clips_are_alone(2e-5, uneven_clips, **settings)

    def test_a_padded_batch_in_bfloat16(self, uneven_clips):
        with toy_methods():
            self.check_that_clips_are_alone(
                0.05,
                uneven_clips,
                dtype=torch.bfloat16,
                implementation="eager",
                mode="above",
                threshold=self.adaptive_threshold,
                r=10**6,
            )

    @pytest.mark.parametrize("pooling", ["weighted", "mean"])
    def test_a_padded_input_is_merged_clip_by_clip(self, uneven_clips, pooling):
        model = self.merging_model()
        if not model.config.supports_input_stage:
            with pytest.raises(ValueError, match=r"token_merging_input must be None for this .*, got 'random'"):
                model.set_token_merging(input="random")
            return
        layout = model.config.token_layout
        with toy_methods():
            for mode, threshold in [*DETERMINISTIC_MODES, ("smallest", None)]:
                settings = {"mode": mode, "threshold": threshold, "pooling": pooling, "implementation": "eager"}
                settings |= {"input": "long", "input_keep": layout.num_frames * layout.num_patches - 1, "r": 3}
                self.check_that_clips_are_alone(2e-5, uneven_clips, **settings)

    def test_a_mode_that_reads_hidden_states_decides_after_the_attention(self, pixel_values):
        with toy_methods():
            for scope in self.scopes:
                self.check_token_counts(pixel_values, mode="smallest", r=3, scope=scope)
                model = self.merging_model(mode="smallest", r=3, scope=scope)
                assert logits_of(model, pixel_values).isfinite().all()

    def test_adaptive_modes_have_one_count_for_all_frames(self):
        with toy_methods(), pytest.raises(ValueError, match=r"token_merging_scope must be .*, got 'frame'"):
            self.merging_model(mode="above", threshold=0.5, scope="frame")

    # Numbers of tokens

    @pytest.mark.parametrize("schedule", ["constant", "decreasing", "increasing", 0.5])
    @pytest.mark.parametrize("r", [1, 3, 0.1, 0.5])
    def test_token_counts_are_known_before_running(self, pixel_values, r, schedule):
        for scope in self.scopes:
            self.check_token_counts(pixel_values, r=r, schedule=schedule, scope=scope)

    @pytest.mark.parametrize("r", [[2], [0, 3], [1, 0, 2], [0, 0, 10**6]])
    def test_token_counts_of_a_list(self, pixel_values, r):
        for scope in self.scopes:
            self.check_token_counts(pixel_values, r=r, scope=scope)

    def check_token_counts(self, pixel_values: torch.Tensor, **settings: Any) -> None:
        model = self.merging_model(**settings)
        with torch.no_grad():
            outputs = model(pixel_values, output_hidden_states=True, output_token_merging=True)
        counts = hf_video_tome.token_counts(model.config)
        assert counts == hf_video_tome.token_counts(model)
        assert counts == [states.shape[1] for states in self.sequences(outputs.hidden_states)]
        assert counts == list(outputs.token_merging.token_counts)
        assert outputs.logits.isfinite().all()

    @pytest.mark.parametrize(("mode", "threshold"), ALL_MODES)
    @pytest.mark.parametrize("r", [50, 10**9])
    def test_any_r_gives_a_result(self, pixel_values, r, mode, threshold):
        settings = {"r": r, "mode": mode, "threshold": threshold, "proportional_attention": True}
        for scope in self.scopes:
            self.check_token_counts(pixel_values, scope=scope, **settings)

    def test_one_layer_works(self, pixel_values):
        for schedule in ("constant", "decreasing", "increasing"):
            model = self.merging_model(schedule=schedule, config={self.layers_field: 1})
            assert logits_of(model, pixel_values).shape == (BATCH_SIZE, NUM_LABELS)

    # Settings

    @pytest.mark.parametrize(("mode", "threshold"), ALL_MODES)
    @pytest.mark.parametrize("head_aggregation", ["mean", "concat"])
    def test_every_setting_runs_and_keeps_the_invariants(self, pixel_values, mode, threshold, head_aggregation):
        for scope in self.scopes:
            for pooling in ("mean", "weighted"):
                model = self.merging_model(
                    mode=mode,
                    threshold=threshold,
                    head_aggregation=head_aggregation,
                    scope=scope,
                    pooling=pooling,
                    proportional_attention=True,
                )
                with torch.no_grad():
                    outputs = model(pixel_values, output_token_merging=True)
                assert outputs.logits.isfinite().all()
                self.check_invariants(model, outputs.token_merging, mode)

    @staticmethod
    def check_invariants(model: nn.Module, trace: hf_video_tome.TokenMergingTrace, mode: str) -> None:
        layout = model.config.token_layout
        for source, size in zip(trace.layer_sources, trace.layer_sizes, strict=True):
            assert source.dtype == torch.int64
            assert source.shape == (BATCH_SIZE, layout.num_tokens)
            assert size.shape[0] == BATCH_SIZE
            for held, sizes in zip(source, size, strict=True):
                counts = held[held >= 0].bincount(minlength=len(sizes))
                assert counts.min() >= 1
                if mode.endswith("drop"):
                    assert counts.max() == 1
                else:
                    assert counts.tolist() == sizes.tolist()
                if mode in ("merge", "random_merge"):
                    assert held.min() >= 0
                    assert sizes.sum() == layout.num_tokens
            if layout.num_prefix_tokens:
                assert (source[:, 0] == 0).all()
                assert (source[:, 1:] != 0).all()
                assert (size[:, 0] == 1).all()

    def test_the_defaults_are_those_of_the_architecture(self, pixel_values):
        by_default = self.merging_model()
        spelled_out = self.merging_model(
            scope=self.scopes[0],
            proportional_attention=self.proportional_attention,
            mode="merge",
            schedule="constant",
            head_aggregation="mean",
            pooling="weighted",
        )
        assert torch.equal(logits_of(by_default, pixel_values), logits_of(spelled_out, pixel_values))

    @pytest.mark.parametrize(
        "settings",
        [
            {"mode": "drop"},
            {"mode": "hybrid", "threshold": 0.9},
            {"schedule": "decreasing"},
            {"head_aggregation": "concat"},
        ],
        ids=str,
    )
    def test_every_setting_has_an_effect(self, pixel_values, settings):
        default, changed = self.merging_model(), self.merging_model(**settings)
        assert not torch.allclose(logits_of(default, pixel_values), logits_of(changed, pixel_values), atol=1e-4)

    def test_proportional_attention_and_scope_have_an_effect(self, pixel_values):
        on, off = (logits_of(self.merging_model(proportional_attention=p), pixel_values) for p in (True, False))
        assert not torch.allclose(on, off, atol=1e-4)
        logits = [logits_of(self.merging_model(scope=scope), pixel_values) for scope in self.scopes]
        for index, one in enumerate(logits):
            for other in logits[:index]:
                assert not torch.allclose(one, other, atol=1e-4)

    def test_the_settings_of_the_paper_run(self, pixel_values):
        model = self.merging_model(r=0)
        if not self.architecture.paper_settings:
            with pytest.raises(ValueError, match=rf"model_type must be one of .*got '{self.model_type}'"):
                hf_video_tome.paper_settings(self.model_type)
            return
        model.set_token_merging(**hf_video_tome.paper_settings(self.model_type))
        assert logits_of(model, pixel_values).isfinite().all()
        assert model.config.token_merging_pooling == "mean"

    def test_merging_tokens_that_are_all_the_same_changes_nothing(self):
        """With proportional attention and weighted pooling, a token of size s is exactly s equal tokens."""
        pixel_values = draw_pixels(dtype=torch.float64)[..., :1, :1].expand(*PIXEL_SHAPE).contiguous()
        # One colour for the whole clip: the frames are the same too.
        pixel_values = pixel_values[:, :1].expand(*PIXEL_SHAPE).contiguous()
        logits = []
        for r in (0, self.r, 10**6):
            model = self.merging_model(r=r, proportional_attention=True, pooling="weighted").double()
            for module in model.modules():
                for name in ("position_embeddings", "time_embeddings"):
                    embeddings = getattr(module, name, None)
                    if isinstance(embeddings, torch.Tensor):
                        zeros = torch.zeros_like(embeddings)
                        setattr(module, name, nn.Parameter(zeros) if isinstance(embeddings, nn.Parameter) else zeros)
            logits.append(logits_of(model, pixel_values))
        for merged in logits[1:]:  # eager attention rounds its weights to float32
            torch.testing.assert_close(merged, logits[0], rtol=1e-5, atol=1e-6)

    # Outputs

    @pytest.mark.parametrize(("mode", "threshold"), DETERMINISTIC_MODES)
    def test_hidden_states_unmerge_to_the_full_grid(self, pixel_values, mode, threshold):
        model = self.merging_model(mode=mode, threshold=threshold)
        with torch.no_grad():
            outputs = model(pixel_values, output_hidden_states=True, output_token_merging=True)
        trace = outputs.token_merging
        tokens, hidden_size = model.config.token_layout.num_tokens, model.config.hidden_size
        assert len(outputs.hidden_states) == self.num_layers + 1
        for layer, states in enumerate(self.sequences(outputs.hidden_states)):
            full = trace.unmerge(states, fill_value=math.pi)
            assert full.shape == (BATCH_SIZE, tokens, hidden_size)
            for b in range(BATCH_SIZE):
                for token in range(tokens):
                    holder = trace.layer_sources[layer][b, token]
                    expected = states[b, holder] if holder >= 0 else torch.full((hidden_size,), math.pi)
                    assert torch.equal(full[b, token], expected)
        with torch.no_grad():
            embeddings = self.stock_model()(pixel_values, output_hidden_states=True).hidden_states[0]
        assert torch.equal(outputs.hidden_states[0], embeddings)

    def test_attentions_have_the_tokens_of_their_layer(self, pixel_values):
        model = self.merging_model("eager", proportional_attention=True)
        with torch.no_grad():
            outputs = model(pixel_values, output_attentions=True)
            expected = logits_of(model, pixel_values)
        torch.testing.assert_close(outputs.logits, expected)  # heads that read CLS compute less where nothing is asked
        assert len(outputs.attentions) == self.num_layers
        for weights, tokens in zip(outputs.attentions, self.attended_tokens(model), strict=True):
            assert weights.shape[1:] == (model.config.num_attention_heads, tokens, tokens)
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))

    def attended_tokens(self, model: nn.Module) -> list[int]:
        """Tokens that attend to each other in each layer: all that came out of the layer before."""
        return hf_video_tome.token_counts(model)[:-1]

    @pytest.mark.parametrize("r", [0, None])
    def test_flags_in_the_config_count_as_those_of_the_call(self, pixel_values, r):
        model = self.merging_model(r=self.r if r is None else r)
        model.config.output_hidden_states = True
        with torch.no_grad():
            assert model(pixel_values).hidden_states is not None
            assert model(pixel_values, output_hidden_states=False).hidden_states is None
            expected = model(pixel_values).logits
            model.config.output_attentions = True
            assert len(model(pixel_values).attentions) == self.num_layers
            if r == 0:
                return  # the stock heads fail on return_dict=False in the config
            model.config.return_dict = False
            outputs = model(pixel_values)
        assert isinstance(outputs, tuple)
        assert torch.equal(outputs[0], expected)

    def test_a_tuple_holds_the_same_as_the_output_object(self, pixel_values):
        model = self.merging_model()
        arguments = {"labels": LABELS, "output_hidden_states": True, "output_token_merging": True}
        with torch.no_grad():
            as_object = model(pixel_values, **arguments)
            as_tuple = model(pixel_values, return_dict=False, **arguments)
            short = model(pixel_values, return_dict=False)
        assert isinstance(as_tuple, tuple)
        loss, logits, hidden_states, trace = as_tuple
        assert torch.equal(loss, as_object.loss)
        assert torch.equal(logits, as_object.logits)
        assert all(torch.equal(a, b) for a, b in zip(hidden_states, as_object.hidden_states, strict=True))
        assert torch.equal(trace.sources, as_object.token_merging.sources)
        assert isinstance(short, tuple)
        assert len(short) == 1
        torch.testing.assert_close(short[0], as_object.logits)

    def test_nothing_is_returned_that_was_not_asked_for(self, pixel_values):
        with torch.no_grad():
            outputs = self.merging_model()(pixel_values)
        assert set(outputs) == {"logits"}

    def test_labels_give_the_loss(self, pixel_values):
        outputs = self.merging_model()(pixel_values, labels=LABELS)
        torch.testing.assert_close(outputs.loss, nn.functional.cross_entropy(outputs.logits, LABELS))

    def test_the_base_model_merges_too(self, checkpoint, pixel_values):
        model = AutoModel.from_pretrained(checkpoint, token_merging_r=self.r).eval()
        assert type(model) is self.architecture.model_class
        with torch.no_grad():
            outputs = model(
                pixel_values, output_token_merging=True, output_hidden_states=True, **self.base_model_kwargs
            )
            as_tuple = model(pixel_values, return_dict=False, **self.base_model_kwargs)
        counts = hf_video_tome.token_counts(model)
        assert outputs.last_hidden_state.shape[1] == counts[-1] < counts[0]
        assert [states.shape[1] for states in self.sequences(outputs.hidden_states)] == counts
        assert outputs.token_sizes.shape == (BATCH_SIZE, counts[-1])
        assert torch.equal(outputs.token_sizes, outputs.token_merging.sizes)
        assert torch.equal(as_tuple[0], outputs.last_hidden_state)
        model.set_token_merging(r=0)
        stock = self.architecture.stock_model_class.from_pretrained(
            checkpoint,
            attn_implementation=model.config._attn_implementation
            if model.config._attn_implementation in self.stock_implementations
            else "eager",
        ).eval()
        with torch.no_grad():
            torch.testing.assert_close(
                model(pixel_values).last_hidden_state, stock(pixel_values).last_hidden_state, rtol=1e-4, atol=1e-5
            )

    # Training

    @pytest.mark.parametrize(("mode", "threshold"), ALL_MODES)
    def test_gradients_reach_every_parameter_that_they_reach_without_merging(self, pixel_values, mode, threshold):
        reached = []
        for model in (self.stock_model(), self.merging_model(mode=mode, threshold=threshold)):
            model.train()(pixel_values, labels=LABELS).loss.backward()
            gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
            assert all(gradient is None or gradient.isfinite().all() for gradient in gradients.values())
            reached.append({name for name, gradient in gradients.items() if gradient is not None and gradient.any()})
        assert reached[0] == reached[1]

    def test_gradients_reach_the_pixels(self, pixel_values):
        pixel_values.requires_grad_()
        self.merging_model()(pixel_values, labels=LABELS).loss.backward()
        # Merging keeps all content, so every patch of every frame has a say.
        patches = pixel_values.grad.unfold(3, 8, 8).unfold(4, 8, 8).abs().sum((2, -1, -2))
        assert (patches > 0).all()

    @pytest.mark.parametrize("use_reentrant", [True, False])
    @pytest.mark.parametrize(("mode", "dropout"), [("merge", 0.0), ("random_merge", 0.2)])
    def test_gradient_checkpointing_changes_nothing(self, pixel_values, use_reentrant, mode, dropout):
        results = []
        for checkpointing in (False, True):
            model = self.merging_model(
                mode=mode, proportional_attention=True, config={"hidden_dropout_prob": dropout}
            ).train()
            runs = []
            first_projection = next(m for n, m in model.named_modules() if n.endswith(("intermediate.dense", "fc1")))
            first_projection.register_forward_hook(lambda *_, runs=runs: runs.append(1))
            if checkpointing:
                model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
            torch.manual_seed(3)
            loss = model(pixel_values, labels=LABELS).loss
            loss.backward()
            results.append((loss.detach(), {n: p.grad for n, p in model.named_parameters()}))
            assert len(runs) == (2 if checkpointing else 1)  # the layer really ran again
        (loss, gradients), (checkpointed_loss, checkpointed_gradients) = results
        assert torch.equal(loss, checkpointed_loss)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, checkpointed_gradients[name], msg=name)

    def test_training_with_dropout_works(self, pixel_values):
        for implementation in self.implementations:
            self.check_dropout(pixel_values, implementation)

    def check_dropout(self, pixel_values: torch.Tensor, implementation: str) -> None:
        model = self.merging_model(
            implementation,
            proportional_attention=True,
            config={"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3},
        )
        torch.testing.assert_close(
            logits_of(model, pixel_values),
            logits_of(self.merging_model(implementation, proportional_attention=True), pixel_values),
        )
        model.train()
        first, second = (model(pixel_values, labels=LABELS).loss for _ in range(2))
        assert first.isfinite()
        assert first != second

    def test_a_step_of_training_lowers_the_loss(self, pixel_values):
        model = self.merging_model().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(pixel_values, labels=LABELS).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]

    # Precision

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_near(self, checkpoint, pixel_values, dtype):
        for implementation in self.implementations:
            self.check_half_precision(checkpoint, pixel_values, dtype, implementation)

    def check_half_precision(
        self, checkpoint: Path, pixel_values: torch.Tensor, dtype: torch.dtype, implementation: str
    ) -> None:
        settings = {"token_merging_r": self.r, "token_merging_proportional_attention": True}
        reference = AutoModelForVideoClassification.from_pretrained(
            checkpoint, attn_implementation=implementation, **settings
        )
        model = AutoModelForVideoClassification.from_pretrained(
            checkpoint, attn_implementation=implementation, dtype=dtype, **settings
        )
        with torch.no_grad():
            outputs = model(pixel_values.to(dtype), output_token_merging=True)
        assert outputs.logits.dtype == dtype
        self.check_invariants(model, outputs.token_merging, "merge")
        self.check_near(outputs.logits, logits_of(reference, pixel_values), dtype)

    def test_autocast_is_near(self, pixel_values):
        model = self.merging_model(self.implementations[-1], proportional_attention=True)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            outputs = model(pixel_values, labels=LABELS, output_token_merging=True)
        self.check_invariants(model, outputs.token_merging, "merge")
        self.check_near(outputs.logits, logits_of(model, pixel_values), torch.bfloat16)

    def test_autocast_trains(self, pixel_values):
        model = self.merging_model(self.implementations[-1], proportional_attention=True).train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(pixel_values, labels=LABELS).loss
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

    @staticmethod
    def check_near(logits: torch.Tensor, reference: torch.Tensor, dtype: torch.dtype) -> None:
        """Near, over the whole batch: here and there a rounded score makes another pair."""
        assert logits.isfinite().all()
        distance = (logits.float() - reference).norm() / reference.norm()
        assert distance < {torch.bfloat16: 0.15, torch.float16: 0.05}[dtype]

    # Attention implementations

    @pytest.mark.parametrize("proportional_attention", [True, False])
    def test_sdpa_equals_eager(self, pixel_values, proportional_attention):
        logits = [
            logits_of(self.merging_model(name, proportional_attention=proportional_attention), pixel_values)
            for name in ("eager", "sdpa")
        ]
        torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)

    def test_the_attention_implementation_can_be_changed_at_any_time(self, pixel_values):
        for model in (self.merging_model("eager"), hf_video_tome.apply_token_merging(self.stock_model(), r=self.r)):
            expected = logits_of(model, pixel_values)
            for implementation in ("sdpa", "eager"):
                model.set_attn_implementation(implementation)
                assert model.config._attn_implementation == implementation
                with torch.no_grad(), OperationCounter() as counter:
                    logits = model(pixel_values).logits
                fused = [name for name in counter.names if "scaled_dot_product" in name]
                assert bool(fused) == (implementation == "sdpa")
                torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)

    def test_the_attention_implementation_can_be_changed_whatever_the_stock_class_could(self, monkeypatch):
        """transformers caches on the class whether it can; a subclass must not inherit the answer of a stock class."""
        cached = "_can_set_attn_implementation_cached_value"
        stock_classes = (self.architecture.stock_head_class, self.architecture.stock_model_class)
        for model_class in (self.architecture.head_class, self.architecture.model_class, *stock_classes):
            if cached in vars(model_class):
                monkeypatch.delattr(model_class, cached)
        for model_class in stock_classes:
            answer = model_class._can_set_attn_implementation()
            delattr(model_class, cached)
            monkeypatch.setattr(model_class, cached, answer, raising=False)
        model = self.merging_model(self.implementations[-1])
        model.set_attn_implementation("eager")
        assert model.config._attn_implementation == "eager"

    @pytest.mark.usefixtures("uncompiled_flex_attention")
    def test_flex_attention_equals_eager(self, pixel_values):
        eager, flex = (self.merging_model(name, proportional_attention=True) for name in ("eager", "flex_attention"))
        assert flex.config._attn_implementation == "flex_attention"
        expected = logits_of(eager, pixel_values)
        torch.testing.assert_close(logits_of(flex, pixel_values), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.skipif(
        importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed: there is no error to see"
    )
    def test_missing_flash_attention_is_an_error(self, checkpoint):
        with pytest.raises(ImportError, match=r"(?i)flash"):
            AutoModelForVideoClassification.from_pretrained(
                checkpoint, attn_implementation="flash_attention_2", token_merging_r=self.r
            )

    # Changing a model that exists

    def test_settings_change_at_any_time_and_r_zero_brings_the_stock_model_back(self, pixel_values):
        stock, model = logits_of(self.stock_model(), pixel_values), self.merging_model(r=0)
        merged = logits_of(self.merging_model(), pixel_values)
        assert torch.equal(logits_of(model, pixel_values), stock)
        for change in (model.set_token_merging, lambda **s: hf_video_tome.set_token_merging(model, **s)):
            change(r=self.r)
            assert torch.equal(logits_of(model, pixel_values), merged)
            change(mode="drop")
            assert model.config.token_merging_r == self.r
            assert not torch.equal(logits_of(model, pixel_values), merged)
            change(r=0, mode="merge")
            assert torch.equal(logits_of(model, pixel_values), stock)

    def test_models_do_not_share_their_settings(self, checkpoint, pixel_values):
        config = self.architecture.stock_config_class.from_pretrained(checkpoint)
        models = [AutoModelForVideoClassification.from_pretrained(checkpoint, config=config) for _ in range(2)]
        models[0].set_token_merging(r=self.r)
        assert models[1].config.token_merging_r == 0
        assert not hasattr(config, "token_merging_r")

    def test_apply_gives_what_loading_gives(self, pixel_values):
        applied = hf_video_tome.apply_token_merging(self.stock_model(), r=self.r, mode="drop")
        loaded = self.merging_model(mode="drop")
        assert torch.equal(logits_of(applied, pixel_values), logits_of(loaded, pixel_values))
        assert [type(module) for module in applied.modules()] == [type(module) for module in loaded.modules()]
        assert type(applied.config) is self.architecture.config_class

    def test_an_applied_model_saves_what_a_loaded_one_saves(self, tmp_path):
        applied = hf_video_tome.apply_token_merging(self.stock_model(), r=self.r, mode="drop")
        applied.save_pretrained(tmp_path / "applied")
        self.merging_model(mode="drop").save_pretrained(tmp_path / "loaded")
        assert_same_files(tmp_path / "applied", tmp_path / "loaded")

    def test_apply_on_a_stock_instance_records_hidden_states_and_attentions(self, pixel_values):
        stock = self.stock_model()
        with torch.no_grad():
            stock(pixel_values)  # transformers may have prepared it by now
        model = hf_video_tome.apply_token_merging(stock, r=self.r)
        with torch.no_grad():
            outputs = model(pixel_values, output_hidden_states=True, output_attentions=True)
            counts = [states.shape[1] for states in self.sequences(outputs.hidden_states)]
            assert counts == hf_video_tome.token_counts(model)
            assert len(outputs.attentions) == self.num_layers
            model.set_token_merging(r=0)
            outputs = model(pixel_values, output_hidden_states=True, output_attentions=True)
            assert len(outputs.hidden_states) == self.num_layers + 1
            assert len(outputs.attentions) == self.num_layers

    def test_remove_undoes_apply(self, pixel_values):
        model = self.stock_model()
        with torch.no_grad():
            before = model(pixel_values, output_hidden_states=True, output_attentions=True)
        config, types = model.config.to_dict(), [type(module) for module in model.modules()]
        parameters = dict(model.named_parameters())
        calls = []
        layer = next(module for module in model.modules() if type(module).__name__.endswith("Layer"))
        layer.register_forward_hook(lambda *_: calls.append(1))

        assert hf_video_tome.apply_token_merging(model, r=self.r, mode="drop", scope=self.scopes[-1]) is model
        logits_of(model, pixel_values)
        assert len(calls) == 1
        assert hf_video_tome.remove_token_merging(model) is model

        assert [type(module) for module in model.modules()] == types
        assert type(model.config) is self.architecture.stock_config_class
        assert all(
            type(module.config) is self.architecture.stock_config_class
            for module in model.modules()
            if hasattr(module, "config")
        )
        assert model.config.to_dict() == config
        assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
        with torch.no_grad():
            after = model(pixel_values, output_hidden_states=True, output_attentions=True)
        assert len(calls) == 2
        assert torch.equal(after.logits, before.logits)
        for name in ("hidden_states", "attentions"):
            assert all(torch.equal(a, b) for a, b in zip(after[name], before[name], strict=True))

    def test_remove_works_on_a_loaded_model(self, checkpoint, pixel_values, tmp_path):
        model = AutoModelForVideoClassification.from_pretrained(checkpoint, token_merging_r=self.r).eval()
        hf_video_tome.remove_token_merging(model)
        assert type(model) is self.architecture.stock_head_class
        assert not {type(module) for module in model.modules()} & set(self.architecture.merging_classes.values())
        stock = self.architecture.stock_head_class.from_pretrained(checkpoint).eval()
        assert model.config._attn_implementation == stock.config._attn_implementation
        with torch.no_grad():
            outputs = model(pixel_values, output_hidden_states=True)
        assert torch.equal(logits_of(model, pixel_values), logits_of(stock, pixel_values))
        assert len(outputs.hidden_states) == self.num_layers + 1
        model.save_pretrained(tmp_path / "removed")
        stock.save_pretrained(tmp_path / "stock")
        assert_same_files(tmp_path / "removed", tmp_path / "stock")

    def test_remove_and_apply_are_harmless_when_repeated(self, pixel_values):
        model = self.stock_model()
        expected = logits_of(model, pixel_values)
        assert hf_video_tome.remove_token_merging(model) is model
        assert torch.equal(logits_of(model, pixel_values), expected)
        hf_video_tome.apply_token_merging(model, r=self.r)
        merged = logits_of(model, pixel_values)
        hf_video_tome.apply_token_merging(model)
        assert torch.equal(logits_of(model, pixel_values), merged)
        hf_video_tome.apply_token_merging(model, r=0)
        assert torch.equal(logits_of(model, pixel_values), expected)

    def test_a_setting_that_is_refused_leaves_a_stock_model_as_it_was(self, pixel_values):
        model = self.stock_model()
        expected, types = logits_of(model, pixel_values), [type(module) for module in model.modules()]
        with pytest.raises(ValueError, match="token_merging_mode"):
            hf_video_tome.apply_token_merging(model, r=self.r, mode="nonsense")
        assert [type(module) for module in model.modules()] == types
        assert type(model.config) is self.architecture.stock_config_class
        assert torch.equal(logits_of(model, pixel_values), expected)

    def test_set_refuses_a_stock_model_and_says_what_to_call(self):
        with pytest.raises(ValueError, match="apply_token_merging"):
            hf_video_tome.set_token_merging(self.stock_model(), r=1)

    def test_a_base_model_can_be_changed_too(self, pixel_values):
        torch.manual_seed(0)
        stock = self.architecture.stock_model_class(self.stock_config()).eval()
        model = hf_video_tome.apply_token_merging(copy.deepcopy(stock), r=self.r)
        with torch.no_grad():
            outputs = model(pixel_values, output_hidden_states=True, **self.base_model_kwargs)
            counts = [states.shape[1] for states in self.sequences(outputs.hidden_states)]
            assert counts == hf_video_tome.token_counts(model)
            hf_video_tome.remove_token_merging(model)
            assert type(model) is self.architecture.stock_model_class
            assert torch.equal(model(pixel_values).last_hidden_state, stock(pixel_values).last_hidden_state)

    def test_a_model_inside_a_wrapper_can_be_changed(self, pixel_values):
        class Wrapper(nn.Module):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.base_model = model

            def forward(self, *args: Any, **kwargs: Any):
                return self.base_model(*args, **kwargs)

        expected = logits_of(self.stock_model(), pixel_values)
        merged = logits_of(self.merging_model(), pixel_values)
        wrapper = Wrapper(Wrapper(self.stock_model()))
        assert hf_video_tome.apply_token_merging(wrapper, r=self.r) is wrapper
        assert torch.equal(logits_of(wrapper, pixel_values), merged)
        assert hf_video_tome.token_counts(wrapper) == hf_video_tome.token_counts(self.merging_model())
        hf_video_tome.set_token_merging(wrapper, r=0)
        assert torch.equal(logits_of(wrapper, pixel_values), expected)
        assert hf_video_tome.remove_token_merging(wrapper) is wrapper
        assert type(wrapper.base_model.base_model) is self.architecture.stock_head_class

    @pytest.mark.parametrize("way", ["deepcopy", "pickle"])
    @pytest.mark.parametrize("origin", ["class", "apply"])
    def test_copies_merge_and_are_independent(self, pixel_values, origin, way):
        model = (
            self.merging_model()
            if origin == "class"
            else hf_video_tome.apply_token_merging(self.stock_model(), r=self.r)
        )
        copied = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
        merged = logits_of(model, pixel_values)
        assert torch.equal(logits_of(copied, pixel_values), merged)
        copied.set_token_merging(r=0)
        assert torch.equal(logits_of(copied, pixel_values), logits_of(self.stock_model(), pixel_values))
        assert torch.equal(logits_of(model, pixel_values), merged)

    # Inputs that do not fit

    @pytest.mark.parametrize("r", [0, None])
    def test_clips_that_do_not_fit_are_refused(self, r):
        model = self.merging_model(r=self.r if r is None else r)
        for shape, expected, got in self.wrong_shapes:
            self.check_refusal(model, shape, expected, got)
            self.check_refusal(getattr(model, model.base_model_prefix), shape, expected, got)

    def check_refusal(self, model: nn.Module, shape: tuple[int, ...], expected: str, got: str) -> None:
        with pytest.raises(ValueError, match=rf"^{self.input_name} (do not fit|must have)") as error, torch.no_grad():
            model(torch.zeros(shape))
        assert expected in str(error.value)
        assert got in str(error.value)

    def test_no_clip_at_all_is_refused(self):
        with pytest.raises(ValueError, match=f"^{self.input_name} must be given"):
            self.merging_model()()

    def test_other_keywords_are_refused(self, checkpoint):
        with pytest.raises(TypeError, match="'token_mergin_r'"):
            AutoModelForVideoClassification.from_pretrained(checkpoint, token_mergin_r=self.r)
        with pytest.raises((TypeError, ValueError), match=r"token_merging_speed|'speed'"):
            AutoModelForVideoClassification.from_pretrained(checkpoint, token_merging_speed=self.r)


class DividedAttentionTesterMixin:
    """More contracts, of architectures that attend inside frames and along time: with "time" whole frames merge.

    Goes before `TokenMergingModelTesterMixin`.

    Attributes:
        counts_along_time: Token counts with scope "time" and r = 1.
    """

    counts_along_time: ClassVar[tuple[int, ...]]

    @pytest.mark.parametrize("r", [1, [0, 2], 10**6])
    def test_merging_equal_frames_changes_nothing(self, r):
        """Frames that show the same and do not know when count, merged, as often as they are there."""
        frame = draw_pixels(dtype=torch.float64)[:, :1]
        for implementation in self.implementations:
            model = self.merging_model(implementation, r=r, scope="time").double()
            nn.init.zeros_(model.base_model.embeddings.time_embeddings)
            pixel_values = frame.expand(-1, model.config.num_frames, -1, -1, -1)
            counts = hf_video_tome.token_counts(model)
            assert counts[-1] < counts[0]
            merged = logits_of(model, pixel_values)
            model.set_token_merging(r=0)
            unmerged = logits_of(model, pixel_values)
            torch.testing.assert_close(merged, unmerged)

    def test_weights_along_time_have_an_effect(self, pixel_values):
        on, off = (
            logits_of(self.merging_model(scope="time", r=1, proportional_attention=p), pixel_values)
            for p in (True, False)
        )
        assert not torch.allclose(on, off, atol=1e-4)

    def test_along_time_whole_frames_merge(self, pixel_values):
        model = self.merging_model(scope="time", r=1)
        layout = model.config.token_layout
        with torch.no_grad():
            outputs = model(pixel_values, output_token_merging=True, output_attentions=True)
        trace = outputs.token_merging
        assert list(trace.token_counts) == hf_video_tome.token_counts(model)
        assert trace.token_counts == self.counts_along_time
        _, size = layout.split(trace.sizes, "time")
        assert torch.equal(size, size[:, :1].expand_as(size))
        assert (size.sum(-1) == layout.num_frames).all()

    def test_one_frame_merges(self):
        num_frames = self.tiny_config.get("tubelet_size", 1)
        model = self.merging_model(config={"num_frames": num_frames})
        with torch.no_grad():
            trace = model(torch.randn(2, num_frames, 3, 32, 32), output_token_merging=True).token_merging
        assert trace.token_counts == (17, 14, 11, 8)
        assert (trace.sources[:, 1:] > 0).all()
