"""The files that an analysis leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_video_tome.analysis.files import conditions_of_run, model_name, versions, write_csv, write_json


def test_a_table_has_the_columns_of_its_rows(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "a.csv", [{"name": "x", "value": 1 / 3, "count": 2}, {"name": "y, z", "value": None, "count": 0}]
    )
    assert path.read_text() == 'name,value,count\nx,0.333333,2\n"y, z",,0\n'


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_conditions_name_no_paths(tmp_path: Path) -> None:
    run = {"model": str(tmp_path / "mine"), "dataset": "x", "seed": 3, "reference": {"folder": str(tmp_path)}}
    assert conditions_of_run(run) == {"model": "mine", "dataset": "x", "seed": 3}
    assert model_name("org/name") == "org/name"


def test_versions_are_those_of_what_runs() -> None:
    import torch

    assert versions()["torch"] == torch.__version__
