"""Loads a classifier and the transform of its clips by name: a folder, a Hub id or a shipped checkpoint."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoints import DEFAULT_CHECKPOINT, available, checkpoint_path

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from .configuration import TokenMergingConfigMixin
    from .data.transforms import ClipTransform

SAVED_TRANSFORM = "saved with the checkpoint"
"""The `transform_source` of a classifier that was saved with its transform."""


_MAX_MESSAGE = 1000  # messages of transformers and torch may contain a value of any length


class CheckpointError(ValueError):
    """Checkpoint that is missing or cannot be used; the message begins with its name."""


class UnsupportedSettingsError(ValueError):
    """Token merging settings that a checkpoint does not support; the message says what is allowed."""


@dataclass(frozen=True)
class Classifier:
    """Loaded checkpoint.

    Attributes:
        name: Name given by the user.
        location: Folder or Hub id that it was loaded from.
        model: The model, ready to run.
        transform: Transform from frames to model input.
        transform_source: Where the transform came from.
        device: Device of the model.
    """

    name: str
    location: str
    model: PreTrainedModel
    transform: ClipTransform
    transform_source: str
    device: torch.device


def find_checkpoint(name: str | None = None) -> str:
    """Returns the folder or Hub id for the name of a checkpoint.

    A folder takes precedence over a shipped checkpoint of the same name, as it does over a Hub id in transformers.

    Args:
        name: A folder, a Hub id, or one of `available()`; None for the default checkpoint.

    Returns:
        A folder or a Hub id.

    Raises:
        CheckpointError: If the name can only be a folder, but that does not exist or contains no checkpoint.

    Examples:
        >>> find_checkpoint("google/vivit-b-16x2-kinetics400")
        'google/vivit-b-16x2-kinetics400'
        >>> find_checkpoint("vivit-moving-digits") == str(checkpoint_path("vivit-moving-digits"))
        True
    """
    if name is None:
        return str(checkpoint_path())
    allowed = f"a checkpoint is a folder, a model id on the Hub, or one of: {', '.join(available())}"
    if not name.strip():  # would be the current folder
        raise CheckpointError(f"{name!r}: is not a name; {allowed}")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CheckpointError(
                f"{name}: this folder has no config.json; a checkpoint folder holds config.json and "
                "model.safetensors, as save_pretrained writes them"
            )
        return str(path)
    if name in available():
        return str(checkpoint_path(name))
    if path.exists():
        raise CheckpointError(f"{name}: is a file; {allowed}")
    if path.is_absolute() or name.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise CheckpointError(f"{name}: no such folder; {allowed}")
    return name


def load_classifier(
    name: str | None = None,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    **settings: Any,
) -> Classifier:
    """Loads a checkpoint with its transform.

    Args:
        name: A folder, a Hub id, or one of `available()`; None for the default checkpoint.
        dtype: Precision of the weights, a torch dtype or its name.
        device: Device to load the model on.
        **settings: Token merging settings, as for `apply_token_merging`; all others are as saved.

    Returns:
        The classifier, in eval mode. A folder without a processor gets the default transform of its architecture, as
        `transform_source` then says.

    Raises:
        CheckpointError: If the checkpoint cannot be loaded, is not a video classifier, or lacks weights.
        UnsupportedSettingsError: If the checkpoint does not support the settings.

    Examples:
        >>> classifier = load_classifier("vivit-moving-digits", r=24)
        >>> classifier.model.config.token_merging_r, classifier.transform_source
        (24, 'saved with the checkpoint')
    """
    import torch
    from transformers import AutoConfig, AutoModelForVideoClassification, PretrainedConfig

    from .checkpoints.checks import (
        CONFIG_FILE,
        check_config,
        check_config_content,
        check_loaded,
        check_weights,
        find_weights,
    )
    from .tasks import classifier_tasks

    location, shown = find_checkpoint(name), name or DEFAULT_CHECKPOINT
    is_local = Path(location).is_dir()
    no_folder = (
        f"neither a folder here, nor one of the shipped checkpoints ({', '.join(available())}), nor could it be "
        "loaded from the Hub: "
    )
    with quiet_transformers():
        with _failures(shown, "" if is_local else no_folder):
            content = _read_config(location) if is_local else PretrainedConfig.get_config_dict(location)[0]
        with _failures(shown, f"{CONFIG_FILE}: "):
            check_config_content(content)
            config = AutoConfig.from_pretrained(location)
            check_config(config)
            classifier_tasks(config)  # fails early: whoever reads the predictions needs the tasks
        with_settings(config, settings)
        transform, source = _load_transform(location, config, shown)
        with _failures(shown):
            weights = find_weights(location, content)
        with _failures(shown, f"{CONFIG_FILE}: no model can be built from it: "):
            check_weights(config, weights)
        # Loads the model as a user would: the settings, checked above, are keywords of `from_pretrained`.
        fields = config.full_names(settings)
        with _failures(shown, "transformers cannot load it: "):
            model, report = AutoModelForVideoClassification.from_pretrained(
                location,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `check_loaded` names them
                return_dict=True,  # outputs are read by name
                **fields,
            )
            check_loaded(model, weights, report)
    model.to(device)
    return Classifier(shown, location, model.eval(), transform, source, torch.device(device))


def with_settings(config: Any, settings: Mapping[str, Any]) -> TokenMergingConfigMixin:
    """Returns a copy of a config with some token merging settings replaced.

    Args:
        config: A config with token merging fields.
        settings: As for `apply_token_merging`.

    Returns:
        The copy.

    Raises:
        SettingError: If the architecture does not have a setting, or does not support its value.
        UnsupportedSettingsError: If no architecture has a setting, or the config is invalid.
    """
    from huggingface_hub.errors import StrictDataclassError

    from .configuration import PRESET
    from .merging.setting_error import PREFIX, SettingError
    from .models import ARCHITECTURES

    for name in settings:
        field = PREFIX + name.removeprefix(PREFIX)
        if field not in config.token_merging_fields and field != PRESET:
            others = [key for key, it in ARCHITECTURES.items() if field in it.config_class.token_merging_fields]
            if not others:
                raise UnsupportedSettingsError(f"{field} is not a setting of any architecture")
            raise SettingError(
                field,
                settings[name],
                f"left out for {config.model_type}",
                because=f"only {', '.join(others)} supports it",
            )
    changed: TokenMergingConfigMixin = type(config).from_stock(config)
    try:
        changed.update_token_merging(**settings)
    except SettingError:
        raise
    except (ValueError, StrictDataclassError) as error:
        raise UnsupportedSettingsError(str(error)) from error
    return changed


def _read_config(location: str) -> Any:
    """Reads the config.json in a folder."""
    from transformers import PretrainedConfig

    from .checkpoints.checks import CONFIG_FILE
    from .saved_files import read_json_object

    read_json_object(Path(location) / CONFIG_FILE)  # has clearer errors
    return PretrainedConfig.get_config_dict(location)[0]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides progress bars and warnings while loading; problems are checked here and raise errors."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


def _load_transform(location: str, config: Any, shown: str) -> tuple[ClipTransform, str]:
    """Loads the transform of a checkpoint and says where it came from; a folder without one gets the default."""
    from .data.transforms import ClipTransform

    with _failures(shown):
        try:
            return ClipTransform.from_pretrained(location, config=config), SAVED_TRANSFORM
        except FileNotFoundError:
            if not Path(location).is_dir():
                raise
        return ClipTransform.from_config(config), f"the usual one of {config.model_type}"


@contextmanager
def _failures(name: str, prefix: str = "") -> Iterator[None]:
    """Turns any exception that a bad checkpoint causes into a `CheckpointError` of one line.

    transformers and torch can raise anything for unexpected values.

    Args:
        name: Name of the checkpoint, as given by the user.
        prefix: Prepended to messages that do not begin with the name of a file.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    from .checkpoints.checks import FileError

    try:
        yield
    except Exception as error:
        text = str(error)
        if isinstance(error, OSError) and error.strerror:  # leaves out the error number
            text = f"{error.strerror}: {error.filename}"
        if not isinstance(error, (OSError, ValueError, StrictDataclassError, SafetensorError)):
            text = f"{type(error).__name__}: {text}"
        if not isinstance(error, FileError):
            text = prefix + text
        raise CheckpointError(f"{name}: {' '.join(text.split())[:_MAX_MESSAGE]}") from error
