"""What enters the first layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import hf_video_tome
from hf_video_tome.merging import INPUT_STAGES, InputContext, TokenLayout, keep_tokens, register_input_stage
from hf_video_tome.models import ARCHITECTURES
from tests.models.common import draw_pixels, logits_of
from tests.tiny import TINY_CONFIGS
from tests.toys import toy_methods

JOINT = ("videomae", "vivit", "vjepa2")
PATCHES, FRAMES = 16, 2


def build(model_type: str, layers: int = 3, **settings: Any) -> Any:
    torch.manual_seed(0)
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    architecture = ARCHITECTURES[model_type]
    return architecture.head_class(
        architecture.config_class(**{**TINY_CONFIGS[model_type], "num_hidden_layers": layers}, **fields)
    ).eval()


@pytest.mark.parametrize("model_type", JOINT)
class TestEveryJointModel:
    def test_all_kept_is_the_stock_model(self, model_type):
        expected = logits_of(build(model_type), draw_pixels())
        for keep in (1.0, PATCHES * FRAMES, 10**6):
            assert torch.equal(logits_of(build(model_type, input="random", input_keep=keep), draw_pixels()), expected)

    @pytest.mark.parametrize(
        ("keep", "kept"), [(None, 21), (0.75, 24), (0.5, 16), (0.1, 16), (PATCHES, PATCHES), (20, 20)]
    )
    def test_it_keeps_what_it_is_told(self, model_type, keep, kept):
        model = build(model_type, input="random", input_keep=keep, r=2)
        prefix = model.config.token_layout.num_prefix_tokens
        with torch.no_grad():
            outputs = model(draw_pixels(), output_hidden_states=True, output_token_merging=True)
        counts = hf_video_tome.token_counts(model)
        assert counts[:2] == [prefix + kept, prefix + kept - 2]
        assert counts == [states.shape[1] for states in outputs.hidden_states]
        trace = outputs.token_merging
        assert trace.token_counts == (prefix + PATCHES * FRAMES, *counts[1:])
        for layer in range(1, len(counts)):
            assert (trace.layer_sources[layer] >= 0).sum(dim=1).tolist() == [prefix + kept] * 3
            restored = trace.unmerge(outputs.hidden_states[layer], layer=layer)
            assert restored.shape[1] == prefix + PATCHES * FRAMES

    def test_a_share_as_r_is_one_of_the_tokens_that_enter(self, model_type):
        model = build(model_type, input="random", input_keep=20, r=[0.1, 0.5])
        prefix = model.config.token_layout.num_prefix_tokens
        assert hf_video_tome.token_counts(model)[:3] == [prefix + 20, prefix + 18, prefix + 9]

    def test_fewer_tokens_need_fewer_operations(self, model_type):
        whole, half = (
            hf_video_tome.mac_count(build(model_type, input="random", input_keep=x)).total for x in (1.0, 0.5)
        )
        assert half < 0.7 * whole

    def test_it_compiles_to_one_graph(self, model_type):
        torch._dynamo.reset()
        model = build(model_type, layers=1, input="random", input_keep=20, r=2)
        with torch.no_grad():
            logits = torch.compile(model, fullgraph=True, backend="eager")(draw_pixels()).logits
        assert logits.isfinite().all()

    def test_what_is_left_out_has_no_influence(self, model_type):
        def first(context: InputContext):
            kept = torch.arange(context.keep).expand(len(context.embeddings), -1)
            return keep_tokens(kept, context.embeddings.shape[1])

        register_input_stage("first")(first)
        try:
            model = build(model_type, input="first", input_keep=PATCHES, r=0)
            changed = draw_pixels()
            changed[:, changed.shape[1] // FRAMES :] = 7.0  # the second slot is not seen
            assert torch.equal(logits_of(model, draw_pixels()), logits_of(model, changed))
        finally:
            del INPUT_STAGES["first"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "above", "threshold": 0.5, "r": 5}, "removes a number that depends on the clip"),
        ({"input": "long"}, "keeps a number of tokens that depends on the clip"),
    ],
)
def test_what_depends_on_content_is_not_compiled(settings, message):
    torch._dynamo.reset()
    with toy_methods():
        model = build("videomae", layers=1, **settings)
        with pytest.raises(Exception, match=message):
            torch.export.export(model, (draw_pixels(),), strict=False)
        with pytest.raises(Exception, match=message):
            torch.compile(model, fullgraph=True, backend="eager")(draw_pixels())


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="input_keep must be a share, or at least the 16 tokens of a frame, got 15"):
        build("videomae", input="random", input_keep=15)


@pytest.mark.parametrize("scope", ["frame", "tube", "time"])
def test_the_grid_is_gone(scope):
    with pytest.raises(ValueError, match=f"scope must be 'clip' with token_merging_input.*got '{scope}'"):
        build("videomae", input="random", scope=scope)


def test_masked_inputs_are_refused():
    model = build("videomae", input="random").videomae
    masked = torch.zeros(3, PATCHES * FRAMES, dtype=torch.bool)
    masked[:, ::2] = True
    with pytest.raises(ValueError, match="does not support masked inputs"):
        model(draw_pixels(), bool_masked_pos=masked)


@pytest.mark.parametrize("seed", range(3))
def test_kept_tokens_are_random_and_in_order(seed):
    torch.manual_seed(seed)
    context = InputContext(torch.zeros(4, 32, 2), None, TokenLayout(0, 2, 16), 20)
    owner = INPUT_STAGES["random"].assign(context).owner[:, 0]
    assert torch.equal(owner, owner.sort(dim=-1).values)
    assert len({tuple(row) for row in owner.tolist()}) == 4
    again = INPUT_STAGES["random"].assign(context._replace(generator=torch.Generator().manual_seed(seed))).owner
    assert torch.equal(
        again, INPUT_STAGES["random"].assign(context._replace(generator=torch.Generator().manual_seed(seed))).owner
    )
