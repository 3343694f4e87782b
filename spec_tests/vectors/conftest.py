"""Small sets of vectors, derived once for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.vectors.export import Export, Wanted, collect
from detr_conformance.vectors.reading import read_vectors
from detr_conformance.vectors.replay import subjects, write_outputs

WANTED = Wanted("smoke", ("mlp",), ("float32", "bfloat16"))


@pytest.fixture(scope="session")
def export() -> Export:
    return collect(WANTED)


@pytest.fixture(scope="session")
def folder(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors")
    export.write(path, npz=False)
    return path


@pytest.fixture(scope="session")
def outputs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reference makes of them."""
    path = tmp_path_factory.mktemp("outputs")
    for operation in WANTED.operations:
        reference = resolve(OPERATIONS[operation].reference)
        write_outputs(path, subjects(operation, reference, WANTED.dtypes), read_vectors(folder))
    return path
