"""`detr-spec check --clause`: these clauses and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.commands import run
from helpers.places import EXAMPLES

BROKEN = f"{EXAMPLES / 'grid_sample_kernel.py'}:broken"
QUICK = ("--profile", "smoke", "--dtype", "float32", "--json", "report.json")


def test_what_was_not_asked_for_has_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("check", BROKEN, *QUICK, "--clause", "msda-1", "--clause", "MSDA-2")
    assert result.exit_code == 0, result.output
    assert "conforms to MSDA-1, MSDA-2 alone" in result.output
    assert "claimed and not judged" not in result.output
    found = json.loads((tmp_path / "report.json").read_text())
    assert set(found["clauses"]) == {"MSDA-1", "MSDA-2"}
    assert found["environment"]["clauses"] == ["MSDA-1", "MSDA-2"]


def test_the_broken_one_fails_its_clause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("check", BROKEN, *QUICK, "--clause", "MSDA-15")
    assert result.exit_code == 1, result.output
    assert "does not conform to MSDA-15 alone" in result.output
    assert "ms_deform_attn behaves like `border-everywhere` (all of " in result.output
    (like,) = json.loads((tmp_path / "report.json").read_text())["behaves_like"]
    assert (like["names"], like["cases"]) == (["border-everywhere"], 1)


@pytest.mark.parametrize(
    ("clause", "said"), [("MSDX-1", "did you mean"), ("MSDA-9999", "no clause"), ("TRN-1", "nothing was exercised")]
)
def test_what_there_is_no_verdict_on(clause: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("check", BROKEN, *QUICK, "--clause", clause)
    assert result.exit_code == 2
    assert said in result.output
