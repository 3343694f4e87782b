"""The runner in C++ that the guides show: it says what its page says, conforms, and its broken twin does not."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_conformance.isolation.process import Limits
from detr_conformance.isolation.runners import started
from detr_conformance.isolation.wire import read_storages, write_storages
from detr_conformance.running.trial import trials
from detr_conformance.target import Target
from helpers.commands import run
from helpers.places import ROOT
from helpers.runners.page import EXAMPLES

COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
SOURCE = ROOT / "docs" / "examples" / "cpp_runner" / "runner.cpp"

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here"),
    pytest.mark.usefixtures("unchecked_shapes"),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The right one and the broken one, compiled side by side."""
    folder = tmp_path_factory.mktemp("runner")
    command = [str(COMPILER), "-std=c++17", "-O1", str(SOURCE)]
    flags = {"right": [], "broken": ["-DBROKEN"]}
    compiling = [
        subprocess.Popen([*command, *more, "-o", str(folder / name)], stderr=subprocess.PIPE)
        for name, more in flags.items()
    ]
    for each in compiling:
        said = each.communicate()[1]
        assert each.returncode == 0, said.decode()
    return {name: folder / name for name in flags}


def failures(program: Path, clauses: set[str], dtypes: tuple[str, ...]) -> set[tuple[str, ...]]:
    """The tests of these clauses that fail, by what they cover; each clause was asked."""
    target: Target = started([str(program)], Limits(seconds=30.0))
    found = [(test.clauses, failure) for test, _, failure in trials(target, clauses, dtypes)]
    assert {clause for covered, _ in found for clause in covered} >= clauses
    return {covered for covered, failure in found if failure}


def test_it_conforms(programs: dict[str, Path]) -> None:
    """To some clauses of each kind: layout, range, exactness, gradients, what is no number, sizes, memory, errors."""
    asked = {"MSDA-4", "MSDA-17", "MSDA-25", "MSDA-33", "MSDA-40", "MSDA-42", "MSDA-44", "MSDA-48", "MSDA-57"}
    assert failures(programs["right"], asked, ("float32",)) == set()
    assert failures(programs["right"], {"MSDA-52"}, ("float64",)) == set()


def test_the_broken_one_is_rejected_by_its_clause(programs: dict[str, Path]) -> None:
    """Widths and heights exchanged: what MSDA-3 alone covers is square."""
    failed = failures(programs["broken"], {"MSDA-3", "MSDA-4"}, ("float32",))
    assert ("MSDA-4",) in failed
    assert ("MSDA-3",) not in failed


def test_it_says_what_the_page_says(programs: dict[str, Path], tmp_path: Path) -> None:
    runs = [each for each in EXAMPLES if each["message"] == "run"][:2]
    right = [each for each in EXAMPLES if each["message"] == "done"]
    given = {
        "s0": struct.pack("<2f", 1, 3),
        "s1": struct.pack("<2q", 1, 2),
        "s2": struct.pack("<q", 0),
        "s3": struct.pack("<2f", 0.5, 0.5),
        "s4": struct.pack("<f", 1),
        "s5": struct.pack("<f", 1),
    }
    for each in runs:
        contents = {name: torch.tensor(list(given[name]), dtype=torch.uint8) for name in each["storages"]}
        assert {name: content.numel() for name, content in contents.items()} == each["storages"]
        write_storages(tmp_path / f"{each['id']}.in", contents)
    lines = [json.dumps({**each, "folder": str(tmp_path)}) for each in runs] + ['{"message": "stop"}']
    done = subprocess.run(
        [programs["right"]], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True
    )
    hello, *answers = map(json.loads, done.stdout.splitlines())
    assert hello["message"] == "hello"
    numbers = [[2.0], [2.0, 0.5, 0.5, 2.0]]
    for answer, shown, wanted in zip(answers, right, numbers, strict=True):
        assert forms(answer) == forms(shown)
        assert values(answer, tmp_path) == wanted


def forms(answer: dict[str, Any]) -> list[Any]:
    tensors = [(each["dtype"], each["shape"], each["stride"], each["offset"]) for each in answer["tensors"]]
    return [answer["id"], len(answer["results"]), tensors, list(answer["storages"].values())]


def values(answer: dict[str, Any], folder: Path) -> list[float]:
    found = read_storages(folder / f"{answer['id']}.out", answer["storages"])
    return [number for content in found.values() for (number,) in struct.iter_unpack("<f", bytes(content.tolist()))]


def test_it_keeps_the_protocol(programs: dict[str, Path]) -> None:
    pytest.importorskip("jsonschema", reason="runner-test needs the extra vectors")
    result = run("runner-test", programs["right"])
    assert result.exit_code == 0, result.output


def test_a_failing_case_is_run_again(programs: dict[str, Path], tmp_path: Path) -> None:
    """By the line that the report shows, which names the command."""
    from detr_conformance.harness.case_files import write_case
    from detr_conformance.harness.subject import Subject
    from detr_conformance.topics.deformable_attention.test_ms_deform_attn_layout import oblong

    case = next(iter(oblong(Subject("ms_deform_attn", lambda: None))))
    test = "test_ms_deform_attn_layout.py::test_heights_first[cpu-float32]"
    file = write_case(tmp_path, case, clause="MSDA-4", test=test)
    result = run("check", "--runner", programs["broken"], "--replay", file)
    assert result.exit_code == 1, result.output
    assert "cpp-runner 1" in result.output
    assert "in a process of its own" in " ".join(result.output.split())
    assert f"detr-spec check --runner {programs['broken']} --replay {file}" in " ".join(result.output.split())
