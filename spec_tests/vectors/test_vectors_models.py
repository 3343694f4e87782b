"""A whole model on disk, stage by stage: the first stage that is wrong is the one that is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.running.mutants import MUTANTS
from detr_conformance.vectors.export import AboutTest, Export, Wanted, choose
from detr_conformance.vectors.reading import Vectors, read_vectors
from detr_conformance.vectors.recording import asked_tests, recorded
from detr_conformance.vectors.replay import subjects, write_outputs
from detr_conformance.vectors.verify import Outputs, events

OPERATION, LARGEST = "deformable_detr", 800_000


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    export = Export(Wanted(operations=(OPERATION,), dtypes=("float32",)))
    (asked,) = (each for each in asked_tests("standard", [OPERATION], ["float32"]) if each.test.name == "test_stages")
    export.tests[asked.name] = AboutTest(list(asked.test.clauses), None, [OPERATION])
    (case,) = recorded(asked, "standard", 0, LARGEST)
    choose(export, case)
    folder = tmp_path_factory.mktemp("model")
    export.write(folder, npz=False)
    return read_vectors(folder)


def verdict(vectors: Vectors, folder: Path, build: Any) -> dict[str, Any]:
    write_outputs(folder, subjects(OPERATION, build, ["float32"]), vectors)
    found = events(vectors, Outputs.of(folder, vectors), "mine")
    return next(event for event in found if event["event"] == "result")


def test_stages_of_the_reference_are_right(vectors: Vectors, tmp_path: Path) -> None:
    (vector,) = vectors.manifest["vectors"]
    assert vector["flags"] == ["stages"]
    assert [check["of"] for check in vector["checks"]][:3] == ["stage:backbone", "stage:neck", "stage:positions"]
    assert vector["parameters"].keys() >= {"backbone.conv1.weight"}
    result = verdict(vectors, tmp_path, resolve(OPERATIONS[OPERATION].reference))
    assert (result["outcome"], result["cases"]) == ("pass", 1)
    assert 0 < result["worst_error_ratio"] <= 1


def test_the_first_wrong_stage_is_shown(vectors: Vectors, tmp_path: Path) -> None:
    result = verdict(vectors, tmp_path, MUTANTS["deformable-scaled-between-stages"].build())
    assert result["outcome"] == "fail"
    assert result["failure"]["where"].startswith("stage:")


def test_a_model_without_stages_is_not_judged_by_them(vectors: Vectors, tmp_path: Path) -> None:
    (vector,) = vectors.manifest["vectors"]
    save_file({}, tmp_path / f"{vector['id']}.safetensors")
    found = events(vectors, Outputs.of(tmp_path, vectors), "mine")
    assert next(event for event in found if event["event"] == "result")["outcome"] == "not-provided"
