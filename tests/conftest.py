from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import torch

from tests.commands import commands  # noqa: F401
from tests.flex import uncompiled_flex_attention  # noqa: F401

# One profile for all property tests: the same examples in every run, and no verdict that depends on a busy machine.
hypothesis.settings.register_profile(
    "hf-video-tome",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("hf-video-tome")

# Inductor would start processes that each import torch, for the few kernels that are compiled here.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# Tiny models gain nothing from more threads, and lose much of their speed to them when the machine is busy.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random numbers, whichever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """A mode or an input stage that a test registers is gone after it."""
    from hf_video_tome.merging import INPUT_STAGES, MODES

    registries: tuple[dict[str, Any], ...] = (MODES, INPUT_STAGES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture
def unregistered() -> Iterator[None]:
    """transformers as it is without this package."""
    from hf_video_tome import registration

    registration.unregister()
    yield
    registration.register()
