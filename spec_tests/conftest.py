"""Shapes in the reference's signatures are checked at run time in every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

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
