"""Damaged input is read or refused: it ends nothing, hangs nowhere, and nothing is written outside its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detr_conformance.harness.case_files import FORMAT, CaseFileError, read_case
from detr_conformance.reporting.deviations import DeviationError, load_deviations
from helpers.fuzzing.readers import readers
from helpers.fuzzing.trying import Reader, fuzz

ROUNDS = 60


@pytest.mark.parametrize("number", range(8))
def test_damaged_input_is_read_or_refused(number: int, every_reader: list[Reader]) -> None:
    found = fuzz(every_reader[number], ROUNDS)
    assert [outcome for outcome, _ in found.wrong] == []
    assert found.counts["refused"] > ROUNDS / 10


@pytest.fixture(scope="module")
def every_reader() -> list[Reader]:
    return list(readers())


def test_a_crash_a_hang_and_a_file_outside_are_seen() -> None:
    def careless(folder: Path) -> None:
        content = (folder / "x").read_bytes()
        if content == b"":
            (folder.parent / "outside").touch()
        if len(content) > 4:
            raise IndexError("no such byte")

    found = fuzz(Reader("careless", {"x": b"1234"}, careless, ()), ROUNDS)
    assert {outcome.partition(":")[0] for outcome, _ in found.wrong} == {"crashed", "wrote outside"}


def test_a_case_file_that_names_no_test(tmp_path: Path) -> None:
    about = {"format": FORMAT, "layout": "contiguous", "options": "{}", "order": "[]"}
    save_file({"x": torch.zeros(1)}, tmp_path / "case", about)
    with pytest.raises(CaseFileError, match="incomplete: KeyError\\('test'\\)"):
        read_case(tmp_path / "case")


def test_a_deviation_file_of_endless_brackets(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("deviation = " + "[" * 5000)
    with pytest.raises(DeviationError, match="not valid TOML"):
        load_deviations(tmp_path / "deep.toml", "x")
