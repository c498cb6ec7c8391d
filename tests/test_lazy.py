"""Packages whose names are imported on first use."""

from __future__ import annotations

import ast
import importlib
import inspect

import pytest

PACKAGES = ["data", "evaluation", "metrics", "visualization"]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there_and_listed(name):
    package = importlib.import_module(f"hf_video_tome.{name}")
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module 'hf_video_tome.{name}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", PACKAGES)
def test_type_checkers_see_the_same_names_from_the_same_modules(name):
    package = importlib.import_module(f"hf_video_tome.{name}")
    tree = ast.parse(inspect.getsource(package))
    seen = {
        ("." * node.level + str(node.module), alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = set(package.__all__) - {"metric_path"}
    assert {imported for _, imported in seen} == lazy
    for module, imported in seen:
        owner = importlib.import_module(module, package.__name__)
        assert getattr(package, imported) is getattr(owner, imported)
