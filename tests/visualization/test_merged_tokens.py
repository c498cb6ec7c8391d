from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hf_video_tome
from hf_video_tome import TokenMergingTrace
from hf_video_tome.data.transforms import ClipTransform
from hf_video_tome.merging import TokenLayout
from hf_video_tome.visualization import (
    ClipGeometry,
    merged_tokens_image,
    model_view,
    save_contact_sheet,
    token_map,
)

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,
    "num_labels": 5,
}


def make_model(architecture: str, **settings: Any) -> Any:
    """A small model on clips of 4 slots of 4 x 4 patches."""
    torch.manual_seed(0)
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    if architecture == "videomae":
        config = hf_video_tome.VideoMAEConfig(image_size=32, patch_size=8, num_frames=8, **SMALL, **fields)
        return hf_video_tome.VideoMAEForVideoClassification(config).eval()
    if architecture == "vivit":
        config = hf_video_tome.VivitConfig(image_size=32, tubelet_size=[2, 8, 8], num_frames=8, **SMALL, **fields)
        return hf_video_tome.VivitForVideoClassification(config).eval()
    config = hf_video_tome.TimesformerConfig(image_size=32, patch_size=8, num_frames=4, **SMALL, **fields)
    return hf_video_tome.TimesformerForVideoClassification(config).eval()


def make_frames(num_frames: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (batch, num_frames, 3, 32, 32), generator=generator, dtype=torch.uint8)


def run(model: Any, frames: torch.Tensor) -> TokenMergingTrace:
    with torch.inference_mode():
        return model(frames / 127.5 - 1, output_token_merging=True).token_merging


def make_trace(sources: list[int]) -> TokenMergingTrace:
    source = torch.tensor([sources])
    sizes = torch.bincount(source[source >= 0]).float()[None]
    return TokenMergingTrace((source,), (sizes,))


CASES = [
    ("videomae", {"r": 12}),
    ("videomae", {"r": 3, "scope": "frame"}),
    ("videomae", {"r": 3, "scope": "tube"}),
    ("videomae", {"r": 1, "scope": "time"}),
    ("vivit", {"r": 12}),
    ("vivit", {"r": 3, "scope": "frame"}),
    ("timesformer", {"r": 3}),
    ("timesformer", {"r": 3, "scope": "frame"}),
    ("timesformer", {"r": 1, "scope": "time"}),
]


@pytest.mark.parametrize(("architecture", "settings"), CASES)
def test_regions_are_the_groups_of_the_trace(architecture: str, settings: dict[str, Any]) -> None:
    """Brute force: each token's colour is the mean of exactly the pixels of the original tokens in its group."""
    model = make_model(architecture, **settings)
    geometry = ClipGeometry.from_config(model.config)
    frames = make_frames(model.config.num_frames, batch=2)
    trace = run(model, frames)
    prefix, depth = geometry.layout.num_prefix_tokens, model.config.num_frames // 4
    for sample in range(2):
        image = merged_tokens_image(frames[sample], trace, geometry, sample=sample, outline=0)
        pixels = frames[sample].permute(0, 2, 3, 1).double()
        for token in range(prefix, trace.token_counts[-1]):
            parts = []
            for position in (trace.sources[sample] == token).nonzero().flatten().tolist():
                place = position - prefix
                slot, patch = (place % 4, place // 4) if geometry.layout.patch_major else (place // 16, place % 16)
                rows, columns = (
                    slice(8 * (patch // 4), 8 * (patch // 4 + 1)),
                    slice(8 * (patch % 4), 8 * (patch % 4 + 1)),
                )
                parts.append((slice(depth * slot, depth * (slot + 1)), rows, columns))
            assert len(parts) == trace.sizes[sample, token]
            mean = torch.cat([pixels[part].reshape(-1, 3) for part in parts]).mean(0)
            for part in parts:
                assert np.abs(image[part].astype(float) - mean.numpy()).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("architecture", ["videomae", "vivit", "timesformer"])
def test_scopes_show_in_the_map(architecture: str) -> None:
    for scope in ("frame", "tube"):
        model = make_model(architecture, r=3, scope=scope)
        frames = make_frames(model.config.num_frames)
        tokens = token_map(run(model, frames), model.config.token_layout)
        assert tokens.shape == (4, 16)
        assert [len(set(slot)) for slot in tokens.tolist()] == [16 - 3 * 3] * 4
        # No token is in two frames.
        assert len(set(tokens.flatten().tolist())) == 4 * 7
        shapes = {tuple(map(tuple, slot[:, None] == slot[None])) for slot in tokens}
        assert (len(shapes) == 1) == (scope == "tube")


def test_layers_from_first_to_last() -> None:
    model = make_model("videomae", r=12)
    geometry, frames = ClipGeometry.from_config(model.config), make_frames(8)
    trace = run(model, frames)
    counts = [len(set(token_map(trace, geometry.layout, layer=layer).flatten().tolist())) for layer in range(4)]
    assert counts == [64, 52, 40, 28]
    first = merged_tokens_image(frames[0], trace, geometry, layer=0, outline=0)
    patches = frames[0].double().unflatten(0, (4, 2)).unflatten(3, (4, 8)).unflatten(5, (4, 8)).mean((1, 4, 6))
    expected = patches.permute(0, 2, 3, 1).numpy()  # slot, row, column, colour
    assert np.abs(first[::2, ::8, ::8].astype(float) - expected).max() <= 0.5 + 1e-9


def test_class_token_and_patch_major_order() -> None:
    frame_major = TokenLayout(1, num_frames=2, num_patches=3)
    patch_major = TokenLayout(1, num_frames=2, num_patches=3, patch_major=True)
    assert token_map(make_trace([0, 1, 2, 3, 4, 5, 6]), frame_major).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert token_map(make_trace([0, 1, 2, 3, 4, 5, 6]), patch_major).tolist() == [[1, 3, 5], [2, 4, 6]]


def test_no_line_inside_a_token_and_lines_between_tokens() -> None:
    geometry = ClipGeometry(TokenLayout(0, num_frames=1, num_patches=4), rows=2, columns=2)
    frames = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    frames[..., 16:] = 200
    # The left column is one token, the two patches on the right are one each.
    trace = make_trace([0, 1, 0, 2])
    image = merged_tokens_image(frames, trace, geometry, outline=2)[0].astype(int)
    plain = merged_tokens_image(frames, trace, geometry, outline=0)[0].astype(int)
    assert (image[2:30, 2:14] == 0).all()  # the line between the left patches is not drawn
    changed = (image != plain).any(-1)
    assert changed[:, :2].all()
    assert changed[:, 14:18].all()
    assert changed[14:18, 18:].all()
    assert not changed[18:30, 18:30].any()
    left, top_right, bottom_right = image[10, 0], image[8, 16], image[24, 16]
    assert (image[:, 15] == left).all()
    assert left.max() > 200  # bright: the token stands for two patches
    assert (top_right == bottom_right).all()
    assert top_right.max() < 80  # dark: these were not merged


def test_outlines_go_round_inner_corners_too() -> None:
    """A token around a patch: its line is closed, without a notch at the patch's corner."""
    geometry = ClipGeometry(TokenLayout(0, num_frames=1, num_patches=4), rows=2, columns=2)
    frames = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    image = merged_tokens_image(frames, make_trace([0, 0, 0, 1]), geometry, outline=3)[0]
    plain = np.full(3, 100)
    assert (image[13:16, 13:16] == image[13, 20]).all()
    assert (image[13, 20] != plain).any()
    assert (image[12, 12] == plain).all()


@pytest.mark.parametrize("level", [0, 4, 30, 45, 120, 215, 226, 250, 255])
def test_outlines_are_seen_on_snow_and_at_night(level: int) -> None:
    geometry = ClipGeometry(TokenLayout(0, num_frames=1, num_patches=4), rows=2, columns=2)
    frames = torch.full((1, 3, 32, 32), level, dtype=torch.uint8)
    image = merged_tokens_image(frames, make_trace([0, 1, 0, 2]), geometry, outline=2)[0].astype(int)
    merged, single = image[10, 0, 0], image[8, 16, 0]
    assert min(abs(merged - level), abs(single - level)) >= 16
    assert merged >= single + 64  # light and dark, still


def test_the_outline_of_a_token_has_one_colour_in_all_frames() -> None:
    geometry = ClipGeometry(TokenLayout(0, num_frames=3, num_patches=4), rows=2, columns=2)
    frames = torch.full((3, 3, 16, 16), 90, dtype=torch.uint8)
    image = merged_tokens_image(frames, make_trace([0, 1, 2, 2, 0, 1, 1, 2, 0, 1, 1, 1]), geometry, scale=4)
    corners = image[:, 0, 0]
    assert (corners == corners[0]).all()
    assert (image[:, 0, 63] == image[0, 0, 63]).all()
    assert (corners[0] != image[0, 0, 63]).any()


def test_dropped_tokens_are_hatched_in_grey() -> None:
    model = make_model("videomae", r=12, mode="drop")
    geometry, frames = ClipGeometry.from_config(model.config), make_frames(8)
    trace = run(model, frames)
    tokens = token_map(trace, geometry.layout).reshape(4, 4, 4)
    assert (tokens == -1).sum() == 36
    image = merged_tokens_image(frames[0], trace, geometry, scale=4)
    for slot, row, column in np.ndindex(4, 4, 4):
        area = image[2 * slot, 32 * row : 32 * (row + 1), 32 * column : 32 * (column + 1)].reshape(-1, 3)
        inner = image[2 * slot, 32 * row + 2 : 32 * row + 30, 32 * column + 2 : 32 * column + 30].reshape(-1, 3)
        if tokens[slot, row, column] == -1:
            assert (area == area[:, :1]).all()  # grey
            assert len(np.unique(area[:, 0])) == 2  # stripes
        else:
            assert len(np.unique(inner, axis=0)) == 1


def test_scale_is_nearest_neighbour() -> None:
    model = make_model("vivit", r=12)
    geometry, frames = ClipGeometry.from_config(model.config), make_frames(8)
    trace = run(model, frames)
    small = merged_tokens_image(frames[0], trace, geometry, outline=0)
    large = merged_tokens_image(frames[0], trace, geometry, outline=0, scale=3)
    assert small.shape == (8, 32, 32, 3)
    assert small.dtype == np.uint8
    np.testing.assert_array_equal(large, small.repeat(3, 1).repeat(3, 2))


def test_geometry_of_grids_that_are_not_square() -> None:
    vivit = hf_video_tome.VivitConfig(image_size=32, tubelet_size=[2, 8, 16], num_frames=8)
    assert ClipGeometry.from_config(vivit) == (TokenLayout(1, 4, 8, num_columns=2), 4, 2)
    timesformer = hf_video_tome.TimesformerConfig(image_size=32, patch_size=8, num_frames=4)
    assert ClipGeometry.from_config(timesformer) == (TokenLayout(1, 4, 16, patch_major=True, num_columns=4), 4, 4)
    vjepa2 = hf_video_tome.VJEPA2Config(crop_size=32, patch_size=8, frames_per_clip=8)
    assert ClipGeometry.from_config(vjepa2) == (TokenLayout(0, 4, 16, num_columns=4), 4, 4)
    videoprism = hf_video_tome.VideoPrismVisionConfig(image_size=[32, 48], tubelet_size=[1, 8, 8], num_frames=4)
    assert ClipGeometry.from_config(videoprism) == (TokenLayout(0, 4, 24, num_columns=6), 4, 6)
    # Its head reads patch 0, which the layout therefore protects; it is a patch like any other in a picture.
    unpooled = hf_video_tome.VideoMAEConfig(image_size=32, patch_size=8, num_frames=8, use_mean_pooling=False)
    assert ClipGeometry.from_config(unpooled) == (TokenLayout(0, 4, 16, num_columns=4), 4, 4)

    geometry = ClipGeometry(TokenLayout(0, num_frames=1, num_patches=6), rows=2, columns=3)
    frames = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3).expand(1, 3, 2, 3)
    image = merged_tokens_image(frames, make_trace([0, 1, 2, 3, 4, 2]), geometry, outline=0)
    assert image[0, ..., 0].tolist() == [[0, 1, 4], [3, 4, 4]]  # (2 + 5) / 2, rounded to even


def test_what_does_not_fit_is_refused() -> None:
    geometry = ClipGeometry(TokenLayout(0, num_frames=2, num_patches=4), rows=2, columns=2)
    frames = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    trace = make_trace(list(range(8)))
    merged_tokens_image(frames, trace, geometry)
    with pytest.raises(ValueError, match=r"must be of 8 tokens .* got 6"):
        merged_tokens_image(frames, make_trace(list(range(6))), geometry)
    with pytest.raises(ValueError, match=r"uint8 of shape \(T, 3, H, W\), got torch.float32"):
        merged_tokens_image(frames.float(), trace, geometry)
    with pytest.raises(ValueError, match=r"got torch\.uint8 of shape"):
        merged_tokens_image(frames.permute(0, 2, 3, 1), trace, geometry)
    with pytest.raises(ValueError, match="2 slots of 2 x 2 patches, got 3 frames of 16 x 16 pixels"):
        merged_tokens_image(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), trace, geometry)
    with pytest.raises(ValueError, match="got 2 frames of 15 x 16 pixels"):
        merged_tokens_image(torch.zeros(2, 3, 15, 16, dtype=torch.uint8), trace, geometry)


def test_model_view_is_the_transform_without_its_normalisation() -> None:
    frames = torch.randint(256, (2, 3, 48, 64), dtype=torch.uint8)
    transform = ClipTransform(resize=32, crop=(32, 32))
    view = model_view(frames, transform)
    mean, std = (torch.tensor(values)[:, None, None] for values in (transform.mean, transform.std))
    torch.testing.assert_close((view / 255 - mean) / std, transform(frames))


def test_contact_sheet(tmp_path: Path) -> None:
    from PIL import Image

    model = make_model("timesformer", r=3)
    geometry, frames = ClipGeometry.from_config(model.config), make_frames(4)
    trace = run(model, frames)
    sizes = {}
    for rows in (1, 2):
        traces = {f"r = {index}": trace for index in range(rows)}
        path = save_contact_sheet(
            tmp_path / f"{rows}.png", frames[0], traces, geometry, title="a [b] $c $d_{", note="d"
        )
        with Image.open(path) as picture:
            sizes[rows] = picture.size
            colours = {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height)}
        fill = merged_tokens_image(frames[0], trace, geometry, outline=0)
        assert {tuple(colour) for colour in fill.reshape(-1, 3).tolist()} <= colours
    assert sizes[1][0] == sizes[2][0]
    assert sizes[1][1] < sizes[2][1]
    fewer = save_contact_sheet(tmp_path / "few.png", frames[0], {"r": trace}, geometry, max_frames=2)
    with Image.open(fewer) as picture:
        assert picture.width < sizes[1][0]
    with pytest.raises(ValueError, match="max_frames must be at least 1, got 0"):
        save_contact_sheet(tmp_path / "none.png", frames[0], {"r": trace}, geometry, max_frames=0)


def test_contact_sheet_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    model = make_model("videomae", r=12)
    frames = make_frames(8)
    with pytest.raises(ImportError, match=r"hf-video-tome\[viz\]"):
        save_contact_sheet(
            tmp_path / "a.png", frames[0], {"r": run(model, frames)}, ClipGeometry.from_config(model.config)
        )
