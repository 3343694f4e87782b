"""How many clauses, tests, mutants and twins there are, against a committed table: no gate runs empty unnoticed.

`python spec_tests/harness/test_numbers.py` writes the table anew; its change belongs into the commit that causes it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from detr_conformance.evidence.catalogue import covering_tests, mutants
from detr_conformance.evidence.clauses import load_chapters
from detr_conformance.harness.suite_test import OWN_TESTS
from detr_conformance.running.mutants import MUTANTS, TWINS
from detr_conformance.running.trial import suite_test_of, suite_tests
from detr_conformance.target import FEATURES

TABLE = Path(__file__).with_name("numbers.json")
Numbers = dict[str, dict[str, int]]


def topic_of(place: str) -> str:
    """That of a dotted module or of a file below `topics`."""
    return re.split(r"[./]", place.removeprefix("detr_conformance.topics."))[0]


def counted(*places: str) -> dict[str, int]:
    return dict(sorted(Counter(map(topic_of, places)).items()))


def read_from_sources() -> Numbers:
    """As `detr-spec spec` sees them, without importing anything."""
    found = mutants()
    return {
        "clauses": {chapter.file: len(chapter.clauses) for chapter in load_chapters() if chapter.clauses},
        "tests": counted(*{f"{test.file}::{test.test}": test.file for test in covering_tests()}.values()),
        "mutants": counted(*(each.file for each in found if each.kind == "mutant")),
        "twins": counted(*(each.file for each in found if each.kind == "twin")),
    }


def imported() -> Numbers:
    """As the gates see them."""
    tests = {
        id(test): suite_test_of(test).property.__module__ for several in suite_tests().values() for test in several
    }
    return {
        "tests": counted(*tests.values()),
        "mutants": counted(*(mutant.module for mutant in MUTANTS.values())),
        "twins": counted(*(twin.module for twin in TWINS.values())),
    }


def committed() -> Numbers:
    numbers: Numbers = json.loads(TABLE.read_text(encoding="utf-8"))
    return numbers


@pytest.mark.parametrize("what", ["clauses", "tests", "mutants", "twins"])
def test_the_sources_have_as_many_as_the_table_says(what: str) -> None:
    assert read_from_sources()[what] == committed()[what]


@pytest.mark.parametrize("what", ["tests", "mutants", "twins"])
def test_the_gates_import_as_many_as_the_table_says(what: str) -> None:
    assert imported()[what] == committed()[what]


def test_pytest_collects_as_many_as_the_table_says(tmp_path: Path) -> None:
    """By the name that people type, which the plugin turns into the folder of topics."""
    (tmp_path / "everything.py").write_text(
        "from dataclasses import replace\n"
        "from detr_conformance.targets.reference import target\n"
        f"target = replace(target, features={FEATURES})\n"
    )
    tests = set()
    for profile in ("standard", *OWN_TESTS):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
        command += [
            "--pyargs",
            "detr_conformance.suite",
            "--detr-target",
            "everything.py:target",
            "--detr-dtype",
            "float32",
        ]
        done = subprocess.run(
            [*command, "--detr-profile", profile], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        tests |= {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
    assert len(tests) == sum(committed()["tests"].values())


if __name__ == "__main__":
    TABLE.write_text(json.dumps(read_from_sources(), indent=1) + "\n", encoding="utf-8")
