from __future__ import annotations

import sys
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hf_video_tome.data import moving_digits
from hf_video_tome.data.moving_digits import (
    ACTIONS,
    NOUNS,
    REVERSED_VERB,
    SPLITS,
    VARIANTS,
    VERBS,
    MovingDigitsConfig,
    clip_label,
    render_clip,
    variant,
    write_clips,
)
from hf_video_tome.data.video.decoding import read_frames
from hf_video_tome.data.video.encoding import write_video

FRAMES = np.zeros((4, 16, 16, 3), dtype=np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second.astype(float)) ** 2)))


def noise_free(name: str = "standard") -> MovingDigitsConfig:
    return replace(VARIANTS[name], noise=0.0)


# --- labels
def test_label_layout() -> None:
    assert (len(VERBS), len(NOUNS), len(ACTIONS)) == (12, 10, 120)
    assert len(set(ACTIONS)) == 120
    assert ACTIONS[VERBS.index("turn_cw") * 10 + 7] == "turn_cw 7"
    label = clip_label("test", 5)
    assert label.action == label.verb * 10 + label.noun
    assert ACTIONS[label.action] == f"{VERBS[label.verb]} {NOUNS[label.noun]}"


def test_reversed_verb_is_an_involution_with_two_fixed_points() -> None:
    assert set(REVERSED_VERB) == set(VERBS)
    assert all(REVERSED_VERB[REVERSED_VERB[verb]] == verb for verb in VERBS)
    assert [verb for verb in VERBS if REVERSED_VERB[verb] == verb] == ["shake", "stay"]
    assert REVERSED_VERB["grow"] == "shrink"


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("first", [0, 240])
def test_evaluation_splits_are_balanced(split: str, first: int) -> None:
    assert Counter(clip_label(split, index).action for index in range(first, first + 120)) == Counter(range(120))
    # A short prefix is mixed as well: the demo uses few clips.
    assert len({clip_label(split, index).verb for index in range(24)}) >= 10


def test_training_labels_cover_everything_and_follow_the_seed() -> None:
    labels = [clip_label("train", index).action for index in range(2000)]
    assert len(set(labels)) == 120
    assert labels != [clip_label("train", index, seed=1).action for index in range(2000)]


def test_splits_share_no_handwriting() -> None:
    numbers = [number for part in SPLITS.values() for number in part]
    assert len(numbers) == len(set(numbers)) == 1797


@pytest.mark.parametrize("split", list(SPLITS))
def test_clip_label_is_the_label_of_the_render(split: str) -> None:
    for index in range(6):
        clip = render_clip(split, index)
        assert (clip.verb, clip.noun, clip.action) == clip_label(split, index)
        assert clip.name == ACTIONS[clip.action]


# --- rendering
def test_render_shape_and_determinism() -> None:
    first, second = render_clip("train", 3), render_clip("train", 3)
    assert first.frames.shape == (16, 48, 48, 3)
    assert first.frames.dtype == np.uint8
    assert first.frames.flags.c_contiguous
    np.testing.assert_array_equal(first.frames, second.frames)


def test_render_does_not_depend_on_global_random_state_or_order() -> None:
    expected = render_clip("train", 3).frames
    np.random.seed(1)
    torch.manual_seed(1)
    render_clip("test", 9)
    np.testing.assert_array_equal(render_clip("train", 3).frames, expected)


@pytest.mark.parametrize(("split", "index", "seed"), [("train", 4, 0), ("validation", 3, 0), ("train", 3, 1)])
def test_split_index_and_seed_change_the_clip(split: str, index: int, seed: int) -> None:
    assert not np.array_equal(render_clip("train", 3).frames, render_clip(split, index, seed=seed).frames)


@pytest.mark.parametrize("config", [noise_free(), VARIANTS["standard"], VARIANTS["noise"], VARIANTS["distractor"]])
@pytest.mark.parametrize("verb", VERBS[:10:2])
def test_paired_verbs_are_exact_time_reversals(verb: str, config: MovingDigitsConfig) -> None:
    forwards = render_clip("test", 11, config, verb=verb)
    backwards = render_clip("test", 11, config, verb=REVERSED_VERB[verb])
    np.testing.assert_array_equal(forwards.frames, backwards.frames[::-1])
    assert not np.array_equal(forwards.frames, backwards.frames)
    assert forwards.noun == backwards.noun
    assert ACTIONS[backwards.action].startswith(REVERSED_VERB[verb])


def digit_mask(verb: str, index: int = 2) -> np.ndarray:
    """Opacity of the digit in each frame, (num_frames, size, size): the clip against the same clip at low contrast."""
    config = replace(noise_free(), pan=0.0)
    full = render_clip("test", index, config, verb=verb).frames.astype(float)
    faint = render_clip("test", index, replace(config, contrast=0.5), verb=verb).frames.astype(float)
    return np.abs(full - faint).sum(-1)


def test_verbs_move_the_digit_as_their_names_say() -> None:
    def centre(mask: np.ndarray, axis: int) -> np.ndarray:
        weights = mask.sum(axis=axis)
        return (weights * np.arange(weights.shape[1])).sum(1) / weights.sum(1)

    left, up, grow, appear = (digit_mask(verb) for verb in ("left", "up", "grow", "appear"))
    assert centre(left, 1)[0] - centre(left, 1)[-1] > 10
    assert centre(up, 2)[0] - centre(up, 2)[-1] > 10
    assert grow[-1].sum() > 1.8 * grow[0].sum()
    assert appear[0].sum() == 0
    assert appear[-1].sum() > 0
    stay = digit_mask("stay")
    np.testing.assert_array_equal(stay, np.broadcast_to(stay[0], stay.shape))
    shake = digit_mask("shake")
    assert np.ptp(centre(shake, 1)) + np.ptp(centre(shake, 2)) > 2


def test_turn_cw_turns_clockwise() -> None:
    # The principal axis of a "1" leans further to the right (clockwise on a screen) at the end of the clip.
    index = next(index for index in range(120) if clip_label("test", index).noun == 1)

    def lean(mask: np.ndarray) -> float:
        y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
        weights = mask / mask.sum()
        x, y = x - (weights * x).sum(), y - (weights * y).sum()
        return float(-(weights * x * y).sum() / (weights * y * y).sum())

    mask = digit_mask("turn_cw", index)
    assert lean(mask[-1]) > lean(mask[8]) > lean(mask[0])


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("standard", "vp9")])
def test_variants_change_the_picture_but_not_the_label(name: str) -> None:
    standard, other = render_clip("test", 21), render_clip("test", 21, variant(name))
    assert standard.action == other.action
    assert psnr(standard.frames, other.frames) < 40


def test_vp9_variant_differs_in_the_codec_only() -> None:
    np.testing.assert_array_equal(render_clip("test", 21).frames, render_clip("test", 21, variant("vp9")).frames)
    assert variant("vp9").suffix == ".webm"


def test_size_and_length_follow_the_config() -> None:
    clip = render_clip("test", 0, MovingDigitsConfig(size=64, num_frames=8))
    assert clip.frames.shape == (8, 64, 64, 3)


# --- video files
@pytest.mark.parametrize(("name", "codec", "floor"), [("standard", "h264", 26.0), ("vp9", "vp9", 20.0)])
def test_written_clips_are_real_video_close_to_the_render(tmp_path: Path, name: str, codec: str, floor: float) -> None:
    import av

    written = write_clips(tmp_path / "clips", "test", range(3), variant(name))
    assert [label for _, label in written] == [clip_label("test", index) for index in range(3)]
    assert len(set(written)) == 3
    for index, (path, _) in enumerate(written):
        assert path.is_absolute()
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.codec.canonical_name == codec
            assert (stream.average_rate, stream.codec_context.width, stream.codec_context.height) == (8, 48, 48)
        decoded = read_frames(path, range(16)).permute(0, 2, 3, 1).numpy()
        assert psnr(decoded, render_clip("test", index, noise_free(name)).frames) > floor


@pytest.mark.parametrize("name", ["standard", "vp9"])
def test_write_clips_gives_the_same_video_every_time(tmp_path: Path, name: str) -> None:
    # Many times: x264 with its default options failed this once in five to fifty files.
    videos = [
        read_frames(write_clips(tmp_path, "test", [7], variant(name))[0].path, range(16)).numpy()
        for _ in range(25 if name == "standard" else 3)
    ]
    for video in videos[1:]:
        np.testing.assert_array_equal(video, videos[0])


@pytest.mark.parametrize(
    ("name", "codec", "options"), [("a.mp4", "libx264", {"crf": "0"}), ("a.webm", "libvpx-vp9", {"b:v": "1M"})]
)
def test_write_video_takes_arrays_and_tensors(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    frames = np.repeat(np.linspace(0, 255, 5).astype(np.uint8), 32 * 48 * 3).reshape(5, 32, 48, 3)
    for given in (frames, torch.from_numpy(frames)):
        path = write_video(tmp_path / name, given, fps=12.5, codec=codec, options=options)
        decoded = read_frames(path, range(5))
        assert decoded.shape == (5, 3, 32, 48)
        np.testing.assert_allclose(decoded.permute(0, 2, 3, 1).numpy(), frames, atol=6)


def test_write_video_replaces_a_file_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = {"tune": "zerolatency"}  # each frame goes into the file before the next one is encoded
    path = write_video(tmp_path / "clip.mp4", np.zeros_like(FRAMES), fps=8, options=at_once)
    before = path.read_bytes()
    seen = []
    real = av.VideoFrame.from_ndarray

    def look(*arguments, **options):
        seen.append(path.read_bytes())
        if len(seen) == len(FRAMES) + 3:
            raise RuntimeError("interrupted")
        return real(*arguments, **options)

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", look)
    write_video(path, np.full_like(FRAMES, 255), fps=8, options=at_once)
    assert seen == [before] * len(FRAMES)
    after = path.read_bytes()
    assert after != before
    assert read_frames(path, [0]).float().mean() > 250

    with pytest.raises(RuntimeError, match="interrupted"):
        write_video(path, np.repeat(FRAMES, 2, axis=0), fps=8, options=at_once)
    assert path.read_bytes() == after
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"frames": FRAMES.astype(np.float32)}, ValueError, "frames must have dtype uint8.*float32"),
        ({"frames": FRAMES[0]}, ValueError, r"frames must have the shape .*\(16, 16, 3\)"),
        ({"frames": FRAMES[:0]}, ValueError, "frames must have the shape"),
        ({"frames": [1, 2]}, TypeError, "frames must be a numpy array or a torch tensor, got list"),
        ({"frames": FRAMES[:, :15]}, ValueError, "even height and width.*15 x 16"),
        ({"fps": 0}, ValueError, "fps must be .* greater than 0, got 0"),
        ({"fps": float("nan")}, ValueError, "fps"),
        ({"fps": "fast"}, ValueError, "fps.*'fast'"),
        ({"codec": "nonsense"}, ValueError, "codec .*'nonsense'"),
        ({"codec": "aac"}, ValueError, "codec .*'aac'"),
        ({"pix_fmt": "nonsense"}, ValueError, "pix_fmt .*'nonsense'"),
        ({"path": "clip.txt"}, ValueError, "path must end in one of .mp4"),
        ({"path": "clip.webm"}, ValueError, "codec must be one of .* for a .webm file, got 'libx264'"),
        ({"path": "missing/clip.mp4"}, FileNotFoundError, "path.*missing"),
    ],
)
def test_write_video_refuses_bad_arguments_by_name(
    tmp_path: Path, changes: dict, error: type[Exception], message: str
) -> None:
    arguments = {"path": "clip.mp4", "frames": FRAMES, "fps": 8} | changes
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises(error, match=message):
        write_video(**arguments)


# --- arguments
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "split must be one of train, validation, test, got 'dev'"),
        ({"index": -1}, "index must be an integer of at least 0, got -1"),
        ({"index": 1.5}, "index must be an integer"),
        ({"seed": -3}, "seed must be an integer of at least 0, got -3"),
        ({"verb": "jump"}, "verb must be one of left, .*got 'jump'"),
    ],
)
def test_render_clip_refuses_bad_arguments_by_name(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_clip(**({"split": "test", "index": 0} | arguments))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 47),
        ("num_frames", 1),
        ("fps", 0),
        ("noise", -0.1),
        ("pan", float("nan")),
        ("texture", -1),
        ("contrast", 0),
        ("crf", 64),
    ],
)
def test_config_refuses_bad_values_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*got {value}"):
        MovingDigitsConfig(**{name: value})


def test_the_camera_variant_moves_the_background_of_every_clip() -> None:
    """So that hardly a patch stays as it is from one frame to the next, whatever the digit does."""

    def still(name: str) -> list[float]:
        clips = [render_clip("test", index, noise_free(name)).frames.astype(int) for index in range(12)]
        return [float((np.abs(np.diff(clip, axis=0)).max(-1) <= 1).mean()) for clip in clips]

    assert max(still("camera")) < 0.5 < max(still("standard"))


def test_variants_are_immutable_and_named() -> None:
    with pytest.raises(FrozenInstanceError):
        VARIANTS["standard"].noise = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        VARIANTS["new"] = MovingDigitsConfig()  # type: ignore[index]
    with pytest.raises(ValueError, match=r"name must be one of standard, .*got 'easy'"):
        variant("easy")


def test_missing_scikit_learn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    moving_digits._digit_images.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install \"hf-video-tome\[demo\]\""):
        render_clip("test", 0)
    clip_label("test", 0)  # needs no scikit-learn


# --- datasets
def test_builder_end_to_end(tmp_path: Path) -> None:
    from hf_video_tome.data.builders.moving_digits import MovingDigits

    builder = MovingDigits(cache_dir=str(tmp_path), num_train=3, num_validation=0, num_test=4)
    builder.download_and_prepare()
    assert sorted(builder.as_dataset()) == ["test", "train"]
    test = builder.as_dataset(split="test")
    assert test.features["label"].names == list(ACTIONS)
    assert test.features["verb"].names == list(VERBS)
    assert test.features["noun"].names == list(NOUNS)
    for index, row in enumerate(test):
        assert (row["verb"], row["noun"], row["label"]) == clip_label("test", index)
        path = Path(row["video"]["path"])
        assert path.is_absolute()
        assert tmp_path in path.parents
        assert read_frames(path, [0, 15]).shape == (2, 3, 48, 48)


def test_builder_variants_and_seeds_do_not_share_files(tmp_path: Path) -> None:
    from hf_video_tome.data.builders.moving_digits import MovingDigits

    paths = set()
    for config_name, seed in (("standard", 0), ("standard", 1), ("contrast", 0), ("vp9", 0)):
        builder = MovingDigits(
            cache_dir=str(tmp_path), config_name=config_name, seed=seed, num_train=0, num_validation=0, num_test=1
        )
        builder.download_and_prepare()
        paths.add(builder.as_dataset(split="test")[0]["video"]["path"])
    assert len(paths) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": -1}, "num_train must be an integer of at least 0, got -1"),
        ({"seed": 0.5}, "seed must be an integer"),
        ({"config_name": "easy"}, "'easy' not found"),
    ],
)
def test_builder_refuses_bad_arguments_by_name(tmp_path: Path, arguments: dict, message: str) -> None:
    from hf_video_tome.data.builders.moving_digits import MovingDigits

    with pytest.raises(ValueError, match=message):
        MovingDigits(cache_dir=str(tmp_path), **arguments)
