"""Vectors and suite judge alike; `python -m detr_conformance.vectors.gate` asks it of every mutant."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from detr_conformance.cli.vectors import vectors
from detr_conformance.running.mutants import MUTANTS
from detr_conformance.vectors.export import Export
from detr_conformance.vectors.gate import Gate, Tried
from detr_conformance.vectors.lint import findings
from detr_conformance.vectors.reading import read_vectors


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate("refine_boxes", ("float32",), "smoke")


def tried(gate: Gate, name: str) -> Tried:
    return gate.tried(name, MUTANTS[name].rejects, MUTANTS[name].build)


def test_the_reference_is_accepted_by_both(gate: Gate) -> None:
    found = gate.reference()
    assert found.agrees
    assert (found.failed, found.clauses) == (0, [])
    assert found.cases > 10


def test_mutants_fail_the_same_cases(gate: Gate) -> None:
    mutants = gate.mutants()
    assert len(mutants) >= 5
    found = [tried(gate, each.name) for each in mutants[:8]]
    assert [each for each in found if not each.agrees] == []
    assert sum(each.failed > 0 for each in found) >= 5  # in few cases some are not caught by either


def test_limits_that_are_too_wide_or_too_narrow_are_noticed(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    name = gate.mutants()[0].name
    honest = gate.vectors
    for factor, where in ((1e12, "only_suite"), (0.0, "only_vectors")):
        limits = {check["limit"] for vector in honest.manifest["vectors"] for check in vector["checks"]}
        tensors = {k: t * factor if k in limits and not t.isinf().any() else t for k, t in honest.tensors.items()}
        monkeypatch.setattr(gate, "vectors", dataclasses.replace(honest, tensors=tensors))
        found = tried(gate, name) if factor else gate.reference()
        assert getattr(found, where)


def test_lint_finds_what_differs(export: Export, folder: Path) -> None:
    right = read_vectors(folder)
    assert list(findings(right, export)) == []
    manifest = json.loads(json.dumps(right.manifest))
    first, second = manifest["vectors"][:2]
    key = first["checks"][0]["expected"]
    tensors = {**right.tensors, key: right.tensors[key] + torch.tensor(1e-3)}
    second["config"] = {"input_dim": 1}
    del manifest["vectors"][2]
    manifest["tests"].popitem()
    said = "\n".join(findings(dataclasses.replace(right, manifest=manifest, tensors=tensors), export))
    for each in ("is not what is derived", "config differs", "missing here", "of this test"):
        assert each in said


def test_commands_export_and_lint(tmp_path: Path) -> None:
    asked = ["export", str(tmp_path / "v"), "--operation", "valid_ratios", "--dtype", "float32", "--profile", "smoke"]
    done = CliRunner().invoke(vectors, asked)
    assert done.exit_code == 0, done.output
    assert "vectors of" in done.output
    checked = CliRunner().invoke(vectors, ["lint", str(tmp_path / "v")])
    assert checked.exit_code == 0, checked.output
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    refused = CliRunner().invoke(vectors, ["export", str(tmp_path / "mine"), *asked[2:]])
    assert refused.exit_code == 2
    assert "is not empty" in refused.output
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
