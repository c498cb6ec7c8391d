"""Films and sheets of a traced clip, for every architecture: read back as a viewer's program would."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from hf_video_tome.data.transforms import ClipTransform
from hf_video_tome.data.video.decoding import probe_video, read_frames
from hf_video_tome.merging import TokenLayout, TokenMergingTrace
from hf_video_tome.models import ARCHITECTURES
from hf_video_tome.visualization import (
    ClipGeometry,
    TracedClip,
    merged_tokens_image,
    save_layers,
    save_tokens,
    trace_clip,
    write_animation,
)
from hf_video_tome.visualization.animation import compose
from hf_video_tome.visualization.contact_sheet import save_sheet
from hf_video_tome.visualization.saving import legend, show_tokens, spread_layers, subject
from tests.tiny import NUM_LABELS, TINY_CONFIGS

TRANSFORM = ClipTransform(resize=32, crop=(32, 32))


def make_clip(
    architecture: str, base_model: bool = False, fields: dict[str, Any] | None = None, **settings: Any
) -> TracedClip:
    entry = ARCHITECTURES[architecture]
    merging = {f"token_merging_{name}": value for name, value in settings.items()}
    torch.manual_seed(0)
    config = entry.config_class(**TINY_CONFIGS[architecture] | (fields or {}), **merging)
    model = (entry.model_class if base_model else entry.head_class)(config)
    frames = torch.randint(256, (4, 3, 40, 56), dtype=torch.uint8)
    size = (config.clip_shape.height, config.clip_shape.width)
    return trace_clip(model.eval(), frames, replace(TRANSFORM, crop=size), name="tiny")


def made_clip(sources: list[list[int]], slots: int = 2, frames_per_slot: int = 2) -> TracedClip:
    """A clip of slots of 2 x 3 patches of 8 x 8 pixels with these tokens after each layer."""
    layers = [torch.tensor([source]) for source in sources]
    sizes = [torch.bincount(layer[layer >= 0]).float()[None] for layer in layers]
    frames = torch.randint(256, (slots * frames_per_slot, 3, 16, 24), dtype=torch.uint8)
    geometry = ClipGeometry(TokenLayout(0, slots, 6), rows=2, columns=3)
    return TracedClip(frames, TokenMergingTrace(tuple(layers), tuple(sizes)), geometry, name="made")


def film(path: Path) -> np.ndarray:
    """All pictures of a film, (N, H, W, 3)."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])
    return read_frames(path, range(probe_video(path).num_frames)).permute(0, 2, 3, 1).numpy()


def find(picture: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
    """Where a part lies in a picture, pixel for pixel: rows and columns."""
    height, width = part.shape[:2]
    starts = np.argwhere((picture[: 1 - height, : 1 - width] == part[0, 0]).all(axis=-1))
    return [(y, x) for y, x in starts.tolist() if (picture[y : y + height, x : x + width] == part).all()]


# --- every architecture
@pytest.fixture(params=sorted(ARCHITECTURES))
def clip(request: pytest.FixtureRequest) -> TracedClip:
    return make_clip(request.param, r=3)


SHAPES: list[tuple[str, dict[str, Any]]] = [
    *((architecture, {}) for architecture in sorted(ARCHITECTURES)),
    ("vivit", {"tubelet_size": [2, 8, 16]}),
    ("videomae", {"image_size": [32, 48]}),
    ("videomae", {"use_mean_pooling": False}),
]


@pytest.mark.parametrize(("architecture", "fields"), SHAPES)
def test_a_token_lies_where_the_pixels_are_that_it_is_made_of(architecture: str, fields: dict[str, Any]) -> None:
    """Changes one patch of the input at a time, and looks which token of the first layer's input changes."""
    clip = make_clip(architecture, fields=fields, r=3)
    torch.manual_seed(0)
    entry = ARCHITECTURES[architecture]
    model = entry.head_class(entry.config_class(**TINY_CONFIGS[architecture] | fields)).eval()
    first_layer = next(part for name, part in model.named_modules() if name.endswith(("layer.0", "layers.0")))
    seen: list[torch.Tensor] = []
    first_layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0]), with_kwargs=True)
    pixel_values = clip.frames[None].float() / 255

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        seen.clear()
        with torch.inference_mode():
            model(pixels)
        return seen[0].flatten(0, 1)  # some fold frames into the batch

    before, tokens = embed(pixel_values), clip.tokens(0)
    slots, rows, columns = tokens.shape
    depth, height, width = (
        size // count for size, count in zip((4, *clip.frames.shape[2:]), tokens.shape, strict=True)
    )
    for slot, row, column in np.ndindex(slots, rows, columns):
        changed = pixel_values.clone()
        area = changed[:, slot * depth : (slot + 1) * depth, :, row * height : (row + 1) * height]
        area[..., column * width : (column + 1) * width] += 1
        moved = (embed(changed) - before).abs().amax(dim=1) > 1e-4
        assert moved.nonzero().flatten().tolist() == [tokens[slot, row, column]]


def test_regions_divide_the_clip_exactly(clip: TracedClip) -> None:
    """Every pixel belongs to one region, and each region has the size that the trace says."""
    prefix = clip.geometry.layout.num_prefix_tokens
    for layer, sizes in enumerate(clip.trace.layer_sizes):
        tokens = clip.tokens(layer)
        assert tokens.shape == (clip.geometry.layout.num_frames, 4, 4)
        places = np.bincount(tokens.ravel(), minlength=sizes.shape[1])
        np.testing.assert_array_equal(places[prefix:], sizes[0, prefix:].numpy())
        assert places[:prefix].sum() == 0
    assert clip.trace.token_counts[-1] < clip.trace.token_counts[0]


def test_a_token_is_filled_with_the_mean_of_its_pixels(clip: TracedClip) -> None:
    tokens = clip.tokens()
    frames_per_slot = 4 // len(tokens)
    owner = tokens.repeat(frames_per_slot, 0).repeat(8, 1).repeat(8, 2)
    pixels, image = clip.frames.permute(0, 2, 3, 1).numpy().astype(float), clip.draw(outline=0)
    for token in np.unique(tokens):
        mean = pixels[owner == token].mean(axis=0)
        assert np.abs(image[owner == token] - mean).max() <= 0.5 + 1e-9


def test_a_token_has_one_colour_in_all_frames_and_no_other_token_has_it(clip: TracedClip) -> None:
    tokens = clip.tokens()
    image = clip.draw(fill="distinct", outline=0)[:: 4 // len(tokens), ::8, ::8]
    colours = {token: np.unique(image[tokens == token], axis=0) for token in np.unique(tokens)}
    assert all(len(colour) == 1 for colour in colours.values())
    different = {tuple(colour[0]) for colour in colours.values()}
    if clip.is_shared:  # one colour for the tokens of all frames that one matching made
        assert len(different) == len(np.unique(tokens[0])) < len(colours)
    else:
        assert len(different) == len(colours)


def test_prediction_and_settings_are_in_words(clip: TracedClip) -> None:
    assert clip.settings.startswith("merge, r = 3 per layer")
    assert clip.prediction.startswith("'LABEL_")
    assert clip.prediction.endswith(" %)")
    assert float(clip.prediction.split("(")[1].split()[0]) / 100 + 5e-4 >= 1 / NUM_LABELS


@pytest.mark.parametrize(
    ("architecture", "suffix"), [*((name, ".mp4") for name in sorted(ARCHITECTURES)), ("timesformer", ".gif")]
)
def test_films_have_a_picture_for_each_frame(architecture: str, suffix: str, tmp_path: Path) -> None:
    clip = make_clip(architecture, r=3)
    path = save_tokens(tmp_path / f"tokens{suffix}", clip, scale=6)
    pictures = film(path)
    assert len(pictures) == len(clip.frames)
    # Input and tokens side by side, between margins.
    assert pictures.shape[2] == 2 * 6 * 32 + 3 * 12
    layers = film(save_layers(tmp_path / f"layers{suffix}", clip, scale=6, max_frames=2))
    # A video has the last layer three times; a GIF shows its one picture longer.
    assert len(layers) == clip.num_layers + (3 if suffix == ".mp4" else 1)
    assert layers.shape[2] == 2 * 6 * 32 + 6 + 2 * 12


def test_a_model_without_a_head_predicts_nothing() -> None:
    with_head, without = make_clip("videomae", r=3), make_clip("videomae", base_model=True, r=3)
    assert with_head.prediction
    assert not without.prediction
    assert without.trace.token_counts == with_head.trace.token_counts


# --- what is drawn
def test_a_film_shows_the_input_and_the_tokens_side_by_side(tmp_path: Path) -> None:
    clip = make_clip("vivit", r=5)
    pictures = film(save_tokens(tmp_path / "tokens.mp4", clip, scale=8, outline=0))
    drawn = clip.draw(scale=8, outline=0)
    height, width = drawn.shape[1:3]
    for picture, tokens, frame in zip(pictures, drawn, clip.frames, strict=True):
        rows = [
            top
            for top in range(len(picture) - height + 1)
            if np.abs(picture[top : top + height, 24 + width : 24 + 2 * width].astype(int) - tokens).mean() < 6
        ]
        assert rows  # H.264 blurs a little
        (top,) = rows[len(rows) // 2 : len(rows) // 2 + 1]
        enlarged = frame.permute(1, 2, 0).numpy().repeat(8, 0).repeat(8, 1).astype(int)
        assert np.abs(picture[top : top + height, 12 : 12 + width].astype(int) - enlarged).mean() < 12
        caption = picture[top + height + 4 :]
        assert (caption < 100).any()  # text
        assert (caption[:, -8:] > 200).all()  # that ends before the margin


def test_the_same_colours_in_all_pictures_of_a_gif(tmp_path: Path) -> None:
    """The tokens of the growth that no layer changes look the same from picture to picture."""
    clip = made_clip([list(range(12)), [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9]])
    pictures = film(save_layers(tmp_path / "layers.gif", clip, fill="distinct", scale=8, outline=0, max_frames=4))
    # Slot 0, from the second picture on: nothing happens there.
    left = pictures[1:, :, : 12 + 2 * 24 * 8 + 6]
    changed = (left[0] != left[1]).any(axis=(1, 2))
    # Only the rows of the title, which counts the tokens, change.
    assert changed.sum() <= 24
    assert (pictures[1] != pictures[2]).any()


def test_single_tokens_are_drawn_alone() -> None:
    clip = made_clip([[0, 0, 1, 2, 3, 4, 0, 5, 1, 6, 6, 6]])
    assert clip.largest(2) == [0, 6]
    plain, image = clip.draw(outline=0), clip.draw(outline=0, only=[0])
    owner = clip.tokens().repeat(2, 0).repeat(8, 1).repeat(8, 2)
    np.testing.assert_array_equal(image[owner == 0], plain[owner == 0])
    rest = image[owner != 0]
    assert (rest == rest[:, :1]).all()  # grey
    assert rest.max() <= 110
    kept = clip.draw(outline=0, only=[0], fill="pixels")
    np.testing.assert_array_equal(kept[owner == 0], clip.frames.permute(0, 2, 3, 1).numpy()[owner == 0])
    outlined = clip.draw(outline=1, only=[0, 6])
    for token in (0, 6):
        corner = np.argwhere(owner == token)[0]
        assert (outlined[tuple(corner)] == clip.colours[0][token]).all()


def test_single_tokens_are_found_by_pixel() -> None:
    clip = made_clip([[0, 0, 1, 2, 3, 4, 0, 5, 1, 6, 6, -1]])
    assert clip.token_at(frame=0, x=15, y=7) == 0
    assert clip.token_at(frame=1, x=16, y=0) == 1  # the second frame of the first slot
    assert clip.token_at(frame=2, x=8, y=7) == 5
    assert clip.token_at(frame=3, x=15, y=8) == 6
    assert clip.extent(0) == (3, 4)
    assert clip.extent(2) == (1, 2)
    with pytest.raises(ValueError, match="not dropped, got 3, 23 and 15"):
        clip.token_at(frame=3, x=23, y=15)
    with pytest.raises(ValueError, match=r"x must be in 0 to 23 .* got 24"):
        clip.token_at(frame=3, x=24, y=15)
    with pytest.raises(ValueError, match=r"must be in 0 to 6, .* got 7"):
        clip.extent(7)


def test_the_largest_of_each_frame_where_tokens_do_not_cross_frames() -> None:
    clip = made_clip([[0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5]])
    assert not clip.crosses_frames
    assert clip.largest(1) == [2, 3]
    assert clip.largest(9) == [2, 0, 1, 3, 4, 5]
    crossing = made_clip([[0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 0, 5]])
    assert crossing.largest(2) == [3, 0]


def test_outlines_tell_tokens_of_several_frames_from_those_of_one() -> None:
    clip = made_clip([[0, 1, 2, 3, 3, 4, 5, 6, 7, 0, 8, 9]])
    image = clip.draw(outline=1)
    across, inside, single = image[0, 0, 0], image[0, 8, 0], image[0, 0, 8]
    assert (across == clip.colours[0][0]).all()
    assert (image[2, 8, 0] == across).all()  # the same token in the other slot
    assert inside.min() > 200
    assert (inside == inside[0]).all()
    assert single.max() < 60
    # Tokens of a divided model never have coloured outlines.
    divided = make_clip("timesformer", r=3, scope="frame")
    edge = divided.draw(outline=1, scale=2)[:, 0]
    assert (edge == edge[..., :1]).all()


@pytest.mark.parametrize("mode", ["drop", "random_drop", "hybrid"])
@pytest.mark.parametrize("fill", ["mean", "pixels", "distinct"])
def test_dropped_places_are_hatched(mode: str, fill: str) -> None:
    clip = make_clip("videomae", r=6, mode=mode, **({"threshold": 0.99} if mode == "hybrid" else {}))
    dropped = (clip.tokens() < 0).repeat(2, 0).repeat(32, 1).repeat(32, 2)
    assert dropped.any()
    image = clip.draw(scale=4, fill=fill)
    hatched = image[dropped]
    assert (hatched == hatched[:, :1]).all()
    dark, light = np.unique(hatched)
    assert light - dark >= 64  # to be told from each other
    kept = image[~dropped].reshape(-1, 3)
    assert len(np.unique(kept, axis=0)) > 2
    assert legend(clip, [-1], fill, None, True).endswith("hatched: dropped.")


def test_the_legend_says_what_there_is_and_no_more() -> None:
    merged = made_clip([list(range(12)), [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 0]])
    assert legend(merged, [1], "mean", None, True) == (
        "Each token in the mean colour of all its pixels; coloured outline: one token over several frames; light "
        "outline: merged inside 2 frames; dark outline: not merged."
    )
    assert legend(merged, [0], "pixels", None, True) == "Dark outline: not merged."
    assert legend(merged, [0], "pixels", None, False) == ""
    assert legend(merged, [1], "distinct", [0], True) == (
        "Each token in a colour of its own, the same in all frames; all else dimmed."
    )
    assert "largest part" in legend(merged, [0, 1], "mean", None, True)
    tube, frame = (make_clip("timesformer", r=3, scope=scope) for scope in ("tube", "frame"))
    assert legend(tube, [-1], "distinct", None, True) == (
        "No token lies in more than one frame; one colour: the same places in every frame; counted but not drawn: the "
        "CLS token."
    )
    assert "one frame; each has its own colour;" in legend(frame, [-1], "distinct", None, True)
    assert legend(tube, [-1], "pixels", [1, 2], True).startswith("Outlines: one colour for the same places in every")
    assert legend(frame, [-1], "pixels", [1, 2], True).startswith("Outlines: one colour for each token; all else")
    assert legend(frame, [-1], "pixels", [1], True) == "All else dimmed."
    two_frames = make_clip("motionformer", r=3)
    assert legend(two_frames, [-1], "distinct", None, True).startswith("No token lies in more than 2 frames;")


def test_titles_count_the_tokens() -> None:
    clip, divided = make_clip("videomae", r=3), make_clip("timesformer", r=3)
    assert subject(clip, 3, None) == "23 of 32 tokens"
    assert subject(clip, 1, None) == "after layer 1 of 3: 29 of 32 tokens"
    assert subject(clip, 0, [5]) == "before the first of 3 layers: token 5: 1 of 32 patches, in 2 of 4 frames"
    assert subject(clip, 3, [5, 6]) == "2 of the 23 tokens"
    # The CLS token is one of 29.
    assert subject(divided, 3, None) == "29 of 65 tokens, 7 of 16 per frame"
    assert subject(make_clip("motionformer", r=3), 2, None).endswith("21 of 33 tokens, 10 of 16 per 2 frames")
    assert subject(make_clip("timesformer", r=0), 3, None) == "65 of 65 tokens"
    # What is dropped in the whole clip leaves frames with different numbers.
    assert subject(make_clip("videomae", r=3, mode="drop"), 3, None) == "23 of 32 tokens"


def test_long_captions_are_broken_not_cut() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    long = " ".join(["merging"] * 30) + " x" + "y" * 90
    one, many = compose([[("input", image)]], "a"), compose([[("input", image)]], long, long)
    assert many.shape[1] == one.shape[1]
    assert len(many) > len(one) + 250
    assert (many[:, -10:] == 255).all()
    assert many.shape[0] % 2 == many.shape[1] % 2 == 0


def test_captions_of_small_pictures_are_not_columns_of_letters() -> None:
    tiny = np.zeros((48, 48, 3), np.uint8)
    picture = compose([[("input, frame 0", tiny), ("60 of 288 tokens", tiny)]], "merge, r = 38 per layer, scope clip")
    assert len(picture) < 130  # one line each
    assert find(picture, tiny)


# --- files
def test_sheets(tmp_path: Path) -> None:
    clip = make_clip("motionformer", r=3)
    with Image.open(save_tokens(tmp_path / "tokens.png", clip)) as picture:
        four = picture.size
    with Image.open(save_tokens(tmp_path / "two.png", clip, max_frames=2)) as picture:
        two = picture.size
    assert two[0] < four[0]
    with Image.open(save_layers(tmp_path / "layers.png", clip)) as picture:
        assert picture.width == four[0]
        assert picture.height > four[1]
    assert save_tokens(tmp_path / "tokens.svg", clip).read_text().startswith("<?xml")
    assert spread_layers(12, 7) == [0, 2, 4, 6, 8, 10, 12]
    assert spread_layers(3, 7) == [0, 1, 2, 3]


@pytest.mark.parametrize(("rows", "columns", "patch"), [(2, 3, 8), (14, 14, 16), (14, 7, 16), (3, 8, 24)])
def test_sheets_have_every_pixel_of_the_pictures(rows: int, columns: int, patch: int, tmp_path: Path) -> None:
    """Thin outlines would get lost if pictures were scaled to fit, and patches would not be as wide as high."""
    geometry = ClipGeometry(TokenLayout(0, 2, rows * columns), rows, columns)
    source = torch.randint(rows * columns, (1, 2 * rows * columns))
    trace = TokenMergingTrace((source,), (torch.bincount(source[0], minlength=rows * columns).float()[None],))
    frames = torch.randint(256, (2, 3, rows * patch, columns * patch), dtype=torch.uint8)
    clip = TracedClip(frames, trace, geometry, name="made")
    with Image.open(save_tokens(tmp_path / "tokens.png", clip)) as image:
        sheet = np.asarray(image.convert("RGB"))
    scale = max(1, round(240 / (patch * max(rows, columns))))
    drawn = clip.draw(scale=scale, outline=geometry.outline(frames, scale))
    enlarged = -(-192 // drawn.shape[2])
    (first,), (second,) = (find(sheet, picture.repeat(enlarged, 0).repeat(enlarged, 1)) for picture in drawn)
    assert first[0] == second[0]
    assert second[1] > first[1] + drawn.shape[2] * enlarged
    assert find(sheet, frames[0].permute(1, 2, 0).numpy().repeat(scale * enlarged, 0).repeat(scale * enlarged, 1))


def test_labels_of_a_sheet_are_not_cut(tmp_path: Path) -> None:
    picture = np.zeros((1, 192, 192, 3), np.uint8)
    label = "a label that is much too long for its place, and one-long-word-without-any-place-to-break-it"
    with Image.open(save_sheet(tmp_path / "sheet.png", {label: picture}, ["frame 0"])) as image:
        sheet = np.asarray(image.convert("L"))
    ((top, left),) = np.argwhere(sheet == 0)[:1].tolist()
    assert (sheet[top:, :8] == 255).all()
    beside = sheet[top : top + 192, : left - 4]
    assert (beside.min(axis=1) < 128).sum() > 60  # several lines


def test_single_tokens_are_on_the_sheet() -> None:
    """A sheet has some of the frames: among them one for each token that was asked for."""
    tokens = np.zeros((16, 2, 2), dtype=int)
    tokens[0, 0, 0], tokens[5, 1, 1], tokens[9:, 0, 1] = 1, 2, 3
    shown = [2, 6, 10, 14, 18, 22, 26, 30]
    assert show_tokens(tokens, 32, shown, [0]) == shown
    assert show_tokens(tokens, 32, shown, [3]) == shown
    assert show_tokens(tokens, 32, shown, [1]) == [1, 6, 10, 14, 18, 22, 26, 30]
    assert show_tokens(tokens, 32, shown, [0, 1, 2, 3]) == [1, 6, 10, 14, 18, 22, 26, 30]
    assert show_tokens(tokens, 32, [30], [1, 2]) == [1]  # the first one, where there is no room


def test_the_frames_of_a_single_token_are_drawn(tmp_path: Path) -> None:
    clip = made_clip([[*range(6), *([6] * 12)]], slots=3)
    path = save_tokens(tmp_path / "first.png", clip, only=[2], max_frames=1, scale=8, outline=0)
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    (picture,) = clip.draw(only=[2], shown=[1], scale=8, outline=0)
    assert find(sheet, picture)


def test_only_sheets_need_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    clip = make_clip("videomae", r=3)
    assert save_tokens(tmp_path / "tokens.gif", clip).stat().st_size > 0
    with pytest.raises(ImportError, match=r"hf-video-tome\[viz\]"):
        save_tokens(tmp_path / "tokens.png", clip)


@pytest.mark.parametrize(("suffix", "fps"), [(".gif", 4), (".mp4", 4), (".webm", 2.5), (".mkv", 12)])
def test_films_run_at_the_rate_that_was_asked_for(suffix: str, fps: float, tmp_path: Path) -> None:
    pictures = [np.full((32, 48, 3), 40 * number, np.uint8) for number in range(5)]
    path = write_animation(tmp_path / f"film{suffix}", pictures, fps)
    read = film(path)
    assert read.shape == (5, 32, 48, 3)
    assert np.abs(read.astype(int) - np.stack(pictures)).max() <= 6
    if suffix == ".gif":
        with Image.open(path) as image:
            assert image.info["duration"] == 1000 / fps
            assert image.info["loop"] == 0
    else:
        assert probe_video(path).fps == pytest.approx(fps, rel=0.02)


def test_frames_that_are_not_square(tmp_path: Path) -> None:
    clip = made_clip([list(range(12)), [0, 0, 1, 2, 3, 4, 0, 5, 1, 6, 6, 7]])
    pictures = film(save_tokens(tmp_path / "tokens.gif", clip, scale=8))
    assert pictures.shape[2] == 2 * 192 + 36
    with Image.open(save_layers(tmp_path / "layers.png", clip)) as picture:
        assert picture.size[0] > picture.size[1] > 100


def test_what_does_not_go_is_refused(tmp_path: Path) -> None:
    clip = make_clip("videomae", r=3)
    refusals: list[tuple[str, dict[str, Any], str]] = [
        ("tokens.txt", {}, r"must end in one of \.mp4, \.gif, .*\.svg, got 'tokens\.txt'"),
        ("tokens.gif", {"fill": "mode"}, "fill must be one of 'mean', 'pixels', 'distinct', got 'mode'"),
        ("tokens.gif", {"only": [0, 999]}, "only must be of tokens that hold a place of the clip, got 999|got 999"),
        ("tokens.gif", {"layer": 4}, r"layer must be in 0 .* to 3 .* got 4"),
        ("tokens.gif", {"scale": 0}, "scale must be at least 1, got 0"),
        ("tokens.gif", {"outline": -1}, "outline must be at least 0, got -1"),
        ("tokens.gif", {"fps": 0}, "fps must be above 0, got 0"),
        ("tokens.png", {"max_frames": 0}, "max_frames must be at least 1, got 0"),
    ]
    for name, arguments, message in refusals:
        with pytest.raises(ValueError, match=message):
            save_tokens(tmp_path / name, clip, **arguments)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        save_tokens(tmp_path / "nowhere" / "tokens.gif", clip)
    with pytest.raises(ValueError, match="count must be at least 1"):
        clip.largest(0)
    with pytest.raises(ValueError, match="at least one picture"):
        write_animation(tmp_path / "film.gif", [], 1)
    assert list(tmp_path.iterdir()) == []


def test_shown_frames_have_the_colours_of_the_whole_clip() -> None:
    clip = make_clip("vivit", r=5)
    some = merged_tokens_image(clip.frames, clip.trace, clip.geometry, shown=[3, 0])
    np.testing.assert_array_equal(some, clip.draw()[[3, 0]])


def test_a_gif_keeps_the_colours_of_thin_outlines(tmp_path: Path) -> None:
    """Few pixels in bright colours beside many in dull ones: the former tell tokens apart."""
    rng = np.random.default_rng(0)
    outlines = {10: (255, 0, 0), 20: (0, 255, 0), 30: (40, 80, 255), 40: (255, 230, 0), 50: (255, 0, 255)}
    pictures = []
    for _ in range(4):
        picture = rng.integers(60, 140, (200, 200, 3), dtype=np.uint8)
        for row, colour in outlines.items():
            picture[row, :60] = colour
        pictures.append(picture)
    for picture in film(write_animation(tmp_path / "film.gif", pictures, 4)):
        for row, colour in outlines.items():
            assert np.abs(picture[row, :60].astype(int) - colour).max() <= 40
