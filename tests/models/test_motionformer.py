from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.conversion.state_dict import convert_original_state_dict
from hf_video_tome.models.motionformer import plain
from tests.tiny import BATCH_SIZE, NUM_LABELS, TINY_CONFIGS

from .common import DividedAttentionTesterMixin, TokenMergingModelTesterMixin, draw_pixels, logits_of

GOLDEN = Path(__file__).parent.parent / "golden" / "motionformer"
GROUPS = {"verb": [0, 3], "noun": [3, NUM_LABELS]}


class TestMotionformer(DividedAttentionTesterMixin, TokenMergingModelTesterMixin):
    model_type = "motionformer"
    tiny_config = TINY_CONFIGS["motionformer"]
    scopes = ("tube", "frame", "time")
    proportional_attention = True
    r = 3
    counts_along_time = (33, 17, 17, 17)

    # transformers has no Motionformer: in its place is the plain model of this package.

    def test_plain_transformers_loads_a_merged_checkpoint_unmerged(
        self, checkpoint, tmp_path, pixel_values, stock_transformers
    ):
        model = AutoModelForVideoClassification.from_pretrained(checkpoint, token_merging_r=self.r)
        model.save_pretrained(tmp_path / "merged")
        loaded, info = plain.MotionformerForVideoClassification.from_pretrained(
            tmp_path / "merged", output_loading_info=True, attn_implementation="eager"
        )
        assert not any(info.values()), info
        assert torch.equal(logits_of(loaded, pixel_values), logits_of(self.stock_model(), pixel_values))
        answer = stock_transformers(tmp_path / "merged", pixel_values)
        assert answer["error"] == "ValueError"
        assert "motionformer" in answer["message"]

    def test_plain_transformers_refuses_the_flag(self, checkpoint):
        with pytest.raises(TypeError, match="unexpected keyword argument 'token_merging_r'"):
            plain.MotionformerForVideoClassification.from_pretrained(checkpoint, token_merging_r=self.r)

    # The plain model

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    @pytest.mark.parametrize("original_values", [True, False])
    def test_attention_is_that_of_the_paper(self, original_values, implementation):
        """The formulas as they stand, with every weight materialised."""
        config = {"use_original_trajectory_values": original_values}
        attention = self.stock_model(implementation, **config).double().motionformer.layers[0].attention
        nn.init.normal_(attention.qkv.bias)
        if not original_values:
            nn.init.normal_(attention.temporal_attention.value_bias)
        x = torch.randn(BATCH_SIZE, 33, 32, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(attention(x)[0], as_written_in_the_paper(attention, x))

    @pytest.mark.parametrize("r", [0, [3, 2]])  # the last layer attends to merged tokens and merges none
    def test_attentions_are_the_weights_of_the_values(self, pixel_values, r):
        """Of both steps together: with the original values, output = weights @ values."""
        model = self.merging_model(r=r)
        attention = model.motionformer.layers[-1].attention
        seen = []
        attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        attention.o_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            weights = model(pixel_values, output_attentions=True).attentions[-1]
            value = attention.project(seen[0])[2]
        torch.testing.assert_close((weights @ value).transpose(1, 2).flatten(2), seen[1])
        assert not weights[:, :, 1:, 0].any()

    def test_tokens_of_a_frame_may_come_in_any_order(self):
        attention = self.stock_model().motionformer.layers[0].attention
        x = torch.randn(BATCH_SIZE, 33, 32)
        order = torch.cat((torch.tensor([0]), 1 + torch.randperm(16), 17 + torch.randperm(16)))
        with torch.no_grad():
            torch.testing.assert_close(attention(x[:, order])[0], attention(x)[0][:, order], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("flag", ["use_pre_logits", "qkv_bias", "use_original_trajectory_values"])
    @pytest.mark.parametrize("value", [True, False])
    def test_variants_run_merge_and_load(self, tmp_path, pixel_values, flag, value):
        stock = self.stock_model(**{flag: value})
        stock.save_pretrained(tmp_path)
        model, info = AutoModelForVideoClassification.from_pretrained(
            tmp_path, token_merging_r=self.r, attn_implementation="eager", output_loading_info=True
        )
        assert not any(info.values()), info
        merged = logits_of(model, pixel_values)
        model.set_token_merging(r=0)
        assert torch.equal(logits_of(model, pixel_values), logits_of(stock, pixel_values))
        assert not torch.allclose(logits_of(model, pixel_values), merged, atol=1e-4)

    def test_the_values_of_the_trajectory_have_an_effect(self, pixel_values):
        stock = self.stock_model(use_original_trajectory_values=False)
        assert not torch.allclose(logits_of(stock, pixel_values), logits_of(self.stock_model(), pixel_values))

    def test_every_parameter_has_a_gradient(self, pixel_values):
        """None is left over, so that distributed training need not look for them."""
        for original_values in (True, False):
            model = self.stock_model(use_original_trajectory_values=original_values).train()
            model(pixel_values, labels=torch.tensor([1, 0, 5])).loss.backward()
            assert all(parameter.grad is not None for parameter in model.parameters())

    def test_drop_path_grows_with_depth_and_trains(self, pixel_values):
        model = self.merging_model(config={"drop_path_rate": 0.4}).train()
        assert [layer.drop_path.drop_prob for layer in model.motionformer.layers] == [0.0, 0.2, 0.4]
        first, second = (model(pixel_values).logits for _ in range(2))
        assert first.isfinite().all()
        assert not torch.equal(first, second)
        model.eval()
        assert torch.equal(logits_of(model, pixel_values), logits_of(self.merging_model(), pixel_values))

    def test_drop_path_leaves_out_whole_clips_and_keeps_the_mean(self):
        drop_path = plain.modeling_motionformer.MotionformerDropPath(0.25).train()
        torch.manual_seed(0)
        kept = drop_path(torch.ones(4000, 2, 3))
        assert sorted(set(kept.flatten().tolist())) == pytest.approx([0, 4 / 3])
        assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
        assert kept.mean().item() == pytest.approx(1, abs=0.03)

    # Memory

    def test_fused_attention_never_holds_the_weights_of_all_tokens_to_all(self):
        config = {"image_size": 128, "num_hidden_layers": 1, "num_frames": 8}
        tokens = 1 + 4 * 256
        pixel_values = torch.randn(1, 8, 3, 128, 128)
        largest = {}
        for implementation in ("eager", "sdpa"):
            for r in (0, 16):
                model = self.merging_model(implementation, r=r, config=config)
                with torch.no_grad(), LargestTensor() as counter:
                    model(pixel_values, output_hidden_states=True)  # all of the last layer
                largest[implementation, r] = counter.elements
        all_to_all = self.tiny_config["num_attention_heads"] * tokens**2
        assert min(largest["eager", 0], largest["eager", 16]) >= 0.99 * all_to_all
        assert max(largest["sdpa", 0], largest["sdpa", 16]) < 0.1 * all_to_all

    # Frames of other sizes

    @pytest.mark.parametrize("r", [0, 3])
    @pytest.mark.parametrize("size", [(48, 48), (32, 64), (16, 24)])
    def test_positions_are_interpolated_for_other_sizes(self, size, r):
        pixel_values = torch.randn(2, 4, 3, *size)
        model = self.merging_model(r=r)
        with pytest.raises(ValueError, match="pixel_values"):
            model(pixel_values)
        with torch.no_grad():
            outputs = model(pixel_values, interpolate_pos_encoding=True, output_token_merging=True)
        patches = size[0] // 8 * size[1] // 8
        assert outputs.logits.isfinite().all()
        assert outputs.token_merging.token_counts[0] == 1 + 2 * patches
        assert outputs.token_merging.token_counts[1] == 1 + 2 * (patches - min(r, patches // 2))
        self.stock_model()(pixel_values, interpolate_pos_encoding=True)
        with pytest.raises(ValueError, match=rf"32 x 32.*interpolate_pos_encoding=True, got {size[0]} x {size[1]}"):
            self.stock_model()(pixel_values)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_interpolation_keeps_what_is_even_and_leaves_the_own_size_alone(self, dtype):
        embeddings = self.stock_model().to(dtype).motionformer.embeddings
        assert torch.equal(embeddings.interpolate_pos_encoding(4, 4), embeddings.position_embeddings[:, 1:])
        nn.init.constant_(embeddings.position_embeddings, 0.5)
        positions = embeddings.interpolate_pos_encoding(6, 3)
        assert positions.shape == (1, 18, 32)
        assert positions.dtype == dtype
        torch.testing.assert_close(positions, torch.full_like(positions, 0.5))

    def test_interpolation_keeps_rows_and_columns_apart(self):
        embeddings = self.stock_model().motionformer.embeddings
        rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        with torch.no_grad():
            embeddings.position_embeddings[0, 1:, 0] = rows.flatten()
            embeddings.position_embeddings[0, 1:, 1] = columns.flatten()
        grid = embeddings.interpolate_pos_encoding(8, 6).unflatten(1, (8, 6))[0]
        assert (grid[1:, :, 0] > grid[:-1, :, 0]).all()
        assert (grid[:, 1:, 1] > grid[:, :-1, 1]).all()
        torch.testing.assert_close(grid[:, :1, 0].expand(-1, 6), grid[..., 0])

    def test_oblong_frames(self):
        config = {"image_size": [32, 64], "patch_size": [8, 16]}
        pixel_values = torch.randn(2, 4, 3, 32, 64)
        model = self.merging_model(config=config)
        with torch.no_grad():
            trace = model(pixel_values, output_token_merging=True).token_merging
        assert trace.token_counts[0] == 1 + 2 * 4 * 4
        assert hf_video_tome.token_counts(model) == list(trace.token_counts)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 6, 3, 32, 32), "pixel_values must have num_frames=4, got 6"),
            ((1, 5, 3, 32, 32), "pixel_values must have num_frames=4, got 5"),
            ((1, 1, 3, 32, 32), "pixel_values must have num_frames=4, got 1"),
            ((1, 4, 1, 32, 32), r"pixel_values must have num_channels=3, got 1 in shape \(1, 4, 1, 32, 32\)"),
            ((4, 3, 32, 32), r"pixel_values must have 5 dimensions .*, got shape \(4, 3, 32, 32\)"),
            ((1, 4, 3, 4, 32), "frames of at least one patch, 8 x 8 pixels, got 4 x 32"),
        ],
    )
    def test_the_plain_model_refuses_clips_that_do_not_fit(self, shape, message):
        with pytest.raises(ValueError, match=message):
            self.stock_model()(torch.randn(shape), interpolate_pos_encoding=True)

    # Heads that answer several tasks

    @pytest.mark.parametrize("r", [0, 3])
    def test_the_loss_of_two_tasks_is_the_sum_of_theirs(self, pixel_values, r):
        model = self.merging_model(r=r, config={"label_groups": GROUPS})
        labels = torch.tensor([[1, 0], [2, 3], [0, -100]])
        outputs = model(pixel_values, labels=labels)
        verbs, nouns = outputs.logits.split([3, 4], dim=1)
        expected = nn.functional.cross_entropy(verbs, labels[:, 0]) + nn.functional.cross_entropy(nouns, labels[:, 1])
        torch.testing.assert_close(outputs.loss, expected)
        stock = self.stock_model(label_groups=GROUPS)(pixel_values, labels=labels)
        assert torch.equal(stock.loss, outputs.loss) == (r == 0)

    def test_a_task_without_a_label_adds_nothing(self, pixel_values):
        model = self.merging_model(config={"label_groups": GROUPS})
        labels = torch.tensor([[1, -100], [2, -100], [-100, -100]])
        outputs = model(pixel_values, labels=labels)
        expected = nn.functional.cross_entropy(outputs.logits[:, :3], labels[:, 0])
        assert torch.equal(outputs.loss, expected)
        outputs.loss.backward()
        gradient = model.classifier.weight.grad
        assert gradient.isfinite().all()
        assert gradient[:3].any()
        assert not gradient[3:].any()

    def test_without_any_label_the_loss_is_that_of_torch(self, pixel_values):
        labels = torch.full((3, 2), -100)
        assert self.merging_model(config={"label_groups": GROUPS})(pixel_values, labels=labels).loss.isnan()
        assert self.merging_model()(pixel_values, labels=labels[:, 0]).loss.isnan()
        model = self.merging_model(config={"label_groups": GROUPS})
        assert model(pixel_values, labels=labels, num_items_in_batch=6).loss == 0

    def test_the_loss_is_chosen_by_the_config_as_it_is(self, pixel_values):
        for model in (self.merging_model(), self.stock_model()):
            one, several = torch.tensor([1, 4, 2]), torch.tensor([[1, 1], [0, 2], [2, 0]])
            expected = nn.functional.cross_entropy(logits_of(model, pixel_values), one)
            torch.testing.assert_close(model(pixel_values, labels=one).loss, expected)
            model.config.label_groups = GROUPS
            assert model.loss_function is plain.modeling_motionformer.label_groups_loss
            assert model(pixel_values, labels=several).loss > 0
            model.config.label_groups = None
            torch.testing.assert_close(model(pixel_values, labels=one).loss, expected)
            model.config.label_groups = GROUPS
            model.loss_function = lambda labels, logits, config, **kwargs: logits.sum()  # one that was set stays
            # With gradients the whole last layer runs, which may round otherwise.
            torch.testing.assert_close(model(pixel_values, labels=several).loss, logits_of(model, pixel_values).sum())

    def test_the_loss_of_two_tasks_is_divided_by_the_clips_of_all_batches(self, pixel_values):
        model = self.merging_model(config={"label_groups": GROUPS})
        labels = torch.tensor([[1, 0], [2, 3], [0, 1]])
        expected = model(pixel_values, labels=labels).loss
        torch.testing.assert_close(model(pixel_values, labels=labels, num_items_in_batch=12).loss, expected / 2)

    @pytest.mark.parametrize("labels", [torch.tensor([1, 0, 2]), torch.zeros(3, 3, dtype=torch.int64)])
    def test_labels_that_do_not_fit_the_groups_are_refused(self, pixel_values, labels):
        model = self.merging_model(config={"label_groups": GROUPS})
        with pytest.raises(ValueError, match=r"labels must have one column for each.*\(3, 2\)"):
            model(pixel_values, labels=labels)

    def test_groups_survive_saving_apply_and_remove(self, tmp_path, pixel_values):
        labels = torch.tensor([[1, 0], [2, 3], [0, 1]])
        stock = self.stock_model(label_groups=GROUPS)
        expected = stock(pixel_values, labels=labels).loss
        stock.save_pretrained(tmp_path)
        loaded = AutoModelForVideoClassification.from_pretrained(tmp_path)
        assert loaded.config.label_groups == GROUPS
        torch.testing.assert_close(loaded(pixel_values, labels=labels).loss, expected)
        hf_video_tome.apply_token_merging(stock)
        assert torch.equal(stock(pixel_values, labels=labels).loss, expected)
        hf_video_tome.remove_token_merging(stock)
        assert torch.equal(stock(pixel_values, labels=labels).loss, expected)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"label_groups": {"verb": [0, 3], "noun": [4, 7]}}, "label_groups must map"),
            ({"label_groups": {"verb": [0, 3, 7]}}, "label_groups must map"),
            ({"label_groups": {"verb": [0, 7], "noun": []}}, "label_groups"),
            ({"label_groups": {"verb": [0, 7], "noun": [7, 7]}}, "label_groups must map"),
            ({"label_groups": {"verb": 7}}, "label_groups"),
            ({"label_groups": {}}, "label_groups must map"),
            ({"num_frames": 4.5}, "num_frames"),
            ({"hidden_size": 30}, "hidden_size must be a multiple of num_attention_heads=4, got 30"),
            ({"num_frames": 5}, "num_frames must be a multiple of tubelet_size=2, got 5"),
            ({"tubelet_size": 0}, "tubelet_size must be at least 1, got 0"),
            ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
            ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
            ({"patch_size": 0}, r"patch_size must be an int of at least 1, or two .*, got 0"),
            ({"patch_size": [8, 8, 8]}, r"patch_size must be an int of at least 1, or two .*, got \[8, 8, 8\]"),
            ({"image_size": [32, 4]}, r"image_size must be at least patch_size=8, got \[32, 4\]"),
        ],
        ids=str,
    )
    def test_configs_that_do_not_fit_are_refused(self, fields, message):
        for config_class in (self.architecture.stock_config_class, self.architecture.config_class):
            with pytest.raises((ValueError, StrictDataclassError), match=message):
                config_class(**{**self.tiny_config, **fields})

    def test_a_scope_across_frames_is_refused(self):
        with pytest.raises(ValueError, match=r"must be one of 'frame', 'tube', 'time' for motionformer, got 'clip'"):
            self.merging_model(scope="clip")

    def test_tubes_assign_all_frames_alike_and_frames_do_not(self, pixel_values):
        alike = []
        for scope in ("tube", "frame"):
            model = self.merging_model(scope=scope)
            with torch.no_grad():
                trace = model(pixel_values, output_token_merging=True).token_merging
            left = (trace.token_counts[-1] - 1) // 2
            places = (trace.sources[:, 1:].unflatten(1, (2, -1)) - 1) - torch.tensor([0, left])[:, None]
            assert places.min() >= 0
            assert places.max() < left  # no token left its frame
            alike.append(bool((places == places[:, :1]).all()))
        assert alike == [True, False]


def as_written_in_the_paper(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Trajectory attention of (B, 1 + T * P, C) with 2 frames and 4 heads, one query at a time."""
    query, key, value = attention.project(x)
    temporal, scale = attention.temporal_attention, attention.scaling
    outputs = [(query[:, :, :1] @ key.transpose(-1, -2) * scale).softmax(-1) @ value]
    keys, values = (y[:, :, 1:].unflatten(2, (2, -1)) for y in (key, value))
    for index in range(32):
        q = query[:, :, 1 + index]
        weights = (torch.einsum("bhd,bhtjd->bhtj", q, keys) * scale).softmax(-1)
        trajectory = torch.einsum("bhtj,bhtjd->bthd", weights, values).flatten(2)
        q2 = temporal.q_proj(trajectory[:, index // 16]).unflatten(-1, (4, -1))
        k2 = nn.functional.linear(trajectory, temporal.key_weight).unflatten(-1, (4, -1))
        v2 = trajectory
        if temporal.value_weight is not None:
            v2 = nn.functional.linear(trajectory, temporal.value_weight, temporal.value_bias)
        weights = (torch.einsum("bhd,bthd->bht", q2, k2) * scale).softmax(-1)
        outputs.append(torch.einsum("bht,bthd->bhd", weights, v2.unflatten(-1, (4, -1))).unsqueeze(2))
    return attention.o_proj(torch.cat(outputs, dim=2).transpose(1, 2).flatten(2))


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor has that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        sizes = [
            leaf.untyped_storage().nbytes() // leaf.element_size()
            for leaf in tree_leaves(outputs)
            if isinstance(leaf, torch.Tensor)
        ]
        self.elements = max([self.elements, *sizes])
        return outputs


def convert(weights):
    return convert_original_state_dict("motionformer", weights, num_attention_heads=3)


class TestOriginalCheckpoints:
    @pytest.fixture(scope="class")
    @classmethod
    def original(cls) -> dict[str, torch.Tensor]:
        return load_file(GOLDEN / "original_state_dict.safetensors")

    @pytest.fixture(scope="class")
    @classmethod
    def pixel_values(cls) -> torch.Tensor:
        clips = np.random.RandomState(1234).standard_normal((2, 3, 8, 224, 224))
        return torch.from_numpy(clips).transpose(1, 2)

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    @pytest.mark.parametrize("module", [plain, hf_video_tome], ids=["plain", "merging"])
    def test_logits_are_those_of_the_original_code(self, original, pixel_values, module, implementation):
        converted = convert(original)
        model = module.MotionformerForVideoClassification._from_config(
            converted.config, attn_implementation=implementation
        )
        model.load_state_dict(converted.state_dict, strict=True)
        expected = torch.from_numpy(np.load(GOLDEN / "expected.npz")["logits"])
        torch.testing.assert_close(logits_of(model.double().eval(), pixel_values), expected, atol=1e-6, rtol=0)

    def test_the_config_is_inferred(self, original):
        converted = convert(original)
        config, notes = converted.config, json.loads((GOLDEN / "config_notes.json").read_text())
        assert config.intermediate_size == notes["mlp_ratio"] * notes["hidden_size"]
        assert config.use_pre_logits
        assert config.label_groups is None
        for name in set(notes) - {"input", "mlp_ratio", "head"}:
            assert getattr(config, name) == notes[name], name
        assert set(converted.assumed) == {"use_original_trajectory_values"}

    def test_every_weight_is_accounted_for(self, original):
        converted = convert(original)
        assert {*converted.used, *converted.unused} == set(original)
        assert sorted(converted.used.values()) == sorted(converted.state_dict)
        assert converted.used["blocks.2.attn.proj.weight"] == "motionformer.layers.2.attention.o_proj.weight"
        assert not converted.unknown
        assert set(converted.unused) == {
            *(f"blocks.{layer}.attn.proj_kv.bias" for layer in range(3)),
            "patch_embed.proj.weight",
            "patch_embed.proj.bias",
        }

    def test_of_temporal_keys_and_values_the_keys_are_used(self, original):
        name = convert(original).used["blocks.1.attn.proj_kv.weight"]
        assert name == "motionformer.layers.1.attention.temporal_attention.key_weight"
        assert torch.equal(convert(original).state_dict[name], original["blocks.1.attn.proj_kv.weight"][:24])

    def test_prefixes_of_released_files_are_taken_off(self, original):
        converted = convert({f"module.{name}": weight for name, weight in original.items()})
        assert converted.used["module.norm.bias"] == "motionformer.layernorm.bias"
        expected = convert(original).state_dict
        assert converted.state_dict.keys() == expected.keys()
        assert all(torch.equal(converted.state_dict[name], expected[name]) for name in expected)

    def test_two_heads_become_one_classifier(self, original):
        weights = {name: weight for name, weight in original.items() if not name.startswith("head.")}
        for index, rows in enumerate((slice(0, 2), slice(2, 7))):
            for kind in ("weight", "bias"):
                weights[f"head{index}.{kind}"] = original[f"head.{kind}"][rows]
        converted = convert(weights)
        assert converted.config.label_groups == {"verb": [0, 2], "noun": [2, 7]}
        assert converted.config.num_labels == 7
        model = hf_video_tome.MotionformerForVideoClassification(converted.config)
        model.load_state_dict(converted.state_dict, strict=True)
        assert torch.equal(model.classifier.weight, original["head.weight"])
        labels = torch.tensor([[1, 4]])
        assert model(torch.zeros(1, 8, 3, 224, 224), labels=labels).loss.isfinite()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.pop("temp_embed"), "has no temp_embed"),
            (lambda w: w.pop("blocks.1.norm2.bias"), r"missing: blocks\.1\.norm2\.bias"),
            (lambda w: w.update(pos_embed=w["pos_embed"][:, 1:]), "pos_embed has 15 patch positions"),
            (lambda w: w.update(temp_embed=w["temp_embed"][0]), "temp_embed must have the shape"),
            (lambda w: w.update(cls_token=w["cls_token"][..., 1:]), r"cls_token .* must have the shape \(1, 1, 24\)"),
        ],
        ids=["no positions", "no bias", "no square", "dimensions", "shape"],
    )
    def test_what_is_no_motionformer_is_refused(self, original, change, message):
        weights = dict(original)
        change(weights)
        with pytest.raises(ValueError, match=message):
            convert(weights)


class TestWithoutRegistration:
    @pytest.mark.usefixtures("unregistered")
    def test_auto_classes_lead_to_the_plain_model(self, tmp_path):
        torch.manual_seed(0)
        config = plain.MotionformerConfig(**TINY_CONFIGS["motionformer"])
        plain.MotionformerForVideoClassification(config).save_pretrained(tmp_path)
        assert type(AutoConfig.from_pretrained(tmp_path)) is plain.MotionformerConfig
        assert type(AutoModel.from_pretrained(tmp_path)) is plain.MotionformerModel
        model = AutoModelForVideoClassification.from_pretrained(tmp_path).eval()
        assert type(model) is plain.MotionformerForVideoClassification
        assert logits_of(model, draw_pixels()).shape == (BATCH_SIZE, NUM_LABELS)
