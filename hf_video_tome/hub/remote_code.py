"""Saves the package's code with a checkpoint, so that it merges without the package.

transformers loads `modeling_*.py` from a checkpoint folder or repository with `trust_remote_code=True`. It finds
further files from relative imports, but only from those of the form `from .name import ...` in the same folder. This
package has nested folders, so its modules are written flat, with renamed relative imports and otherwise unchanged.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..data.processor import ClipProcessor
from ..models import ARCHITECTURES
from ..saved_files import read_json_object
from ..version import __version__

PACKAGE = __name__.split(".")[0]
HEADER = """\
# SPDX-License-Identifier: Apache-2.0
# Copyright The hf-video-tome authors
# Written by hf-video-tome {version} from {source}:
# to change it, change that file and write this one again.

"""
WEIGHT_CONVERSIONS = """

# Added by hf-video-tome: transformers converts older checkpoints only for its own classes and registered ones.
from ._compat import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

for _key in {keys!r}:
    register_checkpoint_conversion_mapping(_key, get_checkpoint_conversion_mapping(_key), overwrite=True)
"""
# transformers searches imports with a regular expression that misses `from . import name`; it finds this line.
_FIND = "from .{name} import __name__ as _  # so that transformers copies the file along"


_IMPORT = re.compile(r"^( *)from (\.[\w.]*) import (?:(\w+)( as \w+)?$)?", re.MULTILINE)
"""Matches the relative imports of this package, with the name if it imports only one."""


@dataclass(frozen=True)
class RemoteCode:
    """Code to save with a checkpoint.

    Attributes:
        files: Content of the Python files by name.
        auto_map: `file.Class` by name of the Auto class, for config.json.
        processor_auto_map: The same for preprocessor_config.json; empty without a processor.
    """

    files: Mapping[str, str]
    auto_map: Mapping[str, str]
    processor_auto_map: Mapping[str, str]


@cache
def collect_remote_code(model_type: str, processor: bool = False) -> RemoteCode:
    """Collects the files of the package that a model of an architecture needs to merge tokens.

    Args:
        model_type: Model type of the config.
        processor: Whether to include those of `ClipProcessor`.

    Returns:
        The files, which only depend on the package version; must not be modified.

    Raises:
        ValueError: If the architecture is unknown.

    Examples:
        >>> code = collect_remote_code("videomae")
        >>> code.auto_map["AutoModelForVideoClassification"]
        'modeling_videomae.VideoMAEForVideoClassification'
        >>> "merging_plan.py" in code.files, "registration.py" in code.files
        (True, False)
    """
    if model_type not in ARCHITECTURES:
        allowed = ", ".join(map(repr, ARCHITECTURES))
        raise ValueError(f"model_type must be one of {allowed}, got {model_type!r}")
    architecture = ARCHITECTURES[model_type]
    entry, processing = architecture.head_class.__module__, ClipProcessor.__module__
    own_package = entry.rpartition(".")[0]

    def flat_name(module: str) -> str:
        prefix = own_package if module.startswith(f"{own_package}.") else PACKAGE
        return module.removeprefix(f"{prefix}.").replace(".", "_")

    files: dict[str, str] = {}
    modules: dict[str, str] = {}
    waiting = [entry, processing] if processor else [entry]
    while waiting:
        module = waiting.pop()
        name = flat_name(module)
        if modules.setdefault(name, module) != module:
            raise RuntimeError(f"{module} and {modules[name]} would both be written to {name}.py")
        if f"{name}.py" in files:
            continue
        path = _file(module)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]

        def flatten(found: re.Match[str], package: str = package) -> str:
            indent, origin, name, alias = found.groups()
            module = resolve_name(origin, package)
            if name is None or not _file(f"{module}.{name}").is_file():
                waiting.append(module)
                return found[0].replace(f"from {origin} ", f"from .{flat_name(module)} ", 1)
            waiting.append(f"{module}.{name}")
            flat = flat_name(f"{module}.{name}")
            alias = alias or ("" if flat == name else f" as {name}")
            return f"{indent}{_FIND.format(name=flat)}\n{indent}from . import {flat}{alias}"

        source = path.relative_to(_file(PACKAGE).parents[1]).as_posix()
        text = _IMPORT.sub(flatten, path.read_text(encoding="utf-8"))
        files[f"{name}.py"] = HEADER.format(version=__version__, source=source) + text
    if architecture.encoder.weight_conversions:
        files[f"{flat_name(entry)}.py"] += WEIGHT_CONVERSIONS.format(keys=architecture.encoder.weight_conversions)
    # All classes in one file, so that they belong together.
    classes = {
        "AutoConfig": architecture.config_class,
        "AutoModel": architecture.model_class,
        "AutoModelForVideoClassification": architecture.head_class,
    }
    auto_map = {name: f"{flat_name(entry)}.{wanted.__name__}" for name, wanted in classes.items()}
    processor_map = {"AutoImageProcessor": f"{flat_name(processing)}.{ClipProcessor.__name__}"} if processor else {}
    return RemoteCode(*map(MappingProxyType, (dict(sorted(files.items())), auto_map, processor_map)))


def _file(module: str) -> Path:
    """Returns the path that a module of this package would have."""
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def save_remote_code(folder: str | os.PathLike[str]) -> list[str]:
    """Adds the code that merges tokens to a saved checkpoint and to its config.json.

    `from_pretrained(folder, trust_remote_code=True)` then merges tokens as set in its config, with transformers alone.
    If this package is installed and imported, its own code runs instead. Without `trust_remote_code=True`,
    transformers loads its own model, which does not merge.

    Args:
        folder: A checkpoint folder, as written by `save_pretrained`.

    Returns:
        Names of the written files, without config.json.

    Raises:
        FileNotFoundError: If the folder has no config.json.
        ValueError: If the architecture is unknown, or a JSON file of the folder does not hold an object.

    Examples:
        >>> import tempfile
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, token_merging_r=10)
        >>> folder = tempfile.mkdtemp()
        >>> VideoMAEForVideoClassification(config).save_pretrained(folder)
        >>> "modeling_videomae.py" in save_remote_code(folder)
        True
    """
    config_file, processor_file = Path(folder) / "config.json", Path(folder) / "preprocessor_config.json"
    if not config_file.is_file():
        raise FileNotFoundError(f"{folder} has no config.json: save the model there first")
    config = read_json_object(config_file)
    settings = read_json_object(processor_file) if processor_file.is_file() else {}
    processor = settings.get("image_processor_type") == ClipProcessor.__name__
    code = collect_remote_code(str(config.get("model_type")), processor)
    for name, text in code.files.items():
        (Path(folder) / name).write_text(text, encoding="utf-8")
    _add_auto_map(config_file, config, code.auto_map)
    if processor:
        _add_auto_map(processor_file, settings, code.processor_auto_map)
    return list(code.files)


def find_remote_code(folder: str | os.PathLike[str]) -> list[Path]:
    """Finds the files in a folder written by any version of `save_remote_code`, for any architecture.

    Args:
        folder: A checkpoint folder.

    Returns:
        The files, by name.
    """
    mark = HEADER.partition("{")[0].encode()

    def is_ours(path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(mark)) == mark

    return sorted(filter(is_ours, Path(folder).glob("*.py")))


def _add_auto_map(path: Path, content: dict[str, Any], auto_map: Mapping[str, str]) -> None:
    before = content.get("auto_map")
    content["auto_map"] = {**(before if isinstance(before, dict) else {}), **auto_map}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
