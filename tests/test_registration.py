"""What `import hf_video_tome` does to transformers, and what it does not."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    VideoMAEImageProcessor,
    VivitImageProcessor,
    pipeline,
)
from transformers.conversion_mapping import (
    USER_REGISTERED_MAPPINGS,
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

import hf_video_tome
from hf_video_tome import registration
from hf_video_tome.models import ARCHITECTURES, ENCODERS, HOSTS, register_architecture, register_encoder, register_host
from tests.tiny import NUM_LABELS, PIXEL_SHAPE, TINY_CONFIGS

PACKAGE = Path(hf_video_tome.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def save_stock(model_type: str, folder: Path) -> Path:
    """A checkpoint of transformers with the image processor that the Hub's checkpoints of this kind have."""
    architecture = ARCHITECTURES[model_type]
    torch.manual_seed(0)
    config = architecture.stock_config_class(**TINY_CONFIGS[model_type])
    architecture.stock_head_class(config).save_pretrained(folder)
    size = architecture.config_class.from_stock(config).clip_shape.height
    settings = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    if architecture.video_processor_only:
        settings |= {"video_processor_type": "VideoMAEVideoProcessor"}  # for what it leaves open
    processor_class(model_type)(**settings).save_pretrained(folder)
    return folder


def processor_class(model_type: str) -> type:
    """The image processor that there is without torchvision."""
    if ARCHITECTURES[model_type].video_processor_only:
        return hf_video_tome.ClipProcessor
    return VivitImageProcessor if model_type == "vivit" else VideoMAEImageProcessor


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {model_type: save_stock(model_type, tmp_path_factory.mktemp(model_type)) for model_type in ARCHITECTURES}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real mp4 file: twelve frames of moving colours, 64 x 48."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    rows, columns = np.mgrid[:48, :64]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(12):
            picture = np.stack((rows * 5, columns * 3 + index * 9, rows + columns + index * 15), axis=-1) % 256
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_frames(path: Path, count: int) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][:count]


class TestRegister:
    def test_is_harmless_when_repeated(self, checkpoints):
        for _ in range(2):
            registration.register()
        for model_type, architecture in ARCHITECTURES.items():
            model = AutoModelForVideoClassification.from_pretrained(checkpoints[model_type], token_merging_r=1)
            assert type(model) is architecture.head_class

    def test_a_second_import_changes_nothing(self):
        before = AutoModelForVideoClassification._model_mapping._extra_content.copy()
        importlib.reload(hf_video_tome)
        assert before == AutoModelForVideoClassification._model_mapping._extra_content

    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_auto_classes_lead_here(self, checkpoints, model_type):
        architecture, folder = ARCHITECTURES[model_type], checkpoints[model_type]
        assert type(AutoConfig.from_pretrained(folder)) is architecture.config_class
        assert type(AutoConfig.for_model(model_type)) is architecture.config_class
        assert type(AutoModel.from_pretrained(folder)) is architecture.model_class
        assert type(AutoModelForVideoClassification.from_pretrained(folder)) is architecture.head_class

    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_direct_classes_are_exported_under_the_stock_names(self, model_type):
        architecture = ARCHITECTURES[model_type]
        for stock_class, our_class in (
            (architecture.stock_config_class, architecture.config_class),
            (architecture.stock_model_class, architecture.model_class),
            (architecture.stock_head_class, architecture.head_class),
        ):
            name = stock_class.__name__
            if stock_class.__module__.startswith("transformers."):  # else it is of our folder, as Motionformer's
                assert getattr(transformers, name) is stock_class
            assert getattr(hf_video_tome, name) is our_class
            assert issubclass(our_class, stock_class)
            assert name in hf_video_tome.__all__

    def test_every_public_name_is_there(self):
        for name in hf_video_tome.__all__:
            assert hasattr(hf_video_tome, name), name

    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_the_image_processor_is_still_found(self, checkpoints, model_type):
        processor = AutoImageProcessor.from_pretrained(checkpoints[model_type])
        assert isinstance(processor, processor_class(model_type))

    def test_other_heads_of_the_same_architecture_still_load(self, tmp_path):
        config = transformers.VideoMAEConfig(
            **TINY_CONFIGS["videomae"],
            decoder_hidden_size=16,
            decoder_num_attention_heads=2,
            decoder_num_hidden_layers=1,
            decoder_intermediate_size=16,
        )
        stock = transformers.VideoMAEForPreTraining(config)
        stock.save_pretrained(tmp_path)
        model = AutoModelForPreTraining.from_pretrained(tmp_path)
        assert type(model) is transformers.VideoMAEForPreTraining
        assert all(torch.equal(model.state_dict()[name], value) for name, value in stock.state_dict().items())

    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_stock_classes_stay_stock(self, checkpoints, model_type):
        architecture = ARCHITECTURES[model_type]
        model = architecture.stock_head_class.from_pretrained(checkpoints[model_type])
        assert type(model) is architecture.stock_head_class
        assert type(model.config) is architecture.stock_config_class
        assert not {type(module) for module in model.modules()} & set(architecture.merging_classes.values())
        with pytest.raises(TypeError, match="token_merging_r"):
            architecture.stock_head_class.from_pretrained(checkpoints[model_type], token_merging_r=1)

    def test_architectures_that_are_not_supported_are_as_before(self, tmp_path):
        config = transformers.ViTConfig(
            image_size=32,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
        model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
        assert type(model) is transformers.ViTForImageClassification


class TestUnregister:
    @pytest.mark.usefixtures("unregistered")
    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_gives_the_auto_classes_back(self, checkpoints, model_type):
        architecture, folder = ARCHITECTURES[model_type], checkpoints[model_type]
        assert type(AutoConfig.from_pretrained(folder)) is architecture.stock_config_class
        assert type(AutoModel.from_pretrained(folder)) is architecture.stock_model_class
        assert type(AutoModelForVideoClassification.from_pretrained(folder)) is architecture.stock_head_class
        registration.unregister()  # harmless when repeated
        registration.register()
        assert type(AutoModelForVideoClassification.from_pretrained(folder)) is architecture.head_class

    def test_gives_the_weight_conversions_back(self):
        keys = {key for architecture in ARCHITECTURES.values() for key in architecture.encoder.weight_conversions}
        conversions = {key: get_checkpoint_conversion_mapping(key) for key in keys}
        assert keys <= USER_REGISTERED_MAPPINGS
        registration.unregister()
        try:
            assert not keys & USER_REGISTERED_MAPPINGS
            # The user's own is not ours to take back.
            register_checkpoint_conversion_mapping("videomae", conversions["videomae"], overwrite=True)
            registration.register()
            registration.unregister()
            assert keys & USER_REGISTERED_MAPPINGS == {"videomae"}
        finally:
            USER_REGISTERED_MAPPINGS.discard("videomae")
            registration.register()
        assert keys <= USER_REGISTERED_MAPPINGS
        for key in keys:
            assert len(get_checkpoint_conversion_mapping(key)) == len(conversions[key]) > 0

    def test_leaves_models_that_exist_alone(self, checkpoints):
        model = AutoModelForVideoClassification.from_pretrained(checkpoints["videomae"], token_merging_r=4).eval()
        pixel_values = torch.randn(PIXEL_SHAPE)
        with torch.no_grad():
            before = model(pixel_values).logits
            registration.unregister()
            try:
                after = model(pixel_values).logits
            finally:
                registration.register()
        assert torch.equal(before, after)


class TestArchitectureRegistry:
    def test_a_model_type_can_be_taken_once_only(self):
        with pytest.raises(ValueError, match="'videomae' is registered already"):
            register_architecture(ARCHITECTURES["videomae"].encoder, ARCHITECTURES["videomae"].head_class)

    def test_class_names_must_be_those_of_transformers(self):
        class Renamed(ARCHITECTURES["videomae"].head_class):
            pass

        host = replace(ARCHITECTURES["videomae"].classifier, stock_class=Renamed)
        with pytest.raises(ValueError, match="VideoMAEForVideoClassification must have the name of its stock class"):
            register_host(host)
        assert Renamed not in HOSTS

        class Other(nn.Module):
            config_class = type("VideoMAEConfig", (ARCHITECTURES["videomae"].config_class,), {"model_type": "other"})
            module_classes = MappingProxyType({})

        with pytest.raises(ValueError, match="Other must have the name of its stock class, got bases of other names"):
            register_encoder(replace(ARCHITECTURES["videomae"].encoder, model_class=Other))
        assert "other" not in ENCODERS

    def test_the_encoder_of_a_host_must_be_known(self):
        host = replace(ARCHITECTURES["videomae"].classifier, stock_class=nn.Module, encoders={"tower": "resnet"})
        with pytest.raises(ValueError, match=r"the encoder of 'tower' must be one of motionformer, .*, got 'resnet'"):
            register_host(host)


class TestPipeline:
    @pytest.mark.parametrize("r", [0, 2])
    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_classifies_a_real_file_as_the_model_does_by_hand(self, checkpoints, clip, model_type, r):
        classify = pipeline(
            "video-classification",
            str(checkpoints[model_type]),
            model_kwargs={"token_merging_r": r},
            device="cpu",
        )
        assert type(classify.model) is ARCHITECTURES[model_type].head_class
        assert classify.model.config.token_merging_r == r
        answers = classify(str(clip), top_k=NUM_LABELS)

        model = AutoModelForVideoClassification.from_pretrained(checkpoints[model_type], token_merging_r=r).eval()
        processor = AutoImageProcessor.from_pretrained(checkpoints[model_type])
        frames = read_frames(clip, model.config.num_frames)
        with torch.no_grad():
            scores = model(**processor(frames, return_tensors="pt")).logits[0].softmax(-1)
        order = scores.argsort(descending=True).tolist()
        assert [answer["label"] for answer in answers] == [model.config.id2label[index] for index in order]
        assert [answer["score"] for answer in answers] == pytest.approx(scores[order].tolist(), abs=1e-5)

    def test_merging_in_the_pipeline_changes_its_scores(self, checkpoints, clip):
        scores = []
        for r in (0, 8):
            classify = pipeline(
                "video-classification", str(checkpoints["videomae"]), model_kwargs={"token_merging_r": r}, device="cpu"
            )
            answers = classify(str(clip), top_k=NUM_LABELS)
            scores.append({answer["label"]: answer["score"] for answer in answers})
        assert scores[0] != pytest.approx(scores[1], abs=1e-4)


class TestUnsupportedModels:
    MODELS = (
        nn.Linear(2, 2),
        transformers.ViTForImageClassification(
            transformers.ViTConfig(
                image_size=32,
                patch_size=8,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
            )
        ),
    )

    @pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
    @pytest.mark.parametrize(
        "function", ["apply_token_merging", "remove_token_merging", "set_token_merging", "token_counts"]
    )
    def test_are_refused_with_what_they_are_and_what_is_supported(self, function, model):
        with pytest.raises(ValueError, match=f"got {type(model).__name__}") as error:
            getattr(hf_video_tome, function)(model)
        for architecture in ARCHITECTURES.values():
            assert architecture.stock_head_class.__name__ in str(error.value)

    def test_paper_settings_of_unknown_architectures_are_refused(self):
        with pytest.raises(ValueError, match=r"'videomae', .*got 'swin'"):
            hf_video_tome.paper_settings("swin")

    @pytest.mark.parametrize("model_type", [name for name in ARCHITECTURES if ARCHITECTURES[name].paper_settings])
    def test_paper_settings_are_a_copy(self, model_type):
        hf_video_tome.paper_settings(model_type)["r"] = -1
        assert hf_video_tome.paper_settings(model_type)["r"] > 0


class TestImports:
    PARTS = (
        ("transformers", "from transformers import AutoModelForVideoClassification"),
        ("the package", "import hf_video_tome"),
        ("its data", "from hf_video_tome.data import loading, moving_digits, sampling"),
        ("its videos", "from hf_video_tome.data.video import decoding, encoding"),
        ("names of datasets", "loading.DATASETS"),
        ("its metrics", "from hf_video_tome.metrics import accuracy, likelihood, ranking"),
    )

    @pytest.fixture(scope="class")
    @classmethod
    def process(cls) -> subprocess.CompletedProcess[str]:
        """Imports one part after the other, and says after each which modules are loaded."""
        steps = [f"{code}\nloaded[{part!r}] = sorted(sys.modules)\n" for part, code in cls.PARTS]
        code = f"import json, sys\nloaded = {{}}\n{''.join(steps)}print(json.dumps(loaded))"
        return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)

    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, process: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
        return json.loads(process.stdout.splitlines()[-1])

    @pytest.mark.parametrize("module", ["matplotlib", "datasets", "evaluate", "av", "sklearn", "typer", "gradio"])
    def test_importing_the_package_does_not_load(self, loaded, module):
        """Beyond what transformers loads by itself."""
        added = set(loaded["the package"]) - set(loaded["transformers"])
        assert not {name for name in added if name == module or name.startswith(f"{module}.")}

    @pytest.mark.parametrize("module", ["data.video", "cli", "visualization"])
    def test_importing_the_package_does_not_load_its_own(self, loaded, module):
        assert not [name for name in loaded["the package"] if name.startswith(f"hf_video_tome.{module}")]

    def test_what_reads_videos_and_data_sets_is_loaded_when_there_is_one_to_read(self, loaded):
        added = set(loaded["names of datasets"]) - set(loaded["transformers"])
        assert {"hf_video_tome.data.video.decoding", "hf_video_tome.data.moving_digits"} <= added
        assert not {"av", "datasets", "pandas", "sklearn", "matplotlib"} & added

    def test_numbers_of_metrics_need_no_evaluate(self, loaded):
        assert "hf_video_tome.metrics.accuracy" in loaded["its metrics"]
        assert "evaluate" not in loaded["its metrics"]

    def test_importing_says_nothing(self, process):
        assert (process.returncode, process.stderr) == (0, "")
        assert len(process.stdout.splitlines()) == 1

    def test_merging_runs_without_transformers(self):
        """The core is plain torch: with everything else of the package left out, and transformers not installed."""
        code = f"""
import sys, types
sys.modules["transformers"] = None
package = sys.modules["hf_video_tome"] = types.ModuleType("hf_video_tome")  # whose __init__.py does not run
package.__path__ = [{str(PACKAGE)!r}]
from hf_video_tome import merging
import torch
x = torch.randn(1, 8, 4)
out, state = merging.merge_tokens(
    x, x, 2, merging.Tokens(), merging.TokenLayout(0, 2, 4), merging.MergeSettings()
)
assert out.shape == (1, 6, 4)
parts = {{name.split(".")[1] for name in sys.modules if name.startswith("hf_video_tome.")}}
assert parts == {{"merging", "_lazy"}}, parts
"""
        subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_examples_in_docstrings_run(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module_name(path))
    assert isinstance(module, types.ModuleType)
    torch.manual_seed(0)
    results = doctest.testmod(module)
    assert results.failed == 0
    examples = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert bool(examples) == (">>> " in path.read_text()), "examples that doctest does not find"
