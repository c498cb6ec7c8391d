"""The structure of the package: parts in layers, imports that point downwards, no circles."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

import hf_video_tome

PACKAGE = Path(hf_video_tome.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground up. A part may import itself and whatever is in the rows before its own.
LAYERS = [
    ("_compat", "_lazy", "_own_command", "plugins", "version"),
    ("merging",),
    ("describe", "saved_files", "saved_settings"),
    ("configuration",),
    ("models", "data"),
    ("presets",),
    ("api", "conversion", "metrics", "registration", "tasks"),
    ("checkpoints",),
    ("loading",),
    ("evaluation",),
    ("benchmark", "visualization"),
    ("analysis", "hub"),
    ("tuning",),
    ("cli",),
    ("__init__", "__main__"),
]
# Modules of transformers and torch that are not documented, though their names do not say so.
INTERNAL = (
    "transformers.conversion_mapping",
    "transformers.core_model_loading",
    "transformers.integrations",
    "transformers.models.auto",
    "transformers.utils.generic",
    "transformers.utils.output_capturing",
)
INTERNAL_NAMES = {"ALL_ATTENTION_FUNCTIONS"}
# Private names of others that are theirs to hand out, or of libraries that have no part in models.
ALLOWED = {
    "_asdict": "of named tuples, documented",
    "_replace": "of named tuples, documented",
    "_getframe": "of sys, documented",
    "_cache_dir_root": "of builders of datasets",
}
THEIRS = {*dir(PreTrainedModel), *dir(PreTrainedConfig), *vars(nn.Module())}
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def part_of(name: str) -> str:
    """The file or folder of the package that a module belongs to."""
    return [*name.split("."), "__init__"][1]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imports(name: str) -> set[str]:
    """Modules that a module imports: at its top, inside of functions, and for type checkers."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            # `from package import module` imports the module; the package's own file runs, too.
            found |= {full if (full := f"{origin}.{alias.name}") in MODULES else origin for alias in node.names}
    return found


def own_imports(name: str) -> set[str]:
    return imports(name) & MODULES.keys()


def test_every_part_has_a_layer() -> None:
    assert LEVEL.keys() == {part_of(name) for name in MODULES}


@pytest.mark.parametrize("part", sorted(LEVEL))
def test_imports_point_downwards(part: str) -> None:
    upwards = [
        f"{name} imports {target}"
        for name in MODULES
        if part_of(name) == part
        for target in own_imports(name)
        if part_of(target) != part and LEVEL[part_of(target)] >= LEVEL[part]
    ]
    assert not upwards


def test_no_circles() -> None:
    # Raises CycleError, which names the files.
    order = list(TopologicalSorter({name: own_imports(name) for name in MODULES}).static_order())
    assert sorted(order) == sorted(MODULES)


def test_merging_is_plain_torch() -> None:
    for name in MODULES:
        if part_of(name) == "merging":
            others = {imported.split(".")[0] for imported in imports(name)} - {"hf_video_tome"}
            assert others <= {"__future__", "torch", *sys.stdlib_module_names}, name


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_names() -> set[str]:
    """What the package defines: functions, classes, variables, and attributes of its own objects."""
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                    found.add(name)
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    found.add(name)
    return found


def private_uses(source: str, own: set[str]) -> list[str]:
    """Uses of private names of others in a file, as "line: name"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [(node.lineno, it.name) for it in names if any(map(is_private, it.name.split(".")))]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                private = any(map(is_private, module.split("."))) or f"{module}.".startswith(
                    tuple(f"{internal}." for internal in INTERNAL)
                )
                found += [
                    (node.lineno, f"{module}.{it.name}")
                    for it in names
                    if private or is_private(it.name) or it.name in INTERNAL_NAMES
                ]
            case ast.Attribute(value=value, attr=name) if is_private(name) and name not in ALLOWED:
                # Classes override what is theirs, and may call what they override; nobody else may.
                inside = isinstance(value, ast.Name) and value.id in ("self", "cls")
                inside |= isinstance(value, ast.Call) and getattr(value.func, "id", "") == "super"
                if name not in own or (name in THEIRS and not inside):
                    found.append((node.lineno, name))
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(str(name)), *_]):
                if is_private(name) and (name not in own or name in THEIRS):
                    found.append((node.lineno, name))
    return [f"{line}: {name}" for line, name in sorted(found)]


def test_private_names_of_others_are_in_one_place() -> None:
    own = own_names()
    uses = {path.relative_to(PACKAGE).as_posix(): private_uses(path.read_text(), own) for path in FILES}
    assert uses.pop("_compat.py"), "the test could not fail"
    assert not {file: found for file, found in uses.items() if found}


@pytest.mark.parametrize(
    "source",
    [
        "from torch._inductor import config",
        "import torch._dynamo",
        "from transformers.utils.output_capturing import capture_outputs",
        "from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS",
        "torch._dynamo.config.patch()",
        "model.config._attn_implementation",
        "model.config._attn_implementation = 'sdpa'",
        "model._supports_sdpa",
        "getattr(model, '_compiled_call_impl', None)",
    ],
)
def test_private_names_are_seen(source: str) -> None:
    assert len(private_uses(source, {"_supports_sdpa"})) == 1


@pytest.mark.parametrize("source", ["_supports_sdpa = True", "super()._supports_sdpa", "self._mine", "row._asdict()"])
def test_own_names_are_not_private_names_of_others(source: str) -> None:
    assert private_uses(source, {"_supports_sdpa", "_mine"}) == []
