"""`detr-spec check --coverage`: the tables stand behind the verdict, also where several processes ran the tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.commands import run

TARGET = """
from detr_conformance import Target
from detr_reference import generalized_box_iou
target = Target(name="mine", provides={"generalized_box_iou": generalized_box_iou})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coverage")
    (folder / "mine.py").write_text(TARGET)
    return folder


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_tables_stand_behind_the_verdict(folder: Path, jobs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    options = ("--profile", "smoke", "--coverage", "--jobs", jobs, "--json", f"{jobs}.json")
    result = run("check", "mine.py:target", *options)
    assert result.exit_code == 0, result.output
    verdict, tables = result.output.split("PASS  mine conforms", 1)
    assert "sizes of the" not in verdict
    assert "claimed and not judged" not in tables
    for dimension in ("boxes1[0]", "boxes2[0]"):
        assert dimension in tables
    reached = json.loads((folder / f"{jobs}.json").read_text())["reached"]["generalized_box_iou"]
    assert reached["dimensions"]["boxes1[0]"]["most_backward"] > 3
    assert reached["calls"] > 20


def test_both_ways_of_running_reach_the_same(folder: Path) -> None:
    one, two = (json.loads((folder / f"{jobs}.json").read_text())["reached"] for jobs in ("1", "2"))
    assert one == two
