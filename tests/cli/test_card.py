from __future__ import annotations

import json

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from hf_video_tome.cli import run
from tests.cli.test_cli import check_refused

NAME = "vivit-moving-digits"


def test_card_is_printed_and_written(tmp_path, capsys):
    assert run(["card", NAME, "--r", "30", "--repo-id", "me/vivit-tome"]) == 0
    captured = capsys.readouterr()
    card = ModelCard(captured.out)
    assert card.data.license == "apache-2.0"
    assert "| `token_merging_r` | `30` |" in card.text
    assert "nothing was measured" not in captured.err  # nobody gave an evaluation
    assert "note: the card names no base model" in captured.err
    assert "licence" not in captured.err
    path = tmp_path / "README.md"
    assert run(["card", NAME, "--r", "30", "--repo-id", "me/vivit-tome", "--output", str(path)]) == 0
    assert path.read_text().rstrip() == captured.out.rstrip()


def test_json(capsys):
    assert run(["card", NAME, "--base-model", "someone/vivit", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metadata"]["base_model"] == "someone/vivit"
    assert ModelCard(printed["card"]).data.to_dict() == printed["metadata"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--evaluation", "nowhere"], ["--evaluation", "nowhere"]),
        (["--benchmark", "nowhere"], ["--benchmark", "nowhere"]),
        (["--base-model", "not an id"], ["--base-model", "not an id"]),
        (["--repo-id", "a/b/c"], ["--repo-id", "a/b/c"]),
        (["--r", "-1"], ["--r"]),
        (["--output", "."], ["--output .", "is a folder"]),
        (["--output", "nowhere/README.md"], ["--output nowhere/README.md: no such folder: nowhere"]),
    ],
)
def test_bad_input(capsys, monkeypatch, tmp_path, arguments, parts):
    monkeypatch.chdir(tmp_path)
    check_refused(capsys, ["card", NAME, *arguments], *parts)


def test_bad_input_leaves_nothing_behind(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check_refused(capsys, ["card", NAME, "--output", "nowhere/README.md"], "no such folder")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_not_there_is_called_as_the_command_spells_it(capsys):
    check_refused(capsys, ["card", "./nope"], "MODEL ./nope: no such folder; a checkpoint is a folder")
    check_refused(capsys, ["save", "./nope", "out"], "MODEL ./nope: no such folder; a checkpoint is a folder")


def test_a_card_without_a_hub_id_says_what_to_fill_in(tmp_path, capsys):
    """`from_pretrained` of a name that is neither a folder nor on the Hub would load nothing, or another's model."""
    assert run(["save", NAME, str(tmp_path / "merged"), "--r", "30"]) == 0
    text = (tmp_path / "merged" / "README.md").read_text()
    assert 'from_pretrained("path/to/this/folder")' in text
    assert "`path/to/this/folder` stands for the folder that holds this card" in text
    assert f'from_pretrained("{NAME}")' not in text
    assert str(tmp_path) not in text


def test_the_hub_id_of_a_saved_checkpoint_is_in_its_card(tmp_path, capsys):
    command = ["save", NAME, str(tmp_path / "merged"), "--r", "30", "--repo-id", "me/vivit-merged", "--json"]
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["repo_id"] == "me/vivit-merged"
    card = ModelCard.load(tmp_path / "merged" / "README.md")
    assert 'from_pretrained("me/vivit-merged")' in card.text
    assert "path/to" not in card.text
    assert "# vivit-merged with token merging" in card.text


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--repo-id", "a/b/c"], ["--repo-id: ", "a/b/c"]),
        (["--push-to-hub", "a/b/c"], ["--push-to-hub: ", "'namespace/repo_name': 'a/b/c'."]),
        (["--push-to-hub", "me/x.git"], ["--push-to-hub: ", "me/x.git"]),
        (["--repo-id", "me/a", "--push-to-hub", "me/b"], ["--repo-id must be", "--push-to-hub, me/b", "got me/a"]),
    ],
)
def test_an_id_that_the_hub_cannot_have_is_refused_before_anything_is_saved(options, parts, tmp_path, capsys):
    check_refused(capsys, ["save", NAME, tmp_path / "out", *options], *parts)
    assert not (tmp_path / "out").exists()


def test_without_a_network_the_folder_is_kept_and_can_be_uploaded_later(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    folder = tmp_path / "my model"
    command = ["save", NAME, str(folder), "--r", "30", "--push-to-hub", "me/x", "--private"]

    def errors(*options: str) -> list[str]:
        assert run([*command, *options]) == 2
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]

    (error,) = errors()
    assert error.startswith("error: --push-to-hub me/x: ")
    assert f"{folder} is written; retry with --overwrite" in error
    assert error.endswith(f"hf upload me/x '{folder}' --private")
    assert (folder / "model.safetensors").is_file()
    (error,) = errors("--overwrite")
    assert "is written" in error


def test_what_was_measured_with_other_settings_is_said(tmp_path, capsys):
    evaluate = ["evaluate", NAME, "--dataset", "moving-digits", "--data-option", "num_test=4", "--r", "20"]
    assert run([*evaluate, "--workers", "0", "--output", str(tmp_path / "measured")]) == 0
    capsys.readouterr()
    assert run(["card", NAME, "--r", "30", "--evaluation", str(tmp_path / "measured")]) == 0
    assert "note: nothing was measured with exactly these settings" in capsys.readouterr().err


def test_save_writes_a_checkpoint_that_can_be_saved_again(tmp_path, capsys):
    assert run(["save", NAME, str(tmp_path / "a"), "--r", "30", "--remote-code"]) == 0
    assert "Python files" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "config.json").read_text())["token_merging_r"] == 30
    assert run(["save", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["files"] == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert printed["token_merging"]["r"] == 30


def test_save_refuses_what_it_would_spoil(tmp_path, capsys):
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    check_refused(capsys, ["save", NAME, folder], "already exists")
    check_refused(capsys, ["save", NAME, folder, "--overwrite"], "not a checkpoint folder")
    check_refused(capsys, ["save", NAME, tmp_path / "new", "--private"], "--private has no effect")
    (folder / "config.json").write_text('{"model_type": "vivit"}')
    check_refused(capsys, ["save", folder, folder, "--overwrite"], "is the input checkpoint")
    check_refused(capsys, ["save", NAME, folder / "notes.txt" / "x"], "FOLDER ", "notes.txt")
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_saved_evaluated_and_described(tmp_path, capsys, monkeypatch):
    """The three commands that the docs show, one after the other."""
    monkeypatch.chdir(tmp_path)
    assert run(["save", NAME, "saved", "--r", "30"]) == 0
    evaluate = ["evaluate", "saved", "--dataset", "moving-digits", "--data-option", "num_test=4"]
    assert run([*evaluate, "--workers", "0", "--output", "measured"]) == 0
    capsys.readouterr()
    assert run(["card", "saved", "--evaluation", "measured", "--output", "saved/README.md"]) == 0
    assert "nothing was measured" not in capsys.readouterr().err
    (top_1, _) = ModelCard.load("saved/README.md").data.eval_results
    results = json.loads((tmp_path / "measured" / "results.json").read_text())
    assert top_1.metric_value == round(results["settings"][0]["tasks"]["label"]["top_1"]["value"], 4)
    assert results["settings"][0]["resolved"]["r"] == 30
