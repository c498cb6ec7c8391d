"""Settings of one call, of a `with` block, and of a config that another thread changes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import VideoMAEImageProcessor, pipeline

import hf_video_tome
from hf_video_tome import configuration
from hf_video_tome.models import ARCHITECTURES
from tests.data.video_samples import encode, numbered_frame
from tests.tiny import PIXEL_SHAPE, TINY_CONFIGS

CLIPS = torch.randn(PIXEL_SHAPE, generator=torch.Generator().manual_seed(0))


def make_model(model_type: str = "videomae", config: dict[str, Any] | None = None, **settings):
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    torch.manual_seed(0)
    architecture = ARCHITECTURES[model_type]
    config = architecture.config_class(**{**TINY_CONFIGS[model_type], **(config or {})}, **fields)
    return architecture.head_class(config).eval()


def quick_to_compile(**settings):
    return make_model(config={"num_hidden_layers": 1}, **settings)


@pytest.fixture(params=TINY_CONFIGS)
def model(request):
    return make_model(request.param, r=1)


def counts(model, **kwargs) -> tuple[int, ...]:
    """What really happened in a call."""
    with torch.no_grad():
        return model(CLIPS, output_token_merging=True, **kwargs).token_merging.token_counts


def counts_of(model, **settings) -> tuple[int, ...]:
    """What happens in a model that is set that way."""
    other = copy.deepcopy(model)
    other.set_token_merging(**settings)
    return counts(other)


def logits(model, **kwargs) -> torch.Tensor:
    with torch.no_grad():
        return model(CLIPS, **kwargs).logits


class TestSettingsOfOneCall:
    @pytest.mark.parametrize(
        "settings",
        [{"r": 3}, {"r": [2, 1]}, {"r": 0}, {"r": 0.2, "schedule": "decreasing"}, {"mode": "drop", "r": 3}],
        ids=str,
    )
    def test_are_those_of_a_model_that_is_set_that_way(self, model, settings):
        keywords = {f"token_merging_{name}": value for name, value in settings.items()}
        before = model.config.token_merging_settings()
        other = copy.deepcopy(model)
        other.set_token_merging(**settings)
        assert torch.equal(logits(model, **keywords), logits(other))
        assert counts(model, **keywords) == counts(other)
        assert model.config.token_merging_settings() == before

    def test_what_is_not_named_is_as_the_config_has_it(self):
        model = make_model(r=3, mode="drop", proportional_attention=True)
        other = make_model(r=5, mode="drop", proportional_attention=True)
        assert torch.equal(logits(model, token_merging_r=5), logits(other))

    def test_reach_the_base_model(self, model):
        kwargs = {"skip_predictor": True} if model.config.model_type == "vjepa2" else {}
        with torch.no_grad():
            out = model.base_model(CLIPS, token_merging_r=3, output_token_merging=True, **kwargs)
        assert out.token_merging.token_counts == counts_of(model, r=3)

    def test_of_the_pooling_are_for_the_head(self):
        model = make_model(r=5)
        assert torch.equal(logits(model, token_merging_pooling="mean"), logits(make_model(r=5, pooling="mean")))
        assert not torch.equal(logits(model, token_merging_pooling="mean"), logits(model))

    def test_with_a_wrong_name_are_refused(self, model):
        for part in (model, model.base_model):
            with pytest.raises(ValueError, match=r"^token_merging_rr is not a setting of .*: use token_merging_r,"):
                part(CLIPS, token_merging_rr=3)

    def test_out_of_range_are_refused(self, model):
        with pytest.raises(hf_video_tome.SettingError, match=r"^token_merging_r must be an int >= 0.*, got -3$"):
            model(CLIPS, token_merging_r=-3)
        with pytest.raises(hf_video_tome.SettingError, match=r"token_merging_threshold must.*'hybrid', got None"):
            model(CLIPS, token_merging_mode="hybrid")

    def test_go_through_wrappers(self):
        model = make_model(r=1)
        with torch.no_grad():
            out = nn.DataParallel(model)(CLIPS, token_merging_r=3, output_token_merging=True)
        assert out.token_merging.token_counts == counts_of(model, r=3)

    def test_compile_once_each(self):
        torch._dynamo.reset()
        model = quick_to_compile(r=1)
        counter = CompileCounterWithBackend("eager")
        compiled = torch.compile(model, fullgraph=True, backend=counter)
        for settings in ({"r": 3}, {"r": 0.2, "schedule": -0.3}, {"r": 3}):
            keywords = {f"token_merging_{name}": value for name, value in settings.items()}
            torch.testing.assert_close(logits(compiled, **keywords), logits(model, **keywords))
        assert counter.frame_count == 2

    def test_are_trained_with(self):
        model = make_model(r=1).train()
        model.gradient_checkpointing_enable()
        model(CLIPS, token_merging_r=3).logits.sum().backward()
        checkpointed = [parameter.grad.clone() for parameter in model.parameters()]
        other = make_model(r=3).train()
        other(CLIPS).logits.sum().backward()
        for gradient, parameter in zip(checkpointed, other.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad)


class TestSettingsOfABlock:
    def test_hold_inside_and_end_with_it(self, model):
        outside = counts(model)
        with model.token_merging(r=3):
            assert counts(model) == counts_of(model, r=3) != outside
        assert counts(model) == outside

    def test_inner_ones_come_first_and_those_of_the_call_before_all(self):
        model = make_model(r=1)
        with model.token_merging(r=2, mode="drop"):
            with model.token_merging(r=3):
                assert model.current_token_merging().get("mode") == "drop"
                assert counts(model) == counts_of(model, r=3)
                assert counts(model, token_merging_r=4) == counts_of(model, r=4)
            assert counts(model) == counts_of(model, r=2)

    def test_end_with_an_exception_too(self):
        model = make_model(r=1)
        with contextlib.suppress(ZeroDivisionError), model.token_merging(r=3):
            raise ZeroDivisionError
        assert counts(model) == counts_of(model, r=1)

    def test_are_seen_by_what_counts_before_running(self):
        model = make_model(r=1)
        expected = hf_video_tome.token_counts(make_model(r=3)), hf_video_tome.mac_count(make_model(r=3)).total
        with model.token_merging(r=3):
            assert (hf_video_tome.token_counts(model), hf_video_tome.mac_count(model).total) == expected
            assert hf_video_tome.mac_count(model, r=4).total == hf_video_tome.mac_count(make_model(r=4)).total
        assert hf_video_tome.token_counts(model) == hf_video_tome.token_counts(make_model(r=1))

    def test_are_for_that_model_alone(self):
        model, other = make_model(r=1), make_model(r=1)
        with model.token_merging(r=3):
            assert counts(other) == counts_of(other, r=1)

    def test_are_for_its_base_model_too_and_those_of_the_base_model_for_the_head(self):
        model = make_model(r=1)

        def base_counts():
            return model.base_model(CLIPS, output_token_merging=True).token_merging.token_counts

        for part in (model, model.base_model):
            with part.token_merging(r=3):
                assert counts(model) == base_counts() == counts_of(model, r=3)

    def test_of_wrappers_are_given_by_the_function(self):
        model = make_model(r=1)
        with hf_video_tome.token_merging(nn.DataParallel(model), r=3):
            assert counts(model) == counts_of(model, r=3)

    def test_of_a_stock_model_are_refused(self):
        model = hf_video_tome.remove_token_merging(make_model())
        with pytest.raises(ValueError, match="must be able to merge tokens, got a stock"):
            hf_video_tome.token_merging(model, r=3)

    def test_that_are_wrong_are_refused_before_anything_runs(self):
        model = make_model(r=1)
        with pytest.raises(ValueError, match="token_merging_speed is not a setting"):
            model.token_merging(speed=3)
        with pytest.raises(ValueError, match="token_merging_r must be"):
            model.token_merging(r=-1)
        with model.token_merging(mode="hybrid"):  # whether it goes with the rest is known when it is used
            assert counts(model, token_merging_threshold=0.5) == counts_of(model, mode="hybrid", threshold=0.5)

    def test_hold_in_the_pipeline(self, tmp_path):
        model = make_model(r=1)
        encode(tmp_path / "clip.mp4", [numbered_frame(number) for number in range(8)], "libx264")
        processor = VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        classify = pipeline("video-classification", model=model, image_processor=processor)
        expected, seen = [counts_of(model, r=3)[-1], counts_of(model, r=1)[-1]], []
        model.base_model.register_forward_hook(lambda module, inputs, output: seen.append(output[0].shape[1]))
        with model.token_merging(r=3):
            classify(str(tmp_path / "clip.mp4"))
        classify(str(tmp_path / "clip.mp4"))
        assert seen == expected

    def test_around_a_generator_do_not_stay_when_it_is_closed_elsewhere(self):
        model = make_model(r=1)

        def inside():
            with model.token_merging(r=3):
                yield

        generator = inside()
        next(generator)
        thread = threading.Thread(target=generator.close)
        thread.start()
        thread.join()
        assert counts(model) == counts_of(model, r=1)

    def test_hold_in_an_export(self):
        model = quick_to_compile(r=1)
        with model.token_merging(r=3):
            exported = torch.export.export(model, (CLIPS,), strict=False)
        torch.testing.assert_close(exported.module()(CLIPS).logits, logits(model, token_merging_r=3))


class TestBlocksAndCompiledModels:
    """A graph of torch.compile cannot tell whose call it is: a block around one is an error, never ignored."""

    @pytest.fixture(autouse=True)
    def no_graphs_of_other_tests(self):
        """They count towards dynamo's limit of graphs, after which it runs a model as it is."""
        torch._dynamo.reset()

    @pytest.mark.parametrize("fullgraph", [True, False])
    def test_a_call_inside_is_an_error(self, fullgraph):
        model = quick_to_compile(r=1)
        compiled = torch.compile(model, fullgraph=fullgraph, backend="eager")
        expected = logits(model)
        for _ in range(2):  # before there is a graph, and when there is one
            with model.token_merging(r=3):
                with pytest.raises(RuntimeError, match="settings of a with block do not reach compiled models"):
                    logits(compiled)
                assert counts(model) == counts_of(model, r=3)  # as it is, the model runs
            torch.testing.assert_close(logits(compiled), expected)

    def test_blocks_of_other_models_and_other_threads_are_none_of_its_business(self):
        model, other = quick_to_compile(r=1), quick_to_compile(r=1)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        expected = logits(model)
        torch.testing.assert_close(logits(compiled), expected)
        with other.token_merging(r=3):
            torch.testing.assert_close(logits(compiled), expected)
        with model.token_merging(r=3), ThreadPoolExecutor(1) as pool:
            torch.testing.assert_close(pool.submit(logits, compiled).result(), expected)

    def test_a_model_compiled_in_place_is_refused_at_once(self):
        model = quick_to_compile(r=1)
        model.compile(backend="eager")
        with pytest.raises(RuntimeError, match="do not reach compiled models"):
            model.token_merging(r=3)
        with pytest.raises(RuntimeError, match="do not reach compiled models"):
            hf_video_tome.token_merging(torch.compile(quick_to_compile()), r=3)


class TestThreadsAndTasks:
    def test_each_thread_gets_what_it_asked_for(self):
        """A server: every request has its own r, on one model."""
        model = make_model()
        expected = {r: (counts_of(model, r=r), logits(model, token_merging_r=r)) for r in (0, 2, 3, 5)}
        barrier = threading.Barrier(4)

        def serve(r: int) -> list[bool]:
            barrier.wait()
            right = []
            for turn in range(15):
                if turn % 2:
                    out = model(CLIPS, output_token_merging=True, token_merging_r=r)
                else:
                    with model.token_merging(r=r):
                        out = model(CLIPS, output_token_merging=True)
                right.append(out.token_merging.token_counts == expected[r][0])
                right.append(torch.allclose(out.logits, expected[r][1], atol=1e-5))
            return right

        with torch.no_grad(), ThreadPoolExecutor(4) as pool:
            assert all(all(right) for right in pool.map(serve, expected))

    def test_each_task_of_one_thread_gets_what_it_asked_for(self):
        model = make_model(r=1)
        expected = {r: counts_of(model, r=r) for r in (1, 3, 5)}

        async def serve(r: int) -> list[tuple[int, ...]]:
            seen = []
            with model.token_merging(r=r):
                for _ in range(4):
                    await asyncio.sleep(0)  # lets the other tasks run, inside their own blocks
                    seen.append(counts(model))
            return seen

        async def serve_all():
            return await asyncio.gather(*map(serve, expected))

        for r, seen in zip(expected, asyncio.run(serve_all()), strict=True):
            assert seen == [expected[r]] * 4

    def test_threads_started_inside_a_block_do_not_see_it(self):
        model = make_model(r=1)
        with model.token_merging(r=3), ThreadPoolExecutor(1) as pool:
            assert pool.submit(counts, model).result() == counts_of(model, r=1)


class TestOnePlanIsMadeOfOneObject:
    def test_settings_that_change_while_a_plan_is_made_are_for_the_next_one(self, model, monkeypatch):
        """Another thread, at the worst moment: between what reads r and what reads the rest."""
        expected = model.config.token_merging_plan()
        real = configuration.requested_removals

        def interrupted(*args, **kwargs):
            monkeypatch.undo()
            requested = real(*args, **kwargs)
            model.set_token_merging(r=0, mode="drop", head_aggregation="concat")
            return requested

        monkeypatch.setattr(configuration, "requested_removals", interrupted)
        assert model.config.token_merging_plan() == expected
        assert model.config.token_merging_mode == "drop"

    def test_plans_never_mix_what_other_threads_set(self):
        config = make_model().config
        choices = [
            {"r": 0, "mode": "merge", "threshold": None, "schedule": "constant"},
            {"r": [3, 2], "mode": "hybrid", "threshold": 0.5, "schedule": "constant"},
            {"r": 5, "mode": "drop", "threshold": None, "schedule": "decreasing"},
        ]
        allowed = []
        for choice in choices:
            config.update_token_merging(**choice)
            allowed.append(config.token_merging_plan())
        stop = threading.Event()

        def change():
            while not stop.is_set():
                for choice in choices:
                    config.update_token_merging(**choice)

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        thread = threading.Thread(target=change)
        thread.start()
        try:
            plans = [config.token_merging_plan() for _ in range(3000)]
        finally:
            stop.set()
            thread.join()
            sys.setswitchinterval(before)
        assert all(plan in allowed for plan in plans)

    def test_changes_of_several_threads_are_all_kept(self):
        config = make_model().config
        fields = {"r": 5, "mode": "drop", "pooling": "mean", "head_aggregation": "concat"}
        for _ in range(50):
            config.update_token_merging(r=0, mode="merge", pooling="weighted", head_aggregation="mean")
            with ThreadPoolExecutor(len(fields)) as pool:
                list(pool.map(lambda item: config.update_token_merging(**dict([item])), fields.items()))
            assert {name: config.token_merging_settings()[name] for name in fields} == fields

    def test_what_is_saved_is_made_of_one_object(self, monkeypatch):
        config = make_model(r=5, mode="drop").config
        expected = {name: value for name, value in config.to_dict().items() if name.startswith("token_merging")}
        real = config._architecture_choices

        def interrupted(*args):
            config.update_token_merging(r=0, mode="merge", pooling="mean")
            return real(*args)

        monkeypatch.setattr(type(config), "_architecture_choices", lambda self, *args: interrupted(*args))
        assert {
            name: value for name, value in config.to_dict().items() if name.startswith("token_merging")
        } == expected

    def test_pickles_of_earlier_versions_keep_their_settings(self):
        config = make_model().config
        state = {**config.__dict__, "token_merging_r": 5, "token_merging_mode": "drop"}
        del state["_token_merging_settings"]
        restored = type(config).__new__(type(config))
        restored.__setstate__(state)
        assert restored.token_merging_plan() == make_model(r=5, mode="drop").config.token_merging_plan()
        restored.update_token_merging(r=3)
        assert restored.token_merging_r == 3

    def test_the_object_cannot_be_changed(self):
        config = make_model(r=[4, 2]).config
        settings = config.token_merging
        with pytest.raises(FrozenInstanceError):
            settings.r = 3
        config.token_merging_r.append(9)
        assert config.token_merging_r == [4, 2]
        config.token_merging_r = 5
        assert settings.r == (4, 2)
