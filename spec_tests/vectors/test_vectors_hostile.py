"""Whatever stands in a manifest, a file of tensors or a file of outputs: a clear error, or what it was."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detr_conformance.vectors.export import Wanted, collect
from detr_conformance.vectors.reading import VectorsError, read_vectors
from detr_conformance.vectors.verify import Outputs, events

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    1 << 70,
    1.5,
    "",
    "../x",
    "/etc/passwd",
    "x" * 500,
    [],
    {},
    [[]],
    {"": None},
)
TRIES = 300


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    collect(Wanted("smoke", ("valid_ratios",), ("float32",))).write(folder, npz=False)
    return folder


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def test_manifests_with_anything_in_any_place(small: Path, tmp_path: Path) -> None:
    text, chance = (small / "manifest.json").read_text(), random.Random(0)
    for path in small.glob("*.safetensors"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    refused = []
    for _ in range(TRIES):
        manifest = json.loads(text)
        container, key = chance.choice(list(places(manifest)))
        container[key] = chance.choice(HOSTILE)
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        try:
            vectors = read_vectors(tmp_path)
        except VectorsError as error:
            refused.append(str(error))
        else:
            judged(vectors, tmp_path)
    assert len(refused) > TRIES / 2
    assert max(map(len, refused)) < 700


def judged(vectors: Any, folder: Path) -> None:
    """What was accepted can also be used, on outputs that are none."""
    outputs = folder / "outputs"
    outputs.mkdir(exist_ok=True)
    name = vectors.manifest["vectors"][0]["id"]
    (outputs / f"{name}.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    assert list(events(vectors, Outputs.of(outputs, vectors), "mine"))


@pytest.mark.parametrize("npz", [False, True])
def test_files_with_changed_bytes(small: Path, tmp_path: Path, npz: bool) -> None:
    """Of outputs, which no sum protects: the same reader, and the verdict is a failure."""
    vectors, chance = read_vectors(small), random.Random(1)
    if npz:
        collect(Wanted("smoke", ("valid_ratios",), ("float32",))).write(tmp_path, npz=True)
    source = next((tmp_path if npz else small).glob("*.npz" if npz else "*.safetensors"))
    name = vectors.manifest["vectors"][0]["id"]
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    for _ in range(TRIES // 3):
        content = bytearray(source.read_bytes()[:4000])
        for _ in range(chance.randrange(1, 9)):
            content[chance.randrange(min(400, len(content)))] = chance.randrange(256)
        (outputs / f"{name}{source.suffix}").write_bytes(bytes(content))
        found = list(events(vectors, Outputs.of(outputs, vectors), "mine"))
        assert any(event.get("outcome") == "fail" for event in found)
