"""The structure of the package: parts in layers, imports that point downwards, no circles."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import hf_video_tome

PACKAGE = Path(hf_video_tome.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground up. A part may import itself and whatever is in the rows before its own.
LAYERS = [
    ("_lazy", "_own_command", "plugins", "version"),
    ("merging",),
    ("describe", "saved_files", "saved_settings"),
    ("configuration",),
    ("models", "data"),
    ("api", "conversion", "metrics", "registration", "tasks"),
    ("checkpoints",),
    ("loading",),
    ("evaluation",),
    ("benchmark", "visualization"),
    ("analysis", "hub"),
    ("cli",),
    ("__init__", "__main__"),
]
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
