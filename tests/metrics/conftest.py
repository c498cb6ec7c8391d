from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _metrics_cache(tmp_path, monkeypatch):
    """What metrics collect goes to a folder of the test."""
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
