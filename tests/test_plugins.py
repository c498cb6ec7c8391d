"""Packages that add modes by an entry point."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_video_tome.merging import MODES
from hf_video_tome.registration import register


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, of which nothing is left after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("added_modes", "broken_modes"):
        sys.modules.pop(name, None)


def install(site: Path, module: str, code: str) -> None:
    (site / f"{module}.py").write_text(textwrap.dedent(code))
    folder = site / f"{module}_package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}-package\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[hf_video_tome.modes]\n{module} = {module}\n")


ADDED = """
    import hf_video_tome
    from hf_video_tome.merging import assign_pairs, register_mode
    @register_mode("added")
    def added(context):
        return assign_pairs(context.cosine_matching())
"""


def test_their_modules_are_imported_by_the_registration(site: Path) -> None:
    install(site, "added_modes", ADDED)
    assert "added" not in MODES
    register()
    assert "added" in MODES
    register()  # again, and nothing is registered twice


def test_one_that_is_broken_is_left_out_with_a_warning(site: Path) -> None:
    install(site, "broken_modes", "raise ValueError('of no use')")
    install(site, "added_modes", ADDED)
    message = (
        r"^skipping the entry point 'broken_modes' of broken_modes-package \(hf_video_tome\.modes\): cannot import "
        r"broken_modes: ValueError: of no use$"
    )
    with pytest.warns(RuntimeWarning, match=message):
        register()
    assert "added" in MODES
