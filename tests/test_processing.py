"""`ClipProcessor`: the video and image processor of the pipeline without torchvision."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline
from transformers.pipelines import video_classification
from transformers.video_utils import load_video

import hf_video_tome
from hf_video_tome.data.transforms import ClipTransform
from hf_video_tome.data.video.encoding import write_video
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS

# As the checkpoints of V-JEPA 2 on the Hub have it, but for the size
VIDEO_PROCESSOR = {
    "video_processor_type": "VJEPA2VideoProcessor",
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 36},
}


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A V-JEPA 2 checkpoint with the one file for its video processor."""
    architecture = ARCHITECTURES["vjepa2"]
    torch.manual_seed(0)
    config = architecture.stock_config_class(**TINY_CONFIGS["vjepa2"])
    architecture.stock_head_class(config).save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "video_preprocessor_config.json").write_text(json.dumps(VIDEO_PROCESSOR))
    return tmp_path / "checkpoint"


TRANSFORMS = [
    ClipTransform(resize=36, crop=(32, 32)),
    ClipTransform(resize=(32, 40), crop=None, mean=None, std=None, resample="bicubic"),
    ClipTransform(resize=None, crop=(32, 48), rescale_factor=1 / 127.5, rescale_offset=-1.0, resample="nearest"),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_survives_saving_and_loading(transform, tmp_path, frames):
    processor = hf_video_tome.ClipProcessor.from_transform(transform)
    assert processor.transform == transform
    processor.save_pretrained(tmp_path)
    for loaded in (
        hf_video_tome.ClipProcessor.from_pretrained(tmp_path),
        hf_video_tome.ClipProcessor(**processor.to_dict()),
        AutoImageProcessor.from_pretrained(tmp_path),
    ):
        assert type(loaded) is hf_video_tome.ClipProcessor
        assert loaded.transform == transform
        assert loaded.to_dict() == processor.to_dict()
    expected = transform(torch.from_numpy(frames).permute(0, 3, 1, 2))
    assert torch.equal(processor(list(frames), return_tensors="pt")["pixel_values_videos"], expected[None])
    assert ClipTransform.from_pretrained(tmp_path) == transform  # as the command line reads it


def test_takes_clips_in_any_form(frames):
    processor = hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0])
    expected = processor(list(frames))["pixel_values_videos"]
    assert expected.shape == (1, 6, 3, 32, 32)
    assert expected.dtype == torch.float32
    pictures = [Image.fromarray(frame) for frame in frames]
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    one_clip = (frames, tuple(frames), pictures, tensor, tensor.numpy(), list(tensor), list(tensor.numpy()))
    for clip in (*one_clip, [frames], [list(frames)], [pictures], [tensor], (tensor,)):
        assert torch.equal(processor(clip, return_tensors="pt")["pixel_values_videos"], expected)
    mixed = [torch.from_numpy(frames[0]), pictures[1], *frames[2:]]
    assert torch.equal(processor(mixed)["pixel_values_videos"], expected)
    batch = processor([frames, pictures], return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(batch, expected.expand(2, -1, -1, -1, -1))
    assert isinstance(processor(frames, return_tensors="np")["pixel_values_videos"], np.ndarray)
    gray = processor([picture.convert("L") for picture in pictures])["pixel_values_videos"]
    assert gray.shape == expected.shape


GOOD = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([], ValueError, r"images must be a video, the frames of a clip or a list of either, got \[\]"),
        (None, ValueError, "got None"),
        ("clip.mp4", TypeError, "Should be an url linking to an video or a local path"),
        (Image.new("RGB", (8, 8)), ValueError, "images must be a video, the frames of a clip"),
        (GOOD[0], ValueError, r"images must be .*, got a ndarray of shape \(8, 8, 3\)"),
        ([[]], ValueError, "a clip must have at least one frame"),
        ([["a.png"]], ValueError, r"a frame must be a PIL image, .*, got 'a\.png'"),
        ([GOOD, GOOD[0]], ValueError, r"a clip must be a list of frames, .*got a ndarray of shape \(8, 8, 3\)"),
        ([GOOD[0], GOOD[0, :4]], ValueError, r"must have one shape, got \(4, 8, 3\) and \(8, 8, 3\)"),
        ([GOOD, GOOD[:1]], ValueError, r"the same number of frames .* got \(1, 3, 32, 32\) and \(2, 3, 32, 32\)"),
        (GOOD.astype(np.float32), TypeError, "must hold uint8 values, 0 to 255, got float32"),
        (torch.zeros(2, 3, 8, 8), TypeError, r"must hold uint8 values, 0 to 255, got torch\.float32"),
        (GOOD[..., :1], ValueError, r"must have the shape \(H, W, 3\) or \(3, H, W\), got \(8, 8, 1\)"),
        (GOOD[:0], ValueError, "the shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__),
)
def test_refuses_what_is_no_clip(wrong, error, message):
    with pytest.raises(error, match=message):
        hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0])(wrong)


def test_takes_arrays_that_torch_cannot_share(frames):
    processor = hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0])
    expected = processor(frames[::-1].copy())["pixel_values_videos"]
    frames.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(processor(frames[::-1])["pixel_values_videos"], expected)
        assert torch.equal(processor(list(frames[::-1]))["pixel_values_videos"], expected)


# --- settings of one call
OVERRIDES = [
    ({"do_normalize": False}, {"mean": None, "std": None}),
    ({"do_resize": False}, {"resize": None}),
    ({"do_center_crop": False}, {"crop": None}),
    ({"do_rescale": False, "do_normalize": False}, {"rescale_factor": 1.0, "mean": None, "std": None}),
    ({"size": {"height": 40, "width": 50}, "crop_size": 24}, {"resize": (40, 50), "crop": (24, 24)}),
    ({"image_mean": [0.1, 0.2, 0.3], "image_std": 0.5}, {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}),
    ({"resample": 3, "rescale_factor": 1 / 127.5, "rescale_offset": True}, {"resample": "bicubic"}),
    ({"do_normalize": None, "size": None}, {}),
]


@pytest.mark.parametrize(("settings", "changes"), OVERRIDES, ids=[str(settings) for settings, _ in OVERRIDES])
def test_settings_of_a_call_replace_those_of_the_processor(settings, changes, frames, checkpoint):
    if "rescale_offset" in settings:
        changes = {**changes, "rescale_factor": 1 / 127.5, "rescale_offset": -1.0}
    transform = replace(TRANSFORMS[0], **changes)
    expected = transform(torch.from_numpy(frames).permute(0, 3, 1, 2))[None]
    processor = hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0])
    own = processor(frames)["pixel_values_videos"]
    assert torch.equal(processor(frames, device="cpu", **settings)["pixel_values_videos"], expected)
    assert torch.equal(processor.preprocess(frames, **settings)["pixel_values_videos"], expected)
    assert torch.equal(processor(frames)["pixel_values_videos"], own)  # for one call alone
    for name, value in settings.items():
        if value is not None:
            setattr(processor, name, value)
    assert torch.equal(processor(frames)["pixel_values_videos"], expected)
    if not settings.get("size"):  # the stock class derives it from the crop
        loaded = hf_video_tome.ClipProcessor.from_pretrained(checkpoint, **settings)
        assert torch.equal(loaded(frames)["pixel_values_videos"], expected)


def test_the_size_of_v_jepa_2_follows_a_crop_given_on_loading(checkpoint):
    (checkpoint / "video_preprocessor_config.json").rename(checkpoint / "preprocessor_config.json")
    for loaded in (
        hf_video_tome.ClipProcessor.from_pretrained(checkpoint, crop_size=64, return_unused=1),
        AutoImageProcessor.from_pretrained(checkpoint, crop_size=64),
    ):
        assert loaded.transform == ClipTransform(resize=73, crop=(64, 64))


def test_a_step_that_is_left_out_can_be_asked_for(tmp_path, frames):
    settings = {**VIDEO_PROCESSOR, "do_normalize": False, "do_rescale": False, "do_center_crop": False}
    processor = hf_video_tome.ClipProcessor(**settings)
    assert processor.transform == ClipTransform(resize=36, crop=None, rescale_factor=1.0, mean=None, std=None)
    processor.save_pretrained(tmp_path)
    for each in (processor, hf_video_tome.ClipProcessor.from_pretrained(tmp_path)):
        values = each(frames, do_normalize=True, do_rescale=True, do_center_crop=True)["pixel_values_videos"]
        expected = hf_video_tome.ClipProcessor(**VIDEO_PROCESSOR)(frames)["pixel_values_videos"]
        assert torch.equal(values, expected)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"do_normalise": False}, TypeError, "ClipProcessor got do_normalise=False; it knows do_resize, size"),
        ({"num_frames": 7}, ValueError, "num_frames must be at most the 6 of the clip, got 7"),
        ({"do_normalize": "no"}, ValueError, "ClipProcessor: 'do_normalize' must be True or False, got 'no'"),
        ({"crop_size": {"shortest_edge": 3}}, ValueError, r"'crop_size' must be an integer or .*got \{'shortest_edge"),
        ({"image_mean": [0.5]}, ValueError, "mean must be a tuple of 3"),
        ({"resample": 1}, ValueError, r"'resample' must be one of .*, got 1 \(lanczos\)"),
    ],
)
def test_settings_of_a_call_that_are_wrong_are_refused(settings, error, message, frames):
    with pytest.raises(error, match=message):
        hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0])(frames, **settings)


@pytest.mark.parametrize("value", [-1, 0, 2.5, True, "8", [8]])
def test_a_number_of_frames_that_is_none_is_refused(value, frames):
    processor, message = hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0]), "num_frames must be an int of at "
    for use in (
        lambda: hf_video_tome.ClipProcessor(**VIDEO_PROCESSOR, num_frames=value),
        lambda: processor(frames, num_frames=value),
        lambda: processor(frames, num_frames=value, do_sample_frames=False),
    ):
        with pytest.raises(ValueError, match=re.escape(f"{message}least 1, or None for all frames, got {value!r}")):
            use()


def test_whether_frames_are_sampled_is_true_or_false(frames):
    processor = hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0])
    for use in (
        lambda: hf_video_tome.ClipProcessor(**VIDEO_PROCESSOR, do_sample_frames="no"),
        lambda: processor(frames, num_frames=2, do_sample_frames="no"),
    ):
        with pytest.raises(ValueError, match="do_sample_frames must be True, False or None, got 'no'"):
            use()


def test_a_step_without_its_settings_is_refused(frames):
    processor = hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[1])
    with pytest.raises(ValueError, match="the key 'crop_size' is missing"):
        processor(frames, do_center_crop=True)


def test_settings_on_loading_that_are_wrong_name_the_file(checkpoint):
    with pytest.raises(ValueError, match=r"video_preprocessor_config\.json: 'do_resize' must be True or False, got 2"):
        hf_video_tome.ClipProcessor.from_pretrained(checkpoint, do_resize=2)


def test_settings_that_say_too_little_or_too_much_are_refused():
    with pytest.raises(ValueError, match=r"ClipProcessor: the key 'do_resize' is missing"):
        hf_video_tome.ClipProcessor(crop_size=32)
    with pytest.raises(ValueError, match=r"rescale_offset must be 0 or -1 in a processor, got 0\.5"):
        hf_video_tome.ClipProcessor.from_transform(ClipTransform(rescale_offset=0.5))


def test_reads_videos_as_transformers_does(tmp_path, frames):
    clip = str(write_video(tmp_path / "clip.mp4", frames, fps=10))
    processor = hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0])
    for num_frames, indices in ((None, range(6)), (4, [0, 1, 3, 4])):
        decoded, metadata = load_video(clip, num_frames=num_frames)
        assert list(metadata.frames_indices) == list(indices)
        expected = processor(decoded)["pixel_values_videos"]
        for video in (clip, Path(clip), [clip], load_video(clip)[0]):
            assert torch.equal(processor(video, num_frames=num_frames)["pixel_values_videos"], expected)
    assert len(processor([clip, clip], num_frames=4, do_sample_frames=True)["pixel_values_videos"]) == 2
    assert processor(clip, num_frames=4, do_sample_frames=False)["pixel_values_videos"].shape[1] == 6


def test_the_pipeline_takes_it_where_transformers_finds_no_processor(checkpoint, tmp_path, frames):
    clip = write_video(tmp_path / "clip.mp4", frames, fps=10)
    processor = hf_video_tome.ClipProcessor.from_pretrained(checkpoint)
    assert processor.transform == ClipTransform(resize=36, crop=(32, 32))
    arguments = {"model_kwargs": {"token_merging_r": 6}, "device": "cpu"}
    by_argument = pipeline("video-classification", str(checkpoint), image_processor=processor, **arguments)
    expected = by_argument(str(clip), top_k=7)
    assert by_argument.model.config.token_merging_r == 6

    processor.save_pretrained(checkpoint)  # from now on it is found
    for files in (("video_preprocessor_config.json", "preprocessor_config.json"), ("preprocessor_config.json",)):
        assert {path.name for path in checkpoint.glob("*processor*")} == set(files)
        classify = pipeline("video-classification", str(checkpoint), **arguments)
        assert type(classify.image_processor) is hf_video_tome.ClipProcessor
        assert classify(str(clip), top_k=7) == expected
        (checkpoint / "video_preprocessor_config.json").unlink(missing_ok=True)


@pytest.mark.parametrize("model_type", ["vjepa2", "videomae"])
def test_the_pipeline_takes_it_as_video_processor_without_a_warning(model_type, tmp_path, frames, monkeypatch):
    architecture = ARCHITECTURES[model_type]
    torch.manual_seed(0)
    model = architecture.stock_head_class(architecture.stock_config_class(**TINY_CONFIGS[model_type]))
    model.save_pretrained(tmp_path)
    settings = VIDEO_PROCESSOR if model_type == "vjepa2" else {"image_processor_type": "VideoMAEImageProcessor"}
    size = {"crop_size": model.config.image_size, "size": model.config.image_size} if model_type == "videomae" else {}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, **size}))
    clip = str(write_video(tmp_path / "clip.mp4", np.concatenate([frames] * 4), fps=10))
    warned: list[str] = []
    monkeypatch.setattr(video_classification.logger, "warning_once", warned.append)
    pipeline(
        "video-classification", str(tmp_path), image_processor=hf_video_tome.ClipProcessor.from_pretrained(tmp_path)
    )
    assert "`image_processor` for video classification is deprecated" in warned.pop(), "else no warning means nothing"

    processor = hf_video_tome.ClipProcessor.from_pretrained(tmp_path)
    assert processor.model_input_names == [model.main_input_name]
    other = hf_video_tome.ClipProcessor.from_pretrained(tmp_path, model_input_name="pixel_values")
    assert other.model_input_names == ["pixel_values"]
    classify = pipeline("video-classification", str(tmp_path), video_processor=processor, device="cpu")
    answers = classify(clip, top_k=2)
    assert warned == []
    decoded, _ = load_video(clip, num_frames=classify.model.config.num_frames)
    with torch.inference_mode():
        expected = model.eval()(**processor(decoded)).logits.softmax(-1).topk(2).values[0]
    assert [answer["score"] for answer in answers] == pytest.approx(expected.tolist(), abs=1e-5)


def test_an_image_processor_file_that_names_the_video_processor_is_enough(checkpoint):
    (checkpoint / "video_preprocessor_config.json").rename(checkpoint / "preprocessor_config.json")
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    assert type(processor) is hf_video_tome.ClipProcessor
    assert processor.transform == ClipTransform(resize=36, crop=(32, 32))


def test_a_checkpoint_without_a_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"preprocessor_config\.json"):
        hf_video_tome.ClipProcessor.from_pretrained(tmp_path)
