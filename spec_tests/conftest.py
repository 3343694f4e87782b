"""Shapes in the reference's signatures are checked at run time in every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings

# Before anything imports detr_reference: the hook rewrites modules as they are loaded.
jaxtyping.install_import_hook("detr_reference", "beartype.beartype")

settings.register_profile("spec", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("spec")


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switch the run-time shape checks off: a user does not have them, and meets the project's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and detections, which lie beside the project where its authors work and are not part of it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder
