"""Shapes in the reference's signatures are checked at run time in every test of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings

# Triton reads this when it is imported, which other libraries do. Without a GPU its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Before anything imports detr_reference: the hook rewrites modules as they are loaded.
jaxtyping.install_import_hook("detr_reference", "beartype.beartype")

settings.register_profile("spec", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("spec")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What commands keep for the next time is kept for the next test, and nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
    """Real photographs and detections, which may lie beside the project and are no part of it."""
    from helpers.places import SHARED_DATA

    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in the same order wherever the tests run, also in processes that they start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `tiny_training`."""
    from helpers.tiny.tiny_training import write_tiny_images

    folder = tmp_path_factory.mktemp("images")
    write_tiny_images(folder)
    return folder
