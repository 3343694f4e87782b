"""A set of vectors on disk: the same bytes every time, what the schema says, small, and refused where damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_conformance.vectors.export import Export, collect
from detr_conformance.vectors.reading import VectorsError, against_schema, read_vectors
from detr_conformance.vectors.store import rounded_up
from vectors.conftest import WANTED

Manifest = dict[str, Any]


def test_two_exports_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    collect(WANTED).write(tmp_path, npz=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_an_id_is_of_the_call_alone(export: Export) -> None:
    """Whoever else asks for the same call, and however much is exported beside it."""
    alone = collect(type(WANTED)("smoke", ("mlp",), ("float32",)))
    assert set(alone.vectors) == {name for name in export.vectors if name.startswith("mlp-float32-")}


def test_npz_holds_the_same_numbers(export: Export, folder: Path, tmp_path: Path) -> None:
    export.write(tmp_path, npz=True)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".npz"}
    one, other = read_vectors(folder), read_vectors(tmp_path)
    assert one.manifest["vectors"] == other.manifest["vectors"]
    assert all(torch.equal(t.nan_to_num(), other.tensors[k].nan_to_num()) for k, t in one.tensors.items())


def test_what_the_manifest_says_of_each_test(export: Export, folder: Path) -> None:
    manifest = read_vectors(folder).manifest
    about = manifest["tests"]["test_mlp.py::test_layers"]
    assert about == {
        "clauses": ["FFN-14"],
        "feature": None,
        "operations": ["mlp"],
        "cases": 1,
        "left_out": 0,
        "words": [],
    }
    assert "autocast" in manifest["tests"]["test_blocks_gradients_and_modes.py::test_autocast"]["words"][0]
    silent = [name for name, entry in manifest["tests"].items() if not (entry["cases"] or entry["left_out"])]
    assert [name for name in silent if not manifest["tests"][name]["words"]] == []


def test_equal_tensors_are_stored_once(folder: Path) -> None:
    vectors = read_vectors(folder)
    used = [key for vector in vectors.manifest["vectors"] for key in vector["parameters"].values()]
    assert len(set(used)) < len(used)
    assert len(vectors.tensors) == len(vectors.manifest["tensors"])


def test_a_limit_is_never_rounded_down() -> None:
    limits = torch.tensor([1e-3, 0.1, 1 / 3, 0.0, torch.inf], dtype=torch.float64)
    assert rounded_up(limits).dtype == torch.float32
    assert bool((rounded_up(limits).double() >= limits).all())
    huge = torch.tensor([1e300], dtype=torch.float64)
    assert torch.equal(rounded_up(huge), huge)


def damaged(folder: Path, tmp_path: Path, change: Callable[[Manifest], object]) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def first(table: dict[str, Any]) -> Any:
    return next(iter(table.values()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(schema_version=2), "schema_version"),
        (lambda m: m.update(vectors=[]), "vectors"),
        (lambda m: m["files"].update({"../outside": {"bytes": 1, "sha256": "0" * 64}}), "files"),
        (lambda m: first(m["files"]).update(sha256="0" * 64), "sha256"),
        (lambda m: first(m["files"]).update(bytes=7), "the manifest says 7"),
        (lambda m: first(m["tensors"]).update(file="elsewhere"), "no file 'elsewhere'"),
        (lambda m: first(m["tensors"]).update(shape=[1 << 40]), "another shape|expected|not what"),
        (lambda m: m["vectors"][0].update(operation="sorcery"), "unknown operation"),
        (lambda m: m["vectors"][0]["checks"][0].update(of="nothing"), "none of its results"),
        (lambda m: m["vectors"][0]["checks"][0].update(expected="0" * 24), "not listed"),
        (lambda m: m["vectors"].append(m["vectors"][0]), "comes twice"),
    ],
)
def test_a_damaged_set_is_refused_in_one_line(
    folder: Path, tmp_path: Path, change: Callable[[Manifest], object], said: str
) -> None:
    with pytest.raises(VectorsError, match=said) as caught:
        read_vectors(damaged(folder, tmp_path, change))
    assert "\n" not in str(caught.value)


def test_changed_numbers_are_noticed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "mlp.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(VectorsError, match="damaged"):
        read_vectors(tmp_path / "copy")


def test_an_export_is_what_the_schema_says(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert against_schema(manifest) is None
    del manifest["vectors"][0]["inputs"]
    assert against_schema(manifest) is not None
