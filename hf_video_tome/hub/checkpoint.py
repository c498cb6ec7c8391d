"""Saves and shares a checkpoint that merges tokens: weights, settings, processor, card and optionally its code."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects, validate_repo_id
from transformers import PreTrainedModel

from ..configuration import TokenMergingConfigMixin
from ..data.processor_settings import PROCESSOR_FILES
from ..saved_files import find_saved_files, read_json_object
from .card import CARD_FILE
from .remote_code import find_remote_code, save_remote_code

WEIGHT_FILES = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
SCRATCH = ".saving-"
"""Name of the temporary folder in which a checkpoint is written first."""
UPLOAD_ERRORS: tuple[Any, ...] = (*HfHubHTTPError.__bases__, OSError)
"""Errors of a failed upload: errors from the Hub, network errors of the HTTP library, a missing token. The HTTP
library depends on the version of huggingface_hub, but the error of the Hub always extends the library's error."""


def save_checkpoint(
    model: PreTrainedModel,
    folder: str | os.PathLike[str],
    *,
    processor: Any = None,
    card: ModelCard | None = None,
    remote_code: bool = False,
) -> list[str]:
    """Saves a model with its settings, processor, card and code.

    An existing checkpoint in the folder is replaced once the new one is complete, and is left unchanged if anything
    fails. Its weights, its code and, if there is a new one, its processor are removed, because they would be loaded
    with the new checkpoint. All other files are kept.

    Args:
        model: A model that can merge tokens; its settings are saved in `config.json`.
        folder: Output folder; created if missing.
        processor: An image or video processor, or a folder or Hub id whose processor files are copied. None keeps an
            existing one.
        card: The model card, from `model_card`. None keeps an existing one.
        remote_code: Whether to save the code too, so that the model merges without this package, see
            `save_remote_code`.

    Returns:
        Paths of the written files, relative to the folder.

    Raises:
        ValueError: If the model cannot merge tokens, or the processor is not found.
        OSError: If the folder cannot be written.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, token_merging_r=10)
        >>> save_checkpoint(VideoMAEForVideoClassification(config), tempfile.mkdtemp())
        ['config.json', 'model.safetensors']
    """
    _check(model)
    given = _find_processor(processor) if isinstance(processor, str | os.PathLike) else []
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    outdated = _own_files(target, with_processor=processor is not None)
    # Inside the folder, so that it is on the same disk.
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=target))
    new, old = scratch / "new", scratch / "old"
    new.mkdir()
    old.mkdir()
    try:
        model.save_pretrained(new)
        for file in given:
            shutil.copyfile(file, new / file.name)
        if processor is not None and not given:
            processor.save_pretrained(new)
        if card is not None:
            card.save(new / CARD_FILE)
        if remote_code:
            save_remote_code(new)
        else:
            _forget_remote_code(new)
        files = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file())
        _swap(new, old, target, outdated)
    except BaseException:
        if not any(old.iterdir()):  # old files are only deleted if everything succeeded
            shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return files


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
    """Uploads a model with its settings, processor, card and code, in one commit.

    `model.push_to_hub(repo_id)` of transformers works too, for weights and settings.

    Args:
        model: A model that can merge tokens; its settings are saved in `config.json`.
        repo_id: Repository on the Hub; created if missing.
        processor: As for `save_checkpoint`.
        card: The model card, which replaces an existing one; None keeps it.
        remote_code: As for `save_checkpoint`.
        private: Whether a new repository is private; None for the default of the Hub.
        token: Hub token; the stored one when None.
        revision: Branch to commit to.
        create_pr: Whether to open a pull request instead of committing.
        commit_message: Message of the commit.

    Returns:
        URL of the commit or the pull request.

    Raises:
        ValueError: As for `save_checkpoint`.
    """
    _check(model)
    with tempfile.TemporaryDirectory() as folder:
        files = save_checkpoint(model, folder, processor=processor, card=card, remote_code=remote_code)
        return upload_checkpoint(
            folder,
            repo_id,
            files=files,
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
    files: Sequence[str] | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload a model that merges tokens",
) -> str:
    """Uploads a folder written by `save_checkpoint` in one commit; it replaces any processor in the repository.

    Args:
        folder: The folder.
        repo_id: As for `push_to_hub`.
        files: Names of the files to upload, as returned by `save_checkpoint`; all files in the folder when None.
        private: As for `push_to_hub`.
        token: As for `push_to_hub`.
        revision: As for `push_to_hub`.
        create_pr: As for `push_to_hub`.
        commit_message: As for `push_to_hub`.

    Returns:
        URL of the commit or the pull request.

    Raises:
        Exception: One of `UPLOAD_ERRORS`, if the Hub cannot be reached or rejects the upload.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    names = _files_to_upload(Path(folder)) if files is None else files
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=Path(folder) / name) for name in names
    ]
    if any(name in PROCESSOR_FILES for name in names):
        # Another processor there would be read beside, or instead of, the one that comes.
        stale = {*PROCESSOR_FILES}.difference(names).intersection(api.list_repo_files(repo_id, revision=revision))
        operations += [CommitOperationDelete(path_in_repo=name) for name in sorted(stale)]
    # Not `upload_folder`: that may take several commits, between which the repository is half of each.
    commit = api.create_commit(
        repo_id, operations, commit_message=commit_message, revision=revision, create_pr=create_pr
    )
    return str(commit.pr_url or commit.commit_url)


def _files_to_upload(folder: Path) -> list[str]:
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return list(filter_repo_objects(names, ignore_patterns=[*DEFAULT_IGNORE_PATTERNS, f"{SCRATCH}*"]))


def _check(model: PreTrainedModel) -> None:
    if not isinstance(getattr(model, "config", None), TokenMergingConfigMixin):
        raise ValueError(f"model must be able to merge tokens, got {type(model).__name__}: call apply_token_merging")


def _find_processor(location: str | os.PathLike[str]) -> list[Path]:
    """Returns the files of a saved processor, which are copied unchanged so that no setting is lost."""
    is_folder = Path(location).is_dir()
    if not is_folder:
        try:
            validate_repo_id(str(location))
        except HFValidationError:
            raise ValueError(f"processor must be a processor, a folder or a Hub id, got {location}") from None
    files = list(find_saved_files(location, PROCESSOR_FILES))
    if not files:
        where = "" if is_folder else " on the Hub (or, where that is not reached, in its cache)"
        raise ValueError(f"processor must have one of {', '.join(PROCESSOR_FILES)}{where}, got {location}")
    return files


def _own_files(folder: Path, with_processor: bool) -> list[Path]:
    """Returns files in a folder that would wrongly be loaded with a new checkpoint."""
    files = [path for path in folder.iterdir() if path.is_file() and WEIGHT_FILES.fullmatch(path.name)]
    files += [folder / name for name in PROCESSOR_FILES if with_processor and (folder / name).is_file()]
    return files + find_remote_code(folder)


def _swap(new: Path, old: Path, target: Path, outdated: Sequence[Path]) -> None:
    """Moves outdated files from `target` to `old` and new files from `new` to `target`; undoes both if one fails."""
    names = [path.name for path in new.iterdir()]
    leaving = {path.name for path in outdated} | {name for name in names if os.path.lexists(target / name)}
    moves = [(target / name, old / name) for name in sorted(leaving)]
    moves += [(new / name, target / name) for name in names]
    done = []
    try:
        for source, destination in moves:
            os.replace(source, destination)
            done.append((source, destination))
    except BaseException:
        for source, destination in reversed(done):
            os.replace(destination, source)
        raise


def _forget_remote_code(folder: Path) -> None:
    """Removes references to remote code that is not saved from config and processor."""
    for name in ("config.json", *PROCESSOR_FILES):
        path = folder / name
        content = read_json_object(path) if path.is_file() else {}
        # A processor may name the code of another repository, as "repository--file.Class".
        named = content.pop("auto_map", {})
        entries = named.items() if isinstance(named, dict) else ()
        kept = {key: value for key, value in entries if "--" in str(value) and name in PROCESSOR_FILES}
        if kept != named:
            content |= {"auto_map": kept} if kept else {}
            path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
