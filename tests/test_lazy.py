"""Packages whose names are imported on first use."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

PACKAGES = ["", ".analysis", ".data", ".evaluation", ".merging", ".metrics", ".visualization"]
DEFINED_HERE = {"__version__", "metric_path"}


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    package = importlib.import_module(f"hf_video_tome{name}")
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module 'hf_video_tome{name}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_those_that_type_checkers_see(name: str) -> None:
    package = importlib.import_module(f"hf_video_tome{name}")
    lazy = set(dir(package)) - set(vars(package))
    assert lazy - {"register"} == set(package.__all__) - DEFINED_HERE


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose modules note in `sys.modules` that they were imported."""
    files = {
        "__init__.py": """
from typing import TYPE_CHECKING
from hf_video_tome._lazy import lazy_names
if TYPE_CHECKING:
    from .inner.deep import one
    from .other import two, three
__getattr__, __dir__ = lazy_names(__name__)
""",
        "inner/__init__.py": "",
        "inner/deep.py": "one = object()",
        "other.py": "two, three = object(), object()",
    }
    for path, text in files.items():
        (tmp_path / "made_up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made_up" / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up"]:
        monkeypatch.delitem(sys.modules, name)
    return "made_up"


def test_a_module_is_imported_when_a_name_of_it_is_used(made_up: str) -> None:
    package = importlib.import_module(made_up)
    assert not {f"{made_up}.inner", f"{made_up}.other"} & sys.modules.keys()
    assert {"one", "two", "three"} <= set(dir(package))
    assert package.one is sys.modules[f"{made_up}.inner.deep"].one
    assert f"{made_up}.other" not in sys.modules
    assert package.two is sys.modules[f"{made_up}.other"].two


def test_the_modules_are_names_of_the_package(made_up: str) -> None:
    package = importlib.import_module(made_up)
    assert package.other is importlib.import_module(f"{made_up}.other")
    assert package.inner is importlib.import_module(f"{made_up}.inner")
    assert not hasattr(package, "deep")


def test_a_package_without_its_source_is_refused(made_up: str, tmp_path: Path) -> None:
    import compileall

    compileall.compile_dir(tmp_path / made_up, quiet=1, legacy=True)
    (tmp_path / made_up / "__init__.py").unlink()
    with pytest.raises(ImportError, match=r"made_up needs the source of its __init__\.py"):
        importlib.import_module(made_up)
