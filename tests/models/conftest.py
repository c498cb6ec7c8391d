from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def stock_transformers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """`(folder, pixel_values, **kwargs)` -> what transformers makes of a checkpoint without this package."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("stock_worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    inputs = tmp_path_factory.mktemp("stock") / "pixel_values.npy"

    def ask(folder: Path, pixel_values: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        np.save(inputs, pixel_values.numpy())
        request = {"folder": str(folder), "pixel_values": str(inputs), "kwargs": kwargs}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer.pop("plugin_imported") is False
        return answer

    yield ask
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()
