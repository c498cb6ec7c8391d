from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    TimesformerConfig,
    VideoMAEConfig,
    VideoPrismVisionConfig,
    VivitConfig,
    VivitImageProcessor,
    VJEPA2Config,
)
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from hf_video_tome import MotionformerConfig
from hf_video_tome.data.transforms import ClipTransform

SIZES = [(48, 64), (50, 50), (37, 91), (120, 68), (240, 320)]


def random_frames(size, num_frames=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 3, *size), dtype=torch.uint8, generator=generator)


def smooth_frames(size, num_frames=2):
    noise = torch.rand((num_frames, 3, 5, 5), generator=torch.Generator().manual_seed(1)) * 255
    return torch.nn.functional.interpolate(noise, size=size, mode="bilinear").round().to(torch.uint8)


def stock(processor, frames):
    images = [np.ascontiguousarray(frame) for frame in frames.permute(0, 2, 3, 1).numpy()]
    return processor(images, input_data_format="channels_last", return_tensors="pt")["pixel_values"][0]


def as_ours(processor) -> ClipTransform:
    return ClipTransform.from_dict(json.loads(processor.to_json_string()))


VIDEOMAE = [
    {},
    {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 36}},
    {"size": {"height": 40, "width": 56}, "crop_size": {"height": 40, "width": 40}},
    {"size": {"shortest_edge": 33}, "crop_size": {"height": 48, "width": 35}},  # crop beyond the frame: padding
    {"do_center_crop": False, "size": {"shortest_edge": 32}},
    {"do_normalize": False},
    {"do_normalize": False, "do_rescale": False},
    {"size": {"shortest_edge": 40}, "resample": 3, "crop_size": {"height": 32, "width": 32}},
]
VIVIT = [
    {},
    {"do_normalize": False},
    {"offset": False, "rescale_factor": 1 / 255},
    {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "processor",
    [VideoMAEImageProcessorPil(**settings) for settings in VIDEOMAE]
    + [VivitImageProcessor(**settings) for settings in VIVIT],
    ids=lambda processor: type(processor).__name__,
)
@pytest.mark.parametrize("make", [random_frames, smooth_frames])
def test_agrees_with_the_stock_processors(processor, size, make):
    frames = make(size)
    ours, expected = as_ours(processor)(frames), stock(processor, frames)
    assert ours.shape == expected.shape
    assert ours.dtype == torch.float32
    # Both round to uint8 after the resize, where they may fall on two sides of a half: one level, in model units.
    # Bicubic overshoots and clips in between, and Pillow chooses the order of its passes: noise can differ by more.
    std = min(processor.image_std) if processor.do_normalize else 1
    level = (processor.rescale_factor if processor.do_rescale else 1) / std
    levels = (ours - expected).abs() / level
    allowed = 1 if processor.resample == 2 else 2 if make is smooth_frames else 20
    assert levels.max() <= allowed + 1e-4
    assert levels.mean() < (0.35 if allowed < 20 else 1)


@pytest.mark.parametrize("processor", [VideoMAEImageProcessorPil(), VivitImageProcessor()])
def test_is_exact_where_nothing_is_resized(processor):
    size = {VideoMAEImageProcessorPil: (224, 250), VivitImageProcessor: (300, 256)}[type(processor)]
    frames = random_frames(size)
    assert torch.equal(as_ours(processor)(frames), stock(processor, frames))


def test_nearest_is_exact():
    from PIL import Image

    transform = ClipTransform(resize=(33, 57), crop=None, rescale_factor=1.0, mean=None, std=None, resample="nearest")
    for size in SIZES:
        frames = random_frames(size)
        images = [Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((57, 33), 0) for frame in frames]
        expected = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
        assert torch.equal(transform(frames), expected.float())


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_float_path_of_other_devices_agrees(resample, monkeypatch):
    from hf_video_tome.data import transforms

    class Elsewhere:  # stands for frames on an accelerator: takes the float path
        type = "elsewhere"

    frames = random_frames((48, 64))
    expected = transforms._resize(frames, (32, 43), resample).int()
    monkeypatch.setattr(torch.Tensor, "device", Elsewhere())
    found = transforms._resize(frames, (32, 43), resample).int()
    assert (found - expected).abs().max() <= (1 if resample == "bilinear" else 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees():
    frames = random_frames((240, 320))
    transform = ClipTransform()
    levels = (transform(frames.cuda()).cpu() - transform(frames)).abs() * 255 * 0.224
    assert levels.max() <= 1.01


def test_frames_do_not_depend_on_each_other():
    transform, frames = ClipTransform(resize=40, crop=(32, 32)), random_frames((48, 64), 4)
    together = transform(frames)
    assert torch.equal(together, torch.cat([transform(frame[None]) for frame in frames]))
    assert torch.equal(together, transform(frames.contiguous(memory_format=torch.channels_last)))
    assert together.is_contiguous()


# Views


@pytest.mark.parametrize("size", [*SIZES, (64, 48), (91, 37)])
@pytest.mark.parametrize("crop", [(32, 32), (24, 40)])
def test_three_crops_lie_along_the_longer_side(size, crop):
    transform, frames = ClipTransform(resize=40, crop=crop), random_frames(size)
    whole = ClipTransform(resize=40, crop=None).crop_views(frames)[0]
    height, width = whole.shape[-2:]
    views = transform.crop_views(frames, num_crops=3)
    assert views.shape == (3, 2, 3, *crop)
    assert views.dtype == torch.uint8
    assert views.is_contiguous()
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    for view, end in zip(views, (0, None, 1), strict=True):
        y, x = top, left
        if end is not None and width >= height:
            x = end * (width - crop[1])
        elif end is not None:
            y = end * (height - crop[0])
        assert torch.equal(view, whole[:, :, y : y + crop[0], x : x + crop[1]])


@pytest.mark.parametrize("processor", [VideoMAEImageProcessorPil(**settings) for settings in VIDEOMAE[:5]])
def test_the_middle_of_three_crops_is_the_one_crop(processor):
    transform = as_ours(processor)
    for size in SIZES:
        frames = random_frames(size)
        one, three = transform.crop_views(frames), transform.crop_views(frames, num_crops=3)
        assert one.shape[0] == 1
        assert torch.equal(one[0], three[1])
        assert torch.equal(transform(frames), transform.normalize(one)[0])
        assert torch.equal(transform.normalize(three)[1], transform(frames))


def test_three_crops_that_do_not_fit_are_all_the_same():
    views = ClipTransform(resize=None, crop=(20, 24)).crop_views(random_frames((16, 24)), num_crops=3)
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])
    assert not views[:, :, :, :2].any()  # padded above and below
    assert not views[:, :, :, -2:].any()


def test_without_a_crop_there_is_one_view():
    transform, frames = ClipTransform(resize=(20, 30), crop=None), random_frames((48, 64))
    assert transform.crop_views(frames).shape == (1, 2, 3, 20, 30)
    with pytest.raises(ValueError, match=r"num_crops must be 1 with a transform that takes whole frames.* got 3"):
        transform.crop_views(frames, num_crops=3)
    for wrong in (0, 2, True, 3.0):
        with pytest.raises(ValueError, match=f"num_crops must be 1 or 3, got {wrong}"):
            ClipTransform().crop_views(frames, num_crops=wrong)


@pytest.mark.parametrize(
    "transform", [ClipTransform(), ClipTransform(mean=None, std=None), ClipTransform(rescale_offset=-1.0)]
)
def test_normalize_does_not_depend_on_the_batch(transform):
    views = torch.stack([random_frames((8, 10), seed=seed) for seed in range(6)])  # (6, 2, 3, 8, 10)
    expected = torch.stack([transform.normalize(clip) for clip in views])
    assert expected.dtype == torch.float32
    for shape in ((6, 2), (2, 3, 2), (12,), (1, 6, 1, 2)):
        found = transform.normalize(views.reshape(*shape, 3, 8, 10))
        assert torch.equal(found.reshape(expected.shape), expected)
    channels_last = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    found = transform.normalize(channels_last)
    assert found.is_contiguous()
    assert torch.equal(found.reshape(expected.shape), expected)
    assert torch.equal(transform.normalize(views[0, 0]), expected[0, 0])


def test_normalize_is_the_formula_for_every_value():
    frames = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    expected = (torch.arange(256).double() / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(ClipTransform().normalize(frames), expected.float(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (torch.zeros(2, 3, 8, 8), TypeError, "must be a uint8 tensor .*, got a torch.float32 tensor"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), ValueError, r"shape \(..., 3, h, w\).*got \(2, 8, 8, 3\)"),
        (torch.zeros(3, 8, dtype=torch.uint8), ValueError, r"got \(3, 8\)"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), ValueError, "none of them 0"),
    ],
)
def test_input_of_normalize_is_validated(frames, error, message):
    with pytest.raises(error, match=message):
        ClipTransform().normalize(frames)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_normalize_is_exact_on_a_gpu():
    views = ClipTransform().crop_views(random_frames((240, 320)), num_crops=3)
    assert torch.equal(ClipTransform().normalize(views.cuda()).cpu(), ClipTransform().normalize(views))


# Reading configurations


def save(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    return folder


SMALL = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}


@pytest.mark.parametrize("processor", [VideoMAEImageProcessorPil(**SMALL), VivitImageProcessor(**SMALL)])
def test_reads_what_a_stock_processor_saved(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    transform = ClipTransform.from_pretrained(tmp_path)
    assert transform == as_ours(processor)
    assert transform.output_size == (32, 32)
    assert ClipTransform.from_pretrained(str(tmp_path / "preprocessor_config.json")) == transform


def test_old_files_with_integer_sizes_and_few_keys():
    old = {"feature_extractor_type": "VideoMAEFeatureExtractor", "size": 32, "crop_size": 32, "resample": 2}
    transform = ClipTransform.from_dict(old)
    assert (transform.resize, transform.crop, transform.rescale_factor) == (32, (32, 32), 1 / 255)
    assert transform.mean == (0.5, 0.5, 0.5)


def test_video_processor_files(tmp_path):
    vjepa = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": 256, "size": {"shortest_edge": 999}}
    transform = ClipTransform.from_pretrained(save(tmp_path, "video_preprocessor_config.json", vjepa))
    assert (transform.resize, transform.crop) == (292, (256, 256))  # as the stock class, which derives the size
    assert transform.mean == (0.485, 0.456, 0.406)
    prism = {
        "video_processor_type": "LlavaOnevisionVideoProcessor",
        "do_resize": True,
        "size": {"height": 288, "width": 288},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "resample": 3,
    }
    transform = ClipTransform.from_dict(prism)
    assert transform == ClipTransform((288, 288), None, 1 / 255, 0.0, None, None, "bicubic")


def test_order_of_files(tmp_path):
    save(tmp_path, "preprocessor_config.json", {"image_processor_type": "VideoMAEImageProcessor", "crop_size": 1})
    assert ClipTransform.from_pretrained(tmp_path).crop == (1, 1)
    save(
        tmp_path, "video_preprocessor_config.json", {"video_processor_type": "VideoMAEVideoProcessor", "crop_size": 2}
    )
    assert ClipTransform.from_pretrained(tmp_path).crop == (2, 2)
    save(tmp_path, "processor_config.json", {"processor_class": "X"})
    assert ClipTransform.from_pretrained(tmp_path).crop == (2, 2)
    nested = {"video_processor": {"video_processor_type": "VideoMAEVideoProcessor", "crop_size": 3}}
    save(tmp_path, "processor_config.json", nested)
    assert ClipTransform.from_pretrained(tmp_path).crop == (3, 3)


def test_folder_without_a_file_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no .*preprocessor_config.json.*ClipTransform.from_config"):
        ClipTransform.from_pretrained(tmp_path, VideoMAEConfig())
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ClipTransform.from_pretrained(tmp_path / "missing")


def test_hub_id_that_is_not_in_the_cache(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"someone/model has no .* on the Hub \(or, offline, in its cache\)"):
        ClipTransform.from_pretrained("someone/model", cache_dir=tmp_path, local_files_only=True)


def test_hub_cache(tmp_path):
    snapshot = tmp_path / "models--someone--model" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save(snapshot, "preprocessor_config.json", {"image_processor_type": "VivitImageProcessor", **SMALL})
    (tmp_path / "models--someone--model" / "refs").mkdir()
    (tmp_path / "models--someone--model" / "refs" / "main").write_text("0" * 40)
    transform = ClipTransform.from_pretrained("someone/model", cache_dir=tmp_path, local_files_only=True)
    assert (transform.resize, transform.crop, transform.rescale_offset) == (40, (32, 32), -1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "'do_resize' is missing, and it names no processor class"),
        ({"image_processor_type": "OtherProcessor"}, "'do_resize' is missing, and its class, 'OtherProcessor'"),
        ({"size": {"longest_edge": 3}}, "'size' must be an integer"),
        ({"size": {"shortest_edge": 3, "longest_edge": 5}}, "'size' must be an integer"),
        ({"size": 0}, "'size' must be an integer"),
        ({"crop_size": {"shortest_edge": 3}}, "'crop_size' must be an integer"),
        ({"resample": 1}, r"'resample' must be one of .*, got 1 \(lanczos\)"),
        ({"resample": "bilinear"}, "'resample' must be one of"),
        ({"do_pad": True}, "'do_pad' is set"),
        ({"image_mean": [0.5]}, "mean must be a tuple of 3"),
        ({"image_std": [0.5, 0.0, 0.5]}, "std must be above 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor must be a finite number"),
    ],
)
def test_malformed_settings_are_named(content, message, tmp_path):
    if content and "image_processor_type" not in content:
        content = {"image_processor_type": "VideoMAEImageProcessor", **content}
    with pytest.raises(ValueError, match=message) as caught:
        ClipTransform.from_pretrained(save(tmp_path, "preprocessor_config.json", content))
    assert "preprocessor_config.json" in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "must hold a JSON object")])
def test_broken_file(tmp_path, text, message):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        ClipTransform.from_pretrained(tmp_path)


# Model configs


@pytest.mark.parametrize(
    ("config", "resize", "crop", "mean", "low_high"),
    [
        (VideoMAEConfig(image_size=96), 96, (96, 96), (0.485, 0.456, 0.406), None),
        (TimesformerConfig(), 224, (224, 224), (0.45, 0.45, 0.45), (-2.0, 0.55 / 0.225)),
        (VivitConfig(), 256, (224, 224), None, (-1.0, 1.0)),
        (VJEPA2Config(), 292, (256, 256), (0.485, 0.456, 0.406), None),
        (MotionformerConfig(), 224, (224, 224), (0.5, 0.5, 0.5), (-1.0, 1.0)),
        (VideoPrismVisionConfig(), (288, 288), None, None, (0.0, 1.0)),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_from_config(config, resize, crop, mean, low_high):
    transform = ClipTransform.from_config(config)
    assert (transform.resize, transform.crop, transform.mean) == (resize, crop, mean)
    transform.check_config(config)
    if low_high is not None:
        frames = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 20, 20)
        values = transform(frames)
        assert (values.min().item(), values.max().item()) == pytest.approx(low_high, abs=1e-5)


def test_from_config_guesses_nothing():
    from transformers import BertConfig

    with pytest.raises(ValueError, match="neither image_size nor crop_size"):
        ClipTransform.from_config(BertConfig())
    other = BertConfig()
    other.image_size = 224
    with pytest.raises(ValueError, match=r"model_type must be one with known settings \(.*videomae.*\), got 'bert'"):
        ClipTransform.from_config(other)


def test_config_is_checked(tmp_path):
    save(tmp_path, "preprocessor_config.json", {"image_processor_type": "VideoMAEImageProcessor", **SMALL})
    ClipTransform.from_pretrained(tmp_path, VideoMAEConfig(image_size=32))
    with pytest.raises(ValueError, match=r"expects frames of 224x224 pixels .*, but its transform makes 32x32"):
        ClipTransform.from_pretrained(tmp_path, VideoMAEConfig())
    with pytest.raises(ValueError, match="expects 1 channels, but video frames have 3"):
        ClipTransform.from_pretrained(tmp_path, VideoMAEConfig(image_size=32, num_channels=1))


# The class itself


def test_to_dict_is_json_safe_and_repr_evaluates():
    transform = ClipTransform(resize=(40, 50), crop=None, rescale_offset=-1.0, resample="bicubic")
    assert json.loads(json.dumps(transform.to_dict()))["resize"] == [40, 50]
    assert eval(repr(transform)) == transform


@pytest.mark.parametrize(
    "transform",
    [
        ClipTransform(resize=96, crop=(64, 80)),
        ClipTransform(resize=(40, 50), crop=None, rescale_offset=-1.0, mean=None, std=None, resample="bicubic"),
        ClipTransform(resize=None, resample="nearest"),
    ],
)
def test_processor_settings_lead_back(transform):
    settings = json.loads(json.dumps(transform.to_processor_settings()))
    assert ClipTransform.from_dict(settings) == transform


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": 0}, "resize must be"),
        ({"resize": (3, 0)}, "resize must be"),
        ({"crop": 224}, "crop must be"),
        ({"rescale_factor": 0}, "rescale_factor must be"),
        ({"rescale_offset": float("nan")}, "rescale_offset must be"),
        ({"mean": None}, "mean and std must both"),
        ({"mean": (0.5, 0.5)}, "mean must be a tuple of 3"),
        ({"std": (0.5, -0.5, 0.5)}, "std must be above 0"),
        ({"resample": "lanczos"}, "resample must be one of 'nearest', 'bilinear', 'bicubic', got 'lanczos'"),
    ],
)
def test_fields_are_validated(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClipTransform(**arguments)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (torch.zeros(2, 3, 8, 8), TypeError, "must be a uint8 tensor .*, got a torch.float32 tensor"),
        (np.zeros((2, 3, 8, 8), dtype=np.uint8), TypeError, "got a ndarray"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), ValueError, r"must have the shape \(T, 3, H, W\)"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), ValueError, r"got \(2, 8, 8, 3\)"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), ValueError, "none of them 0"),
    ],
)
def test_input_is_validated(frames, error, message):
    with pytest.raises(error, match=message):
        ClipTransform()(frames)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"shortest_edge": 10**9}}, "more than 16 times as large before it crops"),
        ({"size": {"height": 32, "width": 10**6}}, "more than 16 times as large before it crops"),
        ({"image_mean": [10**400] * 3}, "mean must be a tuple of 3 finite numbers"),
        ({"rescale_factor": 10**400}, "rescale_factor must be a finite number"),
        ({"image_std": [0.1] * 10**5}, r"std must be .*characters\)"),
    ],
    ids=["shortest edge", "width", "mean", "factor", "list"],
)
def test_numbers_and_lists_without_end_are_refused_with_the_file(tmp_path, settings, message):
    content = {"image_processor_type": "VideoMAEImageProcessor", "crop_size": 32, **settings}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        ClipTransform.from_pretrained(tmp_path, config=VideoMAEConfig(image_size=32))
    assert str(caught.value).startswith(f"{tmp_path / 'preprocessor_config.json'}: ")
    assert len(str(caught.value)) < 600
