"""Pushing to the Hub, with the Hub's API replaced: what would be uploaded, and where to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import transformers
from huggingface_hub import CommitOperationDelete, ModelCard
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoModelForVideoClassification

from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.cli import run
from hf_video_tome.hub import BaseCheckpoint, model_card, push_to_hub, save_checkpoint, upload_checkpoint
from hf_video_tome.loading import load_classifier

NAME = "videomae-moving-digits"


class FakeHub:
    """Takes the place of the network in `HfApi`, and keeps what was sent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.repos: list[tuple[str, bool | None]] = []
        self.branches: list[str] = []
        self.commits: list[dict[str, Any]] = []

    def create_repo(self, api: Any, repo_id: str, *, private: bool | None = None, **_: Any) -> SimpleNamespace:
        self.repos.append((repo_id, private))
        return SimpleNamespace(repo_id=repo_id)

    def create_branch(self, api: Any, repo_id: str, *, branch: str, **_: Any) -> None:
        self.branches.append(branch)

    def list_repo_files(self, api: Any, repo_id: str, **_: Any) -> list[str]:
        return list(self.files)

    def create_commit(self, api: Any, repo_id: str, operations: Any, **arguments: Any) -> SimpleNamespace:
        for operation in operations:
            if isinstance(operation, CommitOperationDelete):
                del self.files[operation.path_in_repo]
                continue
            with operation.as_file() as handle:
                self.files[operation.path_in_repo] = handle.read()
        return self._commit(repo_id, **arguments)

    def _commit(self, repo_id: str, create_pr: bool | None = False, **arguments: Any) -> SimpleNamespace:
        self.commits.append({"repo_id": repo_id, "create_pr": create_pr, **arguments})
        address = f"https://hub.example/{repo_id}"
        return SimpleNamespace(commit_url=f"{address}/commit/1", pr_url=f"{address}/pr/1" if create_pr else None)

    @property
    def config(self) -> dict[str, Any]:
        return json.loads(self.files["config.json"])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    for name in ("create_repo", "create_branch", "create_commit", "list_repo_files"):

        def method(api: Any, *arguments: Any, _name: str = name, **keywords: Any) -> Any:
            return getattr(fake, _name)(api, *arguments, **keywords)

        monkeypatch.setattr(huggingface_hub.HfApi, name, method)

    def no_card(*_: Any, **__: Any) -> str:
        raise EntryNotFoundError("no card")

    monkeypatch.setattr("huggingface_hub.repocard.hf_hub_download", no_card)
    return fake


@pytest.fixture
def model() -> Any:
    return AutoModelForVideoClassification.from_pretrained(checkpoint_path(NAME), token_merging_r=38)


def test_everything_is_uploaded_in_one_commit(hub, model, tmp_path):
    card = model_card(model, BaseCheckpoint("digits"), repo_id="me/shared")
    processor = transformers.VideoMAEImageProcessor.from_pretrained(checkpoint_path(NAME))
    address = push_to_hub(
        model, "me/shared", processor=processor, card=card, private=True, commit_message="First", remote_code=True
    )
    assert address == "https://hub.example/me/shared/commit/1"
    assert hub.repos == [("me/shared", True)]
    (commit,) = hub.commits
    assert (commit["repo_id"], commit["commit_message"]) == ("me/shared", "First")
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= hub.files.keys()
    assert hub.config["token_merging_r"] == 38
    assert hub.config["auto_map"]["AutoConfig"] == "modeling_videomae.VideoMAEConfig"
    assert "modeling_videomae.py" in hub.files
    # What was uploaded is a checkpoint.
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    assert AutoModelForVideoClassification.from_pretrained(tmp_path).config.token_merging_r == 38


def test_branches_and_pull_requests(hub, model):
    address = push_to_hub(model, "me/shared", revision="r38", create_pr=True)
    assert address == "https://hub.example/me/shared/pr/1"
    assert hub.branches == ["r38"]
    assert hub.commits[0]["revision"] == "r38"
    assert set(hub.files) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("how", ["push_to_hub", "save_pretrained"])
def test_the_ways_of_transformers_upload_the_settings_too(hub, model, tmp_path, how):
    model.set_token_merging(r=20, mode="drop")
    if how == "push_to_hub":
        model.push_to_hub("me/shared", tags=["token-merging"])
    else:
        model.save_pretrained(tmp_path / "shared", push_to_hub=True, repo_id="me/shared")
    assert (hub.config["token_merging_r"], hub.config["token_merging_mode"]) == (20, "drop")
    assert hub.config["token_merging_scope"] == "clip"  # while tokens merge, what a later default could change
    assert hub.config["architectures"] == ["VideoMAEForVideoClassification"]
    assert "model.safetensors" in hub.files


def test_a_config_alone_can_be_uploaded(hub, model):
    model.config.push_to_hub("me/shared")
    assert hub.config["token_merging_r"] == 38
    assert "model.safetensors" not in hub.files


def test_the_command_saves_and_uploads(hub, tmp_path, capsys):
    arguments = ["save", NAME, str(tmp_path / "out"), "--r", "38", "--push-to-hub", "me/shared", "--private", "--json"]
    assert run(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["address"] == "https://hub.example/me/shared/commit/1"
    assert printed["token_merging"]["r"] == 38
    assert sorted(hub.files) == printed["files"] == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert hub.repos == [("me/shared", True)]
    assert b'from_pretrained("me/shared")' in hub.files["README.md"]


def test_only_what_was_saved_is_uploaded(hub, tmp_path):
    assert run(["save", NAME, str(tmp_path / "out"), "--r", "20", "--remote-code"]) == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert run(["save", NAME, str(tmp_path / "out"), "--r", "38", "--overwrite", "--push-to-hub", "me/shared"]) == 0
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]


def test_a_processor_replaces_another_on_the_hub(hub, model):
    hub.files = {"video_preprocessor_config.json": b"{}", "model.onnx": b"other"}
    push_to_hub(model, "me/shared")
    assert "video_preprocessor_config.json" in hub.files  # no processor was given
    push_to_hub(model, "me/shared", processor=checkpoint_path(NAME))
    assert sorted(hub.files) == ["config.json", "model.onnx", "model.safetensors", "preprocessor_config.json"]
    assert len(hub.commits) == 2


def test_a_folder_is_uploaded_without_what_is_hidden(hub, model, tmp_path):
    save_checkpoint(model, tmp_path)
    for name in (".git/config", ".saving-x/new/model.safetensors", "templates/one.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content")
    upload_checkpoint(tmp_path, "me/shared")
    assert sorted(hub.files) == ["config.json", "model.safetensors", "templates/one.txt"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_checkpoint_replaces_another_as_a_whole(model, tmp_path):
    """What is read beside a checkpoint is its own: weights in one file or several, processor, and code."""
    video = tmp_path / "vjepa2"
    shutil.copytree(checkpoint_path("vjepa2-moving-digits"), video)
    (video / "preprocessor_config.json").rename(video / "video_preprocessor_config.json")
    other = AutoModelForVideoClassification.from_pretrained(video, token_merging_r=5)
    other.save_pretrained(tmp_path / "over", max_shard_size="500kB")
    assert (tmp_path / "over" / "model.safetensors.index.json").is_file()
    save_checkpoint(other, tmp_path / "over", processor=video, remote_code=True)
    assert {"modeling_vjepa2.py", "video_preprocessor_config.json"} <= contents(tmp_path / "over").keys()
    (tmp_path / "over" / "own.py").write_text("# mine")
    for options in (
        {"processor": checkpoint_path(NAME), "remote_code": True},
        {"processor": checkpoint_path(NAME)},
    ):
        written = save_checkpoint(model, tmp_path / "over", **options)
        save_checkpoint(model, tmp_path / f"new-{len(options)}", **options)
        found = contents(tmp_path / "over")
        assert found.pop("own.py") == b"# mine"
        assert found == contents(tmp_path / f"new-{len(options)}")
        assert written == sorted(found)


@pytest.mark.parametrize("failing", range(7))
def test_what_cannot_be_replaced_stays_as_it_was(failing, model, tmp_path, monkeypatch):
    """Six moves: three files out of the way, three into their place. The seventh failure does not come."""
    save_checkpoint(model, tmp_path, processor=checkpoint_path(NAME), card=ModelCard("the card"))
    model.set_token_merging(r=20)
    before, calls, replace = contents(tmp_path), iter(range(100)), os.replace

    def broken(source: Path, destination: Path) -> None:
        if next(calls) == failing:
            raise OSError("no space left")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no space left") if failing < 6 else contextlib.nullcontext():
        save_checkpoint(model, tmp_path, processor=checkpoint_path(NAME))
    assert contents(tmp_path).keys() == before.keys()
    assert (contents(tmp_path) == before) == (failing < 6)


def test_what_is_not_of_the_checkpoint_stays(model, tmp_path):
    names = [
        "model_ema.safetensors",
        "model.fp16.safetensors",
        "model-best.safetensors",
        "model_1.safetensors",
        "a.py",
    ]
    for name in names:
        (tmp_path / name).write_text("mine")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "link.py").symlink_to("nowhere")
    transformers.VideoMAEImageProcessor.from_pretrained(checkpoint_path(NAME)).save_pretrained(tmp_path)
    save_checkpoint(model, tmp_path)
    save_checkpoint(model, tmp_path)
    expected = {*names, "folder.py", "link.py", "preprocessor_config.json", "config.json", "model.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_a_processor_with_files_in_a_folder_can_be_saved_twice(model, tmp_path):
    class Processor:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "templates").mkdir()
            (folder / "templates" / "one.txt").write_text("one")

    for _ in range(2):
        files = save_checkpoint(model, tmp_path, processor=Processor())
        assert files == ["config.json", "model.safetensors", "templates/one.txt"]


def test_a_processor_that_came_with_code_does_not_claim_it_when_saved_without(tmp_path):
    classifier = load_classifier("vjepa2-moving-digits")
    with_code = save_checkpoint(
        classifier.model, tmp_path / "code", processor=checkpoint_path("vjepa2-moving-digits"), remote_code=True
    )
    assert "data_processor.py" in with_code
    assert "auto_map" in (tmp_path / "code" / "preprocessor_config.json").read_text()
    save_checkpoint(classifier.model, tmp_path / "plain", processor=tmp_path / "code")
    plain = json.loads((tmp_path / "plain" / "preprocessor_config.json").read_text())
    assert plain == json.loads((checkpoint_path("vjepa2-moving-digits") / "preprocessor_config.json").read_text())


def test_a_save_that_was_killed_is_not_in_the_way(tmp_path):
    (tmp_path / "out" / ".saving-x" / "new").mkdir(parents=True)
    assert run(["save", NAME, str(tmp_path / "out"), "--r", "38"]) == 0


def test_the_command_leaves_no_processor_of_another_checkpoint(tmp_path):
    plain = shutil.copytree(checkpoint_path(NAME), tmp_path / "plain")
    (plain / "preprocessor_config.json").unlink()
    assert run(["save", "vjepa2-moving-digits", str(tmp_path / "out"), "--r", "5"]) == 0
    assert run(["save", str(plain), str(tmp_path / "out"), "--r", "38", "--overwrite"]) == 0
    assert sorted(contents(tmp_path / "out")) == ["README.md", "config.json", "model.safetensors"]


def test_a_processor_that_is_not_there_is_said_before_anything_is_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "none").mkdir()
    for location, reason in (
        ("./no/such/folder", "or a Hub id, got"),
        (tmp_path / "none", "must have one of"),
        ("nobody/nothing", "must have one of .*got nobody/nothing"),
    ):
        with pytest.raises(ValueError, match=rf"^processor .*{reason}"):
            save_checkpoint(model, tmp_path / "out", processor=location)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_can_be_saved_over_itself(tmp_path):
    shutil.copytree(checkpoint_path(NAME), tmp_path / "own")
    before = contents(tmp_path / "own")
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "own", token_merging_r=30)
    save_checkpoint(model, tmp_path / "own", processor=tmp_path / "own")
    after = contents(tmp_path / "own")
    assert after.keys() == before.keys()
    assert after["preprocessor_config.json"] == before["preprocessor_config.json"]
    again = AutoModelForVideoClassification.from_pretrained(tmp_path / "own")
    assert again.config.token_merging_r == 30
    assert all((ours == theirs).all() for ours, theirs in zip(again.parameters(), model.parameters(), strict=True))


def test_a_name_that_the_hub_completes_is_not_said_to_be_loadable(hub, tmp_path):
    assert run(["save", NAME, str(tmp_path / "out"), "--r", "38", "--push-to-hub", "shared"]) == 0
    assert hub.repos == [("shared", None)]
    assert b'from_pretrained("path/to/this/folder")' in hub.files["README.md"]


def test_a_model_that_cannot_merge_is_refused(tmp_path):
    stock = transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(
            image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )
    for call in (save_checkpoint, push_to_hub):
        with pytest.raises(ValueError, match="model must be able to merge tokens, got VideoMAEForVideoClassification"):
            call(stock, str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()
