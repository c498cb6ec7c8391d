"""`ClipProcessor`: the image processor of models whose own processors need torchvision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline

import hf_video_tome
from hf_video_tome.data.encoding import write_video
from hf_video_tome.data.transforms import ClipTransform
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
    batch = processor([frames, pictures], return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(batch, expected.expand(2, -1, -1, -1, -1))
    assert isinstance(processor(frames, return_tensors="np")["pixel_values_videos"], np.ndarray)
    gray = processor([picture.convert("L") for picture in pictures])["pixel_values_videos"]
    assert gray.shape == expected.shape


@pytest.mark.parametrize("wrong", [[], np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8, 1), np.uint8)])
def test_refuses_what_is_no_clip(wrong):
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        hf_video_tome.ClipProcessor.from_transform(TRANSFORMS[0])(wrong)


def test_settings_that_say_too_little_or_too_much_are_refused():
    with pytest.raises(ValueError, match=r"ClipProcessor: the key 'do_resize' is missing"):
        hf_video_tome.ClipProcessor(crop_size=32)
    with pytest.raises(ValueError, match=r"rescale_offset must be 0 or -1 in a processor, got 0\.5"):
        hf_video_tome.ClipProcessor.from_transform(ClipTransform(rescale_offset=0.5))


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


def test_an_image_processor_file_that_names_the_video_processor_is_enough(checkpoint):
    (checkpoint / "video_preprocessor_config.json").rename(checkpoint / "preprocessor_config.json")
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    assert type(processor) is hf_video_tome.ClipProcessor
    assert processor.transform == ClipTransform(resize=36, crop=(32, 32))


def test_a_checkpoint_without_a_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"preprocessor_config\.json"):
        hf_video_tome.ClipProcessor.from_pretrained(tmp_path)
