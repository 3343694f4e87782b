"""Outputs are judged by a manifest alone, with the report and the exit codes of `check`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from detr_conformance.cli.vectors import vectors
from detr_conformance.running.mutants import MUTANTS
from detr_conformance.vectors.reading import read_vectors
from detr_conformance.vectors.replay import subjects, write_outputs
from helpers.places import ROOT

READER = ROOT / "docs" / "examples" / "read_vectors.py"


def verify(folder: Path, outputs: Path) -> tuple[int, dict[str, Any], str]:
    report = outputs.parent / f"{outputs.name}.json"
    result = CliRunner().invoke(vectors, ["verify", str(folder), str(outputs), "--json", str(report), "--name", "mine"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, json.loads(report.read_text()) if report.exists() else {}, result.output


def changed(outputs: Path, tmp_path: Path, change: Callable[[Path], object]) -> Path:
    copy = tmp_path / "outputs"
    shutil.copytree(outputs, copy)
    change(copy)
    return copy


def of(folder: Path, prefix: str, result: str = "output") -> Path:
    """The first file of outputs of an operation and dtype that holds a result."""
    return next(p for p in sorted(folder.iterdir()) if p.name.startswith(prefix) and result in load_file(p))


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def verdicts(report: dict[str, Any], verdict: str) -> set[str]:
    return {name for name, entry in report["clauses"].items() if entry["verdict"] == verdict}


@pytest.fixture
def mutant_outputs(folder: Path, outputs: Path, tmp_path: Path) -> Path:
    """The reference's, and in the place of its MLP those of one whose last layer has a ReLU."""
    path = tmp_path / "mutant"
    shutil.copytree(outputs, path)
    build = MUTANTS["mlp-relu-at-the-end"].build
    write_outputs(path, subjects("mlp", build(), ("float32", "bfloat16")), read_vectors(folder))
    return path


def test_the_reference_conforms(folder: Path, outputs: Path) -> None:
    code, report, _ = verify(folder, outputs)
    assert code == 0
    assert {"FFN-14", "FFN-20"} <= verdicts(report, "pass")
    assert "BLK-15" in verdicts(report, "not-exercised")
    assert report["clauses"]["FFN-14"]["worst_error_ratio"]["mlp"]["-"]["float32"] < 1
    assert report["target"]["name"] == "mine"


def test_a_mutant_fails_its_clause_and_is_shown_by_id(folder: Path, mutant_outputs: Path) -> None:
    code, report, _ = verify(folder, mutant_outputs)
    assert code == 1
    entry = report["clauses"]["FFN-15"]
    assert entry["verdict"] == "fail"
    assert entry["message"].startswith("mlp-")
    assert "vector mlp-" in entry["failure"]["detail"]
    assert entry["replay"] is None


def test_the_reader_of_the_guide_says_the_same(folder: Path, outputs: Path, mutant_outputs: Path) -> None:
    text = READER.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert "torch" not in text.replace("safetensors", "")
    assert "import detr" not in text
    run = [sys.executable, "-I", str(READER), str(folder)]
    right = subprocess.run([*run, str(outputs)], capture_output=True, text=True, timeout=60, check=False)
    assert (right.returncode, right.stdout, right.stderr) == (0, "", "")
    wrong = subprocess.run([*run, str(mutant_outputs)], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 1
    _, report, _ = verify(folder, mutant_outputs)
    for name in verdicts(report, "fail"):
        assert any(test.partition("[")[0] in wrong.stdout for test in report["clauses"][name]["failed_tests"])


def test_a_dtype_without_outputs_is_not_provided(folder: Path, outputs: Path, tmp_path: Path) -> None:
    def drop(copy: Path) -> None:
        for path in copy.glob("*-bfloat16-*"):
            path.unlink()

    code, report, _ = verify(folder, changed(outputs, tmp_path, drop))
    assert code == 0
    assert report["target"]["dtypes"] == ["float32"]
    assert set(report["clauses"]["FFN-14"]["worst_error_ratio"]["mlp"]["-"]) >= {"float32"}


def test_outputs_without_any_gradient_claim_none(folder: Path, outputs: Path, tmp_path: Path) -> None:
    def drop(copy: Path) -> None:
        for path in copy.iterdir():
            rewrite(path, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("grad_")])

    code, report, _ = verify(folder, changed(outputs, tmp_path, drop))
    assert code == 0
    assert report["target"]["features"] == []
    assert report["clauses"]["FFN-20"]["verdict"] == "not-provided"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda copy: of(copy, "mlp-float32").unlink(), "there is no file"),
        (lambda copy: rewrite(of(copy, "mlp-float32"), lambda t: t.update(output=t["output"].double())), "float64"),
        (
            lambda copy: rewrite(of(copy, "mlp-float32"), lambda t: t.update(output=t["output"][..., :1].clone())),
            "expected",
        ),
        (lambda copy: rewrite(of(copy, "mlp-float32", "grad_x"), lambda t: t.pop("grad_x")), "there is no grad_x"),
        (lambda copy: rewrite(of(copy, "mlp-float32"), lambda t: t["output"].fill_(torch.nan)), "got nan"),
        (lambda copy: of(copy, "mlp-float32").write_bytes(b"\xff" * 64), "cannot be read"),
        (lambda copy: of(copy, "mlp-float32").write_bytes(bytes(1 << 20)), "takes at most"),
    ],
)
def test_a_missing_or_broken_output_is_a_failure(
    folder: Path, outputs: Path, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    code, report, _ = verify(folder, changed(outputs, tmp_path, change))
    assert code == 1
    assert any(said in (report["clauses"][name]["message"] or "") for name in verdicts(report, "fail"))


def test_what_is_refused_is_not_exercised(folder: Path, outputs: Path, tmp_path: Path) -> None:
    def refuse(copy: Path) -> None:
        refused = [path for path in copy.iterdir() if path.name.startswith("mlp-float32-")]
        for path in refused:
            path.unlink()
        (copy / "refused.json").write_text(json.dumps({path.stem: "no MLP here" for path in refused}))

    code, report, _ = verify(folder, changed(outputs, tmp_path, refuse))
    assert code == 0
    assert report["clauses"]["FFN-14"]["verdict"] == "not-exercised"
    assert report["clauses"]["FFN-14"]["message"] == "refused: no MLP here"


@pytest.mark.parametrize(
    ("folder_of", "said"),
    [
        (lambda f, o: (o, o), "there is no"),
        (lambda f, o: (f, f), "no outputs"),
        (lambda f, o: (f, f / "x"), "no folder"),
    ],
)
def test_what_cannot_be_judged_is_said_in_a_line(
    folder: Path, outputs: Path, folder_of: Callable[[Path, Path], tuple[Path, Path]], said: str
) -> None:
    result = CliRunner().invoke(vectors, ["verify", *map(str, folder_of(folder, outputs))])
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
