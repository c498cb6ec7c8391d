"""Saving and sharing a checkpoint that merges tokens: weights, settings, processor, card, and its code if wanted."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError
from transformers import PreTrainedModel
from transformers.utils import cached_file

from ..configuration import TokenMergingConfigMixin
from .card import CARD_FILE
from .remote_code import save_remote_code

PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
UPLOAD_ERRORS: tuple[Any, ...] = (*HfHubHTTPError.__bases__, OSError)
"""What an upload raises that fails: refusals of the Hub, errors of the HTTP library without a network, no token.
That library differs between versions of huggingface_hub; the error of the Hub always extends the library's own."""


def save_checkpoint(
    model: PreTrainedModel,
    folder: str | os.PathLike[str],
    *,
    processor: Any = None,
    card: ModelCard | None = None,
    remote_code: bool = False,
) -> list[str]:
    """Saves a model with all that belongs to it.

    Args:
        model: A model that can merge tokens; its settings go into `config.json`.
        folder: Where to; made if need be.
        processor: An image or video processor, or a folder or Hub id whose processor files are copied; None for none.
        card: The model card, from `model_card`; None for none.
        remote_code: Whether to write the code beside it, so that it merges without this package, see
            `save_remote_code`.

    Returns:
        The files of the folder.

    Raises:
        ValueError: If the model cannot merge tokens.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, token_merging_r=10)
        >>> save_checkpoint(VideoMAEForVideoClassification(config), tempfile.mkdtemp())
        ['config.json', 'model.safetensors']
    """
    _check(model)
    folder = Path(folder)
    model.save_pretrained(folder)
    if isinstance(processor, str | os.PathLike):
        _copy_processor(processor, folder)
    elif processor is not None:
        processor.save_pretrained(folder)
    if card is not None:
        card.save(folder / CARD_FILE)
    if remote_code:
        save_remote_code(folder)
    else:
        _forget_remote_code(folder / "config.json")
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def push_to_hub(
    model: PreTrainedModel,
    repo_id: str,
    *,
    processor: Any = None,
    card: ModelCard | None = None,
    remote_code: bool = False,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload a model that merges tokens",
) -> str:
    """Uploads a model with all that belongs to it, in one commit.

    `model.push_to_hub(repo_id)` of transformers works too, for weights and settings.

    Args:
        model: A model that can merge tokens; its settings go into `config.json`.
        repo_id: Repository on the Hub; made if need be.
        processor: As for `save_checkpoint`.
        card: The model card, which takes the place of one that is there; None leaves it alone.
        remote_code: As for `save_checkpoint`.
        private: Whether a new repository is private; None for what is usual there.
        token: Hub token; the stored one when None.
        revision: Branch to commit to.
        create_pr: Whether to open a pull request instead of committing.
        commit_message: Message of the commit.

    Returns:
        Address of the commit, or of the pull request.

    Raises:
        ValueError: If the model cannot merge tokens.
    """
    _check(model)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(model, folder, processor=processor, card=card, remote_code=remote_code)
        return upload_checkpoint(
            folder,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )


def upload_checkpoint(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload a model that merges tokens",
) -> str:
    """Uploads a folder that `save_checkpoint` wrote, in one commit.

    Args:
        folder: The folder.
        repo_id: As for `push_to_hub`, like the others.
        private: See there.
        token: See there.
        revision: See there.
        create_pr: See there.
        commit_message: See there.

    Returns:
        Address of the commit, or of the pull request.

    Raises:
        Exception: One of `UPLOAD_ERRORS`, if the Hub cannot be reached or refuses it.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=Path(folder),
        commit_message=commit_message,
        revision=revision,
        create_pr=create_pr,
    )
    return str(commit.pr_url or commit.commit_url)


def _check(model: PreTrainedModel) -> None:
    if not isinstance(getattr(model, "config", None), TokenMergingConfigMixin):
        raise ValueError(f"model must be able to merge tokens, got {type(model).__name__}: call apply_token_merging")


def _copy_processor(location: str | os.PathLike[str], folder: Path) -> None:
    """Copies the files of a processor as they are, so that no setting is lost on the way."""
    for name in PROCESSOR_FILES:
        source = cached_file(
            location,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if source is not None:
            shutil.copyfile(source, folder / name)


def _forget_remote_code(path: Path) -> None:
    """A config that came with code names it still, where the code is not."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("auto_map", None) is not None:
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
