"""The package's code beside a checkpoint, so that it merges where the package is not installed.

transformers loads `modeling_*.py` from a checkpoint folder or repository when it is told `trust_remote_code=True`. It
finds further files by reading the relative imports, and takes only those of the form `from .name import ...` in the
same folder. The modules of this package lie in nested folders, so they are written out flat, with their relative
imports renamed and nothing else changed.
"""

from __future__ import annotations

import ast
import json
import os
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

from ..data.processor import ClipProcessor
from ..models import ARCHITECTURES, Architecture
from ..saved_files import read_json_object
from ..version import __version__

PACKAGE = __name__.split(".")[0]
_ALL_ARCHITECTURES = (PACKAGE, f"{PACKAGE}.models")
# Packages that only hand out names of their modules.
_HAND_OUT = (*_ALL_ARCHITECTURES, f"{PACKAGE}.merging")
HEADER = """\
# SPDX-License-Identifier: Apache-2.0
# Copyright The hf-video-tome authors
# Written by hf-video-tome {version} from {source}:
# to change it, change that file and write this one again.

"""
WEIGHT_CONVERSIONS = """

# Added by hf-video-tome: transformers converts older checkpoints for classes outside of it only when told so.
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

for _key in {keys!r}:
    register_checkpoint_conversion_mapping(_key, get_checkpoint_conversion_mapping(_key), overwrite=True)
"""
# transformers reads imports with an expression that does not know `from . import name`: this line is for it.
_FIND = "from .{name} import __name__ as _  # so that transformers copies the file along"


@dataclass(frozen=True)
class RemoteCode:
    """What is to be written beside a checkpoint.

    Attributes:
        files: From the names of Python files to their content.
        auto_map: From the names of Auto classes to `file.Class`, for config.json.
        processor_auto_map: The same for preprocessor_config.json; empty without a processor.
    """

    files: dict[str, str]
    auto_map: dict[str, str]
    processor_auto_map: dict[str, str]


@dataclass(frozen=True)
class _Import:
    """One `from ... import ...` of a module, and what it is replaced by."""

    start: int
    end: int
    text: str
    modules: tuple[ModuleType, ...]


def collect_remote_code(model_type: str, processor: bool = False) -> RemoteCode:
    """Collects the files that a model of an architecture needs to merge tokens, wherever they lie in the package.

    Args:
        model_type: As in the config.
        processor: Whether to collect those of `ClipProcessor` too.

    Returns:
        The files, the same for the same version of the package.

    Raises:
        ValueError: If the architecture is not known.

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
    entry = import_module(architecture.head_class.__module__)
    own_package = entry.__name__.rpartition(".")[0]

    def flat_name(module: ModuleType) -> str:
        prefix = own_package if module.__name__.startswith(f"{own_package}.") else PACKAGE
        return module.__name__.removeprefix(f"{prefix}.").replace(".", "_")

    sources: dict[str, tuple[str, str]] = {}
    processing = import_module(ClipProcessor.__module__)
    waiting = [entry, processing] if processor else [entry]
    while waiting:
        module = waiting.pop()
        name = flat_name(module)
        path = Path(str(module.__file__))
        if name in sources:
            if sources[name][0] != module.__name__:
                raise RuntimeError(f"{module.__name__} and {sources[name][0]} would both be written to {name}.py")
            continue
        if module.__name__ in _ALL_ARCHITECTURES:
            raise RuntimeError(f"code of {model_type} imports from {module.__name__}, which holds all architectures")
        text = path.read_text(encoding="utf-8")
        imports = _relative_imports(module, text, flat_name)
        for found in sorted(imports, key=lambda found: found.start, reverse=True):
            text = text[: found.start] + found.text + text[found.end :]
            waiting += found.modules
        source = path.relative_to(Path(str(import_module(PACKAGE).__file__)).parents[1]).as_posix()
        sources[name] = (module.__name__, HEADER.format(version=__version__, source=source) + text)
    files = {f"{name}.py": text for name, (_, text) in sorted(sources.items())}
    if architecture.encoder.weight_conversions:
        files[f"{flat_name(entry)}.py"] += WEIGHT_CONVERSIONS.format(keys=architecture.encoder.weight_conversions)
    processor_map = {"AutoImageProcessor": f"{flat_name(processing)}.{ClipProcessor.__name__}"} if processor else {}
    return RemoteCode(files, _auto_map(architecture, entry, flat_name(entry)), processor_map)


def _auto_map(architecture: Architecture, entry: ModuleType, file: str) -> dict[str, str]:
    """The entries of config.json: all in one file, which makes their classes those that belong to each other."""
    classes = {
        "AutoConfig": architecture.config_class,
        "AutoModel": architecture.model_class,
        "AutoModelForVideoClassification": architecture.head_class,
    }
    for wanted in classes.values():
        if getattr(entry, wanted.__name__, None) is not wanted:
            raise RuntimeError(f"{entry.__name__} must hold or import {wanted.__name__}")
    return {name: f"{file}.{wanted.__name__}" for name, wanted in classes.items()}


def _relative_imports(module: ModuleType, text: str, flat_name: Any) -> list[_Import]:
    """Every import of a module from this package, at its top or inside of functions, and what to write instead."""
    is_package = hasattr(module, "__path__")
    package = module.__name__ if is_package else module.__name__.rpartition(".")[0]
    # Offsets of lines in characters; those of `ast` are in bytes of UTF-8, and so must be taken from the line.
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)

    def position(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == PACKAGE for alias in node.names):
            raise RuntimeError(f"{module.__name__}, line {node.lineno}: imports of {PACKAGE} must be relative")
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 0:
            if str(node.module).split(".")[0] == PACKAGE:
                raise RuntimeError(f"{module.__name__}, line {node.lineno}: imports of {PACKAGE} must be relative")
            continue
        origin = import_module(resolve_name("." * node.level + (node.module or ""), package))
        start, end = position(node.lineno, node.col_offset), position(node.end_lineno or 0, node.end_col_offset or 0)
        if origin.__name__ in _HAND_OUT:
            # Where a name comes from is carried along, not the package that hands it out.
            sources = {alias: _source(origin, alias.name) for alias in node.names}
            statements = [f"from .{flat_name(source)} import {ast.unparse(it)}" for it, source in sources.items()]
            found.append(_Import(start, end, f"\n{' ' * node.col_offset}".join(statements), tuple(sources.values())))
            continue
        submodules = {
            alias.name: value
            for alias in node.names
            if isinstance(value := _value(origin, alias.name), ModuleType)
            and value.__name__ == f"{origin.__name__}.{alias.name}"
        }
        if not submodules:
            renamed = re.sub(r"^from\s+\S+\s+import", f"from .{flat_name(origin)} import", text[start:end])
            found.append(_Import(start, end, renamed, (origin,)))
            continue
        statements = []
        for alias in node.names:
            if alias.name in submodules:
                name = flat_name(submodules[alias.name])
                bound = alias.asname or alias.name
                renaming = "" if bound == name else f" as {bound}"
                statements += [_FIND.format(name=name), f"from . import {name}{renaming}"]
            else:
                statements.append(f"from .{flat_name(origin)} import {ast.unparse(alias)}")
        modules = [*submodules.values(), *([origin] if len(submodules) < len(node.names) else [])]
        found.append(_Import(start, end, f"\n{' ' * node.col_offset}".join(statements), tuple(modules)))
    return found


def _source(package: ModuleType, name: str) -> ModuleType:
    """The module that a package imports a name from."""
    for node in ast.walk(ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level or not node.module:
            continue
        if name in [alias.asname or alias.name for alias in node.names]:
            return import_module(resolve_name("." * node.level + node.module, package.__name__))
    raise RuntimeError(f"{name} is imported from {package.__name__}, which does not hand it out")


def _value(module: ModuleType, name: str) -> Any:
    """What `from module import name` gives."""
    if hasattr(module, name):
        return getattr(module, name)
    return import_module(f"{module.__name__}.{name}")


def save_remote_code(folder: str | os.PathLike[str]) -> list[str]:
    """Writes the code that merges tokens into a saved checkpoint, and names it in its config.json.

    From then on `from_pretrained(folder, trust_remote_code=True)` merges tokens as its config says, with transformers
    alone. Where this package is installed and imported, its own code runs instead; without `trust_remote_code=True`
    transformers loads its own model, which does not merge.

    Args:
        folder: A checkpoint folder, as `save_pretrained` writes it.

    Returns:
        Names of the files that were written, config.json not among them.

    Raises:
        FileNotFoundError: If the folder has no config.json.
        ValueError: If the architecture is not known, or a file of the folder holds no JSON object.

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
    """Files in a folder that `save_remote_code` wrote, of whatever version and for whatever architecture.

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


def _add_auto_map(path: Path, content: dict[str, Any], auto_map: dict[str, str]) -> None:
    before = content.get("auto_map")
    content["auto_map"] = {**(before if isinstance(before, dict) else {}), **auto_map}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
