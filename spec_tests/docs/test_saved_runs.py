"""What is kept of the runs is small, can be read, and belongs to a run that the documents show."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from detr_conformance.reporting.json_file import read_json
from helpers.places import ROOT, RUNS

MOST_BYTES = 3_000_000
MOST_PLAIN_BYTES = 16_000  # what a reader takes in without unpacking

# Made by its own command: `docs/overfit.py FOLDER`.
OTHERS = {"overfit"}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("filling.runs")


def test_all_of_them_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in RUNS.iterdir()}
    assert sum(sizes.values()) <= MOST_BYTES, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_every_file_belongs_to_a_run(runs: ModuleType) -> None:
    names = {*runs.MAKE, *OTHERS}
    assert [path.name for path in RUNS.iterdir() if _run_of(path) not in names] == []


def _run_of(path: Path) -> str:
    name = path.name.partition(".")[0]
    return "smoke" if name in ("smoke-predictions", "smoke-curves") else name


def test_reports_and_measurements_are_compressed_and_short_results_are_not(runs: ModuleType) -> None:
    compressed = {path.name.removesuffix(".json.gz") for path in RUNS.glob("*.json.gz")}
    assert compressed == {*runs.COMMANDS, "cpp-runner", "wrong-cpp"}
    plain = {path.stem: path.stat().st_size for path in RUNS.glob("*.json")}
    assert plain.keys() == {*runs.MAKE, *OTHERS} - compressed
    assert max(plain.values()) <= MOST_PLAIN_BYTES


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.json.gz")), ids=lambda path: path.name)
def test_a_compressed_file_is_compact_without_time_or_name(path: Path) -> None:
    header = path.read_bytes()[:8]
    assert header[3:8] == bytes(5)  # flags, then the time
    assert isinstance(read_json(path), dict)


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.json")), ids=lambda path: path.name)
def test_a_short_result_can_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert isinstance(json.loads(text), dict)
    assert text.count("\n") > 10


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.png")), ids=lambda path: path.name)
def test_a_picture_has_a_palette(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.mode == "P"


def test_a_command_that_ends_otherwise_is_told(runs: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"^false\nended with 1, not 0"):
        runs.Command("false", shown=True).run("none")
