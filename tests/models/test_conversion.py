from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.timesformer import modeling_timesformer as stock_timesformer
from transformers.models.videomae import modeling_videomae as stock_videomae

from hf_video_tome.conversion.state_dict import (
    UNKNOWN,
    ConversionError,
    ConvertedCheckpoint,
    NameTable,
    OriginalWeights,
    convert_original_state_dict,
    convertible_architectures,
    find_heads,
)
from tests.original_models import (
    FRAMES,
    HEADS,
    SIZE,
    WIDTH,
    sine_cosine_positions,
    timesformer_logits,
    timesformer_weights,
    videomae_logits,
    videomae_weights,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "motionformer" / "original_state_dict.safetensors"
DOCS = Path(__file__).parents[2] / "docs" / "converting.md"
CLIP = {"num_frames": FRAMES, "image_size": SIZE}


def convert(architecture: str, weights: dict[str, Tensor], **options: object) -> ConvertedCheckpoint:
    if architecture == "videomae":
        options = {**CLIP, **options}
    return convert_original_state_dict(architecture, weights, **options)


def weights_of(architecture: str, **options: object) -> dict[str, Tensor]:
    return {"videomae": videomae_weights, "timesformer": timesformer_weights}[architecture](**options)


def logits_of_stock(converted: ConvertedCheckpoint, pixel_values: Tensor) -> Tensor:
    """Logits of the class of transformers with the converted weights: all of them, and no other."""
    stock_class = {
        "videomae": stock_videomae.VideoMAEForVideoClassification,
        "timesformer": stock_timesformer.TimesformerForVideoClassification,
    }[converted.config.model_type]
    model = stock_class(converted.config).double().eval()
    model.load_state_dict(converted.state_dict, strict=True)
    with torch.no_grad():
        return model(pixel_values).logits


@pytest.fixture
def pixel_values() -> Tensor:
    return torch.randn(2, FRAMES, 3, SIZE, SIZE, dtype=torch.float64)


# --- the numbers
@pytest.mark.parametrize("qkv_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("mean_pooling", [True, False], ids=["mean", "first token"])
def test_videomae_computes_what_the_original_computes(
    mean_pooling: bool, qkv_bias: bool, pixel_values: Tensor
) -> None:
    weights = videomae_weights(mean_pooling=mean_pooling, qkv_bias=qkv_bias)
    actual = logits_of_stock(convert("videomae", weights), pixel_values)
    # The last norm of transformers has a fixed eps of 1e-5, which no config changes.
    expected = videomae_logits(weights, pixel_values, fc_norm_eps=1e-5)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(actual, videomae_logits(weights, pixel_values), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("divided", [True, False], ids=["divided", "joint"])
def test_timesformer_computes_what_the_original_computes(divided: bool, pixel_values: Tensor) -> None:
    weights = timesformer_weights(divided=divided)
    converted = convert("timesformer", weights)
    assert converted.config.attention_type == ("divided_space_time" if divided else "joint_space_time")
    actual = logits_of_stock(converted, pixel_values)
    torch.testing.assert_close(actual, timesformer_logits(weights, pixel_values), atol=1e-6, rtol=0)


# --- the config
def test_the_config_of_videomae_is_read_off_the_weights() -> None:
    config = convert("videomae", videomae_weights(num_labels=7)).config
    assert type(config).__name__ == "VideoMAEConfig"
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (WIDTH, 2, HEADS)
    assert (config.intermediate_size, config.patch_size, config.tubelet_size) == (96, 16, 2)
    assert (config.num_labels, config.layer_norm_eps) == (7, 1e-6)
    assert config.use_mean_pooling
    assert config.qv_bias


def test_the_config_of_timesformer_is_read_off_the_weights() -> None:
    config = convert("timesformer", timesformer_weights(num_labels=7)).config
    assert (config.image_size, config.patch_size, config.num_frames) == (SIZE, 16, FRAMES)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (WIDTH, 2, HEADS)
    assert (config.intermediate_size, config.num_labels) == (96, 7)


@pytest.mark.parametrize(
    ("given", "settings", "frames", "pixels", "assumed"),
    [
        ({}, {}, 16, 224, {"num_frames": "the usual value", "image_size": "the usual value"}),
        (
            {},
            {"num_frames": 8, "num_segments": 2, "input_size": 160},
            16,
            160,
            dict.fromkeys(("num_frames", "image_size"), "the settings of the training in the file"),
        ),
        ({"num_frames": 32}, {"num_frames": 8, "input_size": "160"}, 32, 224, {"image_size": "the usual value"}),
    ],
    ids=["nothing", "settings", "options"],
)
def test_what_the_weights_do_not_tell_comes_from_elsewhere_and_is_said(
    given: dict, settings: dict, frames: int, pixels: int, assumed: dict
) -> None:
    converted = convert_original_state_dict("videomae", videomae_weights(), settings=settings, **given)
    assert (converted.config.num_frames, converted.config.image_size) == (frames, pixels)
    assert converted.assumed == {"num_attention_heads": "the width", **assumed}


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12), (1024, 16), (1280, 16), (1408, 16)])
def test_heads_are_as_published(width: int, heads: int) -> None:
    from hf_video_tome.conversion.state_dict import attention_heads

    assert attention_heads(width, None) == heads


# --- names
@pytest.mark.parametrize("architecture", ["videomae", "timesformer"])
@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "backbone.", "encoder.", "module.backbone."])
def test_prefixes_are_taken_off_and_reported(architecture: str, prefix: str) -> None:
    weights = weights_of(architecture)
    expected = convert(architecture, weights)
    # A head outside of the wrapped model keeps its name.
    prefixed = {name if name.startswith("head.") else prefix + name: tensor for name, tensor in weights.items()}
    converted = convert(architecture, prefixed)
    assert set(converted.used) == set(prefixed)
    assert converted.state_dict.keys() == expected.state_dict.keys()
    assert all(torch.equal(tensor, expected.state_dict[name]) for name, tensor in converted.state_dict.items())


def test_names_of_two_models_are_refused() -> None:
    weights = videomae_weights()
    weights["module.head.bias"] = weights["head.bias"]
    with pytest.raises(ConversionError, match=r"head\.bias and module\.head\.bias.* more than one model"):
        convert("videomae", weights)


@pytest.mark.parametrize("architecture", ["videomae", "timesformer"])
def test_every_name_is_accounted_for(architecture: str) -> None:
    weights = weights_of(architecture)
    weights |= {"step": 3, "blocks.0.attn.gate": torch.zeros(1)}
    converted = convert(architecture, weights)
    assert sorted([*converted.used, *converted.unused]) == sorted(weights)
    assert converted.unused == {"step": "no tensor but a int", "blocks.0.attn.gate": UNKNOWN}
    assert converted.unknown == ["blocks.0.attn.gate"]
    targets = [name for names in converted.used.values() for name in names.split(", ")]
    assert sorted(targets) == sorted(converted.state_dict)


def test_decoder_of_pre_training_is_left_out_with_the_reason() -> None:
    weights = videomae_weights() | {"decoder.blocks.0.norm1.weight": torch.zeros(3), "mask_token": torch.zeros(1)}
    converted = convert("videomae", weights)
    assert set(converted.unused.values()) == {"decoder of pre-training"}
    assert not converted.unknown


def test_weights_do_not_share_memory_with_the_original() -> None:
    weights = videomae_weights()
    converted = convert("videomae", weights)
    pointers = [tensor.untyped_storage().data_ptr() for tensor in converted.state_dict.values()]
    assert len(set(pointers)) == len(pointers)
    assert not set(pointers) & {tensor.untyped_storage().data_ptr() for tensor in weights.values()}


@pytest.mark.parametrize("model_type", convertible_architectures())
def test_name_tables_lead_there_and_back_and_are_in_the_docs(model_type: str) -> None:
    table: NameTable = import_module(f"hf_video_tome.conversion.{model_type}").NAMES
    text = DOCS.read_text()
    for original, targets in table.used.items():
        name = original.format(layer=3, parameter="weight")
        assert table.targets(name)
        assert all(table.source(target) == name for target in table.targets(name))
        shown = ", ".join(f"`{target}`" for target in ([targets] if isinstance(targets, str) else targets))
        assert f"| `{original}` | {shown} |" in text
    for original, reason in (table.unused | table.refused).items():
        assert f"| `{original}` | {reason} |" in text


# --- heads
TWO_HEADS = [("head_verb", "head_noun"), ("head0", "head1"), ("head.0", "head.1"), ("verb_head", "noun_head")]


def with_two_heads(weights: dict[str, Tensor], names: tuple[str, str], verbs: int) -> dict[str, Tensor]:
    """Nouns come first in the file, which must not matter."""
    others = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
    for kind in ("weight", "bias"):
        others[f"{names[1]}.{kind}"] = weights[f"head.{kind}"][verbs:]
        others[f"{names[0]}.{kind}"] = weights[f"head.{kind}"][:verbs]
    return others


@pytest.mark.parametrize("names", TWO_HEADS, ids=str)
@pytest.mark.parametrize("architecture", ["videomae", "timesformer"])
def test_two_heads_become_one_classifier_with_verbs_first(architecture: str, names: tuple[str, str]) -> None:
    weights = weights_of(architecture, num_labels=397)
    converted = convert(architecture, with_two_heads(weights, names, 97))
    assert converted.config.label_groups == {"verb": [0, 97], "noun": [97, 397]}
    assert converted.config.num_labels == 397
    assert torch.equal(converted.state_dict["classifier.weight"], weights["head.weight"])
    assert torch.equal(converted.state_dict["classifier.bias"], weights["head.bias"])
    assert converted.used[f"{names[0]}.weight"] == "classifier.weight[0:97]"
    assert converted.used[f"{names[1]}.bias"] == "classifier.bias[97:397]"
    assert "label_groups" not in converted.assumed


@pytest.mark.parametrize(
    ("num_labels", "given", "groups", "assumed"),
    [
        (397, None, {"verb": [0, 97], "noun": [97, 397]}, True),
        (397, {}, None, False),
        (397, {"noun": 300, "verb": 97}, {"noun": [0, 300], "verb": [300, 397]}, False),
        (5, None, None, False),
        (5, {"verb": 2, "noun": 3}, {"verb": [0, 2], "noun": [2, 5]}, False),
    ],
)
def test_one_head_is_divided_as_is_said(
    num_labels: int, given: dict | None, groups: dict | None, assumed: bool
) -> None:
    converted = convert("timesformer", timesformer_weights(num_labels), label_groups=given)
    assert getattr(converted.config, "label_groups", None) == groups
    assert ("label_groups" in converted.assumed) == assumed


def test_tasks_of_counted_heads_can_be_named() -> None:
    weights = with_two_heads(timesformer_weights(5), ("head0", "head1"), 3)
    converted = convert("timesformer", weights, label_groups={"noun": 3, "verb": 2})
    assert converted.config.label_groups == {"noun": [0, 3], "verb": [3, 5]}


def test_named_heads_take_the_order_that_is_said() -> None:
    weights = timesformer_weights(5)
    two = with_two_heads(weights, ("head_verb", "head_noun"), 2)
    converted = convert("timesformer", two, label_groups={"noun": 3, "verb": 2})
    assert converted.config.label_groups == {"noun": [0, 3], "verb": [3, 5]}
    assert torch.equal(converted.state_dict["classifier.bias"], weights["head.bias"][[2, 3, 4, 0, 1]])


@pytest.mark.parametrize(
    ("heads", "given", "message"),
    [
        ({"head": 5}, {"verb": 2, "noun": 2}, "label_groups .* head of the checkpoint, 5, got verb=2,noun=2 = 4"),
        ({"head0": 5, "head1": 3}, None, "label_groups must say which head is for verbs"),
        ({"head0": 3, "head1": 5}, {"verb": 3}, "label_groups must name a task for each head"),
        ({"head0": 3, "head1": 5}, {}, "label_groups must name a task for each head.* got none"),
        ({"head0": 3, "head1": 5}, {"verb": 3, "noun": 4}, "label_groups must be as the heads are"),
        ({"head_verb": 3, "head_noun": 5}, {"a": 3, "b": 5}, "label_groups must name the tasks of the heads"),
        ({"head0": 3, "head1": 5, "head2": 1}, None, "label_groups must say what the heads are for"),
        ({"head": 3, "head_verb": 5}, None, "the heads must be one, or verb and noun, or counted from 0"),
        ({"head.1": 3, "head.3": 5}, None, "the heads must be one, or verb and noun, or counted from 0"),
        ({}, None, "no classifier"),
    ],
    ids=str,
)
def test_heads_that_do_not_fit_are_refused(heads: dict[str, int], given: dict | None, message: str) -> None:
    weights = OriginalWeights({f"{name}.weight": torch.zeros(size, 4) for name, size in heads.items()}, {}, {})
    with pytest.raises(ConversionError, match=message):
        find_heads(weights, given)


def test_a_head_in_a_sequence_is_one_head() -> None:
    weights = timesformer_weights()
    for kind in ("weight", "bias"):
        weights[f"head.1.{kind}"] = weights.pop(f"head.{kind}")
    converted = convert("timesformer", weights)
    assert converted.used["head.1.weight"] == "classifier.weight"


# --- what cannot be converted
@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        (
            "videomae",
            lambda w: w.pop("blocks.1.norm2.bias"),
            r"weights of a videomae like this are missing: blocks\.1\.norm2\.bias",
        ),
        (
            "videomae",
            lambda w: w.pop("blocks.0.attn.qkv.weight"),
            r"weights of a videomae like this are missing: blocks\.0\.attn\.qkv\.weight$",
        ),
        (
            "videomae",
            lambda w: [w.pop(n) for n in list(w) if n.startswith("blocks.0.")],
            r"weights of blocks\.0 are missing",
        ),
        ("videomae", lambda w: w.pop("head.bias"), r"must have head\.bias with 5 outputs, it is missing"),
        ("videomae", lambda w: [w.pop("head.weight"), w.pop("head.bias")], "no classifier .* only fine-tuned"),
        ("videomae", lambda w: w.update({"blocks.0.gamma_1": torch.ones(WIDTH)}), "layer scale"),
        ("videomae", lambda w: w.update({"blocks.0.attn.qkv.bias": torch.ones(3 * WIDTH)}), "a bias of the keys"),
        ("videomae", lambda w: w.update({"norm.weight": torch.ones(WIDTH)}), r"norm\.weight has no place beside"),
        (
            "videomae",
            lambda w: w.update({"blocks.1.norm1.weight": torch.ones(3)}),
            r"blocks\.1\.norm1\.weight does not fit .* \(128,\), got \(3,\)",
        ),
        (
            "videomae",
            lambda w: w.update({"blocks.1.attn.qkv.weight": torch.ones(4, WIDTH)}),
            r"blocks\.1\.attn\.qkv\.weight must divide into 3 parts",
        ),
        (
            "videomae",
            lambda w: w.update({"patch_embed.proj.weight": torch.ones(WIDTH, 3, 16, 16)}),
            r"patch_embed\.proj\.weight must have the shape \(width, channels, frames",
        ),
        ("timesformer", lambda w: w.pop("pos_embed"), "has no pos_embed"),
        (
            "timesformer",
            lambda w: w.update(pos_embed=torch.ones(1, 6, WIDTH)),
            "5 patch positions, which do not form a square grid",
        ),
        ("timesformer", lambda w: w.update(time_embed=torch.ones(FRAMES, WIDTH)), "time_embed must have the shape"),
        (
            "timesformer",
            lambda w: w.update({"patch_embed.proj.weight": torch.ones(WIDTH, 3, 16, 8)}),
            "patches must be square",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_their_original_names(
    architecture: str, change: object, message: str
) -> None:
    weights = weights_of(architecture)
    change(weights)
    with pytest.raises(ConversionError, match=message):
        convert(architecture, weights)


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        (
            "videomae",
            {"num_attention_heads": 3},
            "num_attention_heads must divide the width of the model, 128, got 3",
        ),
        ("videomae", {"num_frames": 5}, "num_frames must be a multiple of 2"),
        ("videomae", {"image_size": 40}, "image_size must be a multiple of 16"),
        ("timesformer", {"num_frames": 8}, "num_frames must be 4, as the weights say, got 8"),
        ("timesformer", {"image_size": 224}, "image_size must be 32, as the weights say, got 224"),
        ("vivit", {}, "the architecture must be one of motionformer, timesformer, videomae"),
    ],
)
def test_options_that_do_not_fit_are_refused(architecture: str, options: dict, message: str) -> None:
    weights = videomae_weights() if architecture == "videomae" else timesformer_weights()
    with pytest.raises(ConversionError, match=message):
        convert(architecture, weights, **options)


def test_attention_in_space_only_is_refused() -> None:
    weights = timesformer_weights(divided=False)
    del weights["time_embed"]
    with pytest.raises(ConversionError, match="averages over the frames"):
        convert("timesformer", weights)


@pytest.mark.parametrize("architecture", ["videomae", "timesformer", "motionformer"])
@pytest.mark.parametrize("other", ["videomae", "timesformer", "motionformer"])
def test_other_architectures_are_recognised(architecture: str, other: str) -> None:
    if architecture == other:
        return
    weights = load_file(GOLDEN) if other == "motionformer" else weights_of(other)
    with pytest.raises(ConversionError, match=f"not the weights of a {architecture}: .* as in a {other}"):
        convert(architecture, weights)


def test_weights_of_transformers_are_recognised() -> None:
    model = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ConversionError, match="in the layout of transformers already"):
        convert("timesformer", model.state_dict())


# --- positions of VideoMAE
def test_stored_fixed_positions_are_left_out() -> None:
    weights = videomae_weights() | {"pos_embed": sine_cosine_positions(8)}
    assert "fixed sine and cosine" in convert("videomae", weights).unused["pos_embed"]
    half = videomae_weights() | {"pos_embed": sine_cosine_positions(8).half()}
    assert "pos_embed" in convert("videomae", half).unused


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (torch.zeros(1, 8, WIDTH), "pos_embed was learned"),
        (torch.zeros(1, 12, WIDTH), r"pos_embed must have the shape \(1, 8, 128\) for clips of 4 x 32 x 32"),
    ],
    ids=["learned", "length"],
)
def test_other_positions_are_refused(positions: Tensor, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        convert("videomae", videomae_weights() | {"pos_embed": positions})


# --- Motionformer
def test_motionformer_goes_the_same_way() -> None:
    original = load_file(GOLDEN)
    expected = convert("motionformer", original, num_attention_heads=3)
    assert expected.config.num_labels == 7
    assert sorted([*expected.used, *expected.unused]) == sorted(original)
    prefixed = {
        f"module.{name}": tensor for name, tensor in with_two_heads(original, ("head_verb", "head_noun"), 2).items()
    }
    converted = convert("motionformer", prefixed, num_attention_heads=3)
    assert converted.config.label_groups == {"verb": [0, 2], "noun": [2, 7]}
    assert converted.used["module.head_noun.weight"] == "classifier.weight[2:7]"
    assert all(torch.equal(tensor, expected.state_dict[name]) for name, tensor in converted.state_dict.items())
    strange = convert("motionformer", original | {"gate": torch.zeros(1)}, num_attention_heads=3)
    assert strange.unknown == ["gate"]
    with pytest.raises(ConversionError, match=re.escape("num_frames must be 8, as the weights say, got 16")):
        convert("motionformer", original, num_attention_heads=3, num_frames=16)
    with pytest.raises(ConversionError, match="num_attention_heads must divide the width"):
        convert("motionformer", original)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.to(torch.int8),
            "norm1.weight must hold finite floating point numbers, got a tensor of torch.int8",
        ),
        (lambda x: x * float("nan"), "norm1.weight must hold finite .* with NaN or infinity"),
        (lambda x: x.to_sparse(), "norm1.weight must be a dense tensor with values, got a sparse_coo tensor"),
        (lambda x: x.to("meta"), "norm1.weight must be a dense tensor with values, got .* on meta"),
        (lambda x: x[:0], "norm1.weight must be a dense tensor with values, got .*shape"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(change, message):
    weights = weights_of("videomae")
    name = "blocks.0.norm1.weight"
    weights[name] = change(weights[name])
    with pytest.raises(ConversionError, match=message):
        convert("videomae", weights)


def test_a_layer_far_away_is_not_built():
    weights = weights_of("videomae")
    weights["blocks.999999.norm1.weight"] = weights["blocks.0.norm1.weight"]
    with pytest.raises(ConversionError, match=r"weights of blocks\.\d+ are missing: there are some of blocks\.999999"):
        convert("videomae", weights)
