"""A classifier and its transform, loaded by one name; what goes wrong is said without any word of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import VideoMAEForVideoClassification

from hf_video_tome import SettingError
from hf_video_tome.checkpoints import available, checkpoint_path
from hf_video_tome.data import ClipTransform
from hf_video_tome.loading import CheckpointError, find_checkpoint, load_classifier
from tests.classified_videos import FRAMES, SIZE, make_model, save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as plain transformers saves it."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_weights_settings_and_transform_are_those_of_the_checkpoint(checkpoint: Path) -> None:
    classifier = load_classifier(str(checkpoint), r=8, mode="drop")
    assert (classifier.name, classifier.location) == (str(checkpoint), str(checkpoint))
    settings = classifier.model.config.token_merging_settings()
    assert (settings["r"], settings["mode"]) == (8, "drop")
    assert not classifier.model.training
    assert classifier.transform_source == "saved with the checkpoint"
    assert classifier.transform.to_dict() == ClipTransform.from_pretrained(checkpoint).to_dict()
    clip = torch.randn(1, FRAMES, 3, SIZE, SIZE)
    classifier.model.set_token_merging(r=0)
    with torch.no_grad():
        torch.testing.assert_close(classifier.model(clip).logits, make_model().eval()(clip).logits)


def test_precision_and_device_can_be_chosen(checkpoint: Path) -> None:
    for dtype in ("bfloat16", torch.bfloat16):
        classifier = load_classifier(str(checkpoint), dtype=dtype, device=torch.device("cpu"))
        assert classifier.model.dtype == torch.bfloat16
        assert classifier.device == torch.device("cpu")


def test_without_a_name_it_is_the_default_one() -> None:
    assert find_checkpoint() == str(checkpoint_path())
    assert load_classifier().name == checkpoint_path().name


def test_a_folder_without_a_processor_gets_the_usual_transform_and_says_so(tmp_path: Path) -> None:
    (save_checkpoint(tmp_path) / "preprocessor_config.json").unlink()
    classifier = load_classifier(str(tmp_path))
    assert classifier.transform_source == "the usual one of videomae"
    assert classifier.transform.to_dict() == ClipTransform.from_config(classifier.model.config).to_dict()


def test_names_that_can_be_nothing_are_refused_with_what_a_name_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    allowed = f"a checkpoint is a folder, a model id on the Hub, or one of: {', '.join(available())}"
    for name, reason in {
        "./nowhere": f"no such folder; {allowed}",
        "two words": f"no such folder; {allowed}",
        str(tmp_path / "file"): f"is a file; {allowed}",
        str(tmp_path / "empty"): "this folder has no config.json; a checkpoint folder holds config.json and "
        "model.safetensors, as save_pretrained writes them",
    }.items():
        with pytest.raises(CheckpointError) as caught:
            load_classifier(name)
        assert str(caught.value) == f"{name}: {reason}"
    with pytest.raises(CheckpointError) as caught:
        load_classifier(" ")
    assert str(caught.value) == f"' ': is not a name; {allowed}"


def test_the_hub_is_asked_for_what_looks_like_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_checkpoint("somebody/nothing") == "somebody/nothing"
    with pytest.raises(CheckpointError, match=r"^somebody/nothing: neither a folder here, .*from the Hub: ") as caught:
        load_classifier("somebody/nothing")
    assert "\n" not in str(caught.value)


def test_a_backbone_is_no_classifier(tmp_path: Path) -> None:
    backbone = make_model()
    assert isinstance(backbone, VideoMAEForVideoClassification)
    backbone.videomae.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"weights of a videomae video classifier are missing .*VideoMAEModel"):
        load_classifier(str(tmp_path))


def test_another_architecture_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "resnet3d"}))
    with pytest.raises(CheckpointError, match="'resnet3d' is not supported; supported are motionformer, timesformer"):
        load_classifier(str(tmp_path))


def test_settings_are_told_apart_from_the_checkpoint(checkpoint: Path) -> None:
    with pytest.raises(SettingError, match=r"^token_merging_mode must be one of .*'merge', .*got 'melt'"):
        load_classifier(str(checkpoint), mode="melt")
    with pytest.raises(SettingError, match=r"^token_merging_position must be left out for videomae \(only vjepa2"):
        load_classifier(str(checkpoint), position="centroid")
