"""Gate: chapter 10 and the tests of its claims fit together; and the gate, shown to fail on planted faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from detr_conformance.evidence.clauses import load_clauses, parse_chapter
from helpers.claims_chapter import faults, sections
from helpers.places import ROOT

SPEC = Path("reference/detr_reference/spec")
CHAPTER = SPEC / "10-claims.md"


def test_every_claim_has_a_verdict_and_tests_and_every_test_a_claim() -> None:
    assert faults(ROOT / CHAPTER, ROOT / "spec_tests", load_clauses()) == []


def test_every_claim_is_there() -> None:
    assert len(sections((ROOT / CHAPTER).read_text())) == 22


def test_the_chapter_words_no_requirement() -> None:
    """Clauses live in the chapters of the blocks."""
    assert parse_chapter(CHAPTER.name, (ROOT / CHAPTER).read_text()).clauses == ()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The chapter, what it links to, and the tests, free to be broken."""
    shutil.copytree(ROOT / "reference", tmp_path / "reference", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "spec_tests", tmp_path / "spec_tests", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def faults_of(copy: Path) -> list[str]:
    return faults(copy / CHAPTER, copy / "spec_tests", load_clauses())


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("**Verdict: true.**", "", "C3 has 0 verdicts"),
        ("**Verdict: true.**", "**Verdict: perhaps.**", "C3 has 0 verdicts"),
        ("[test_claim_13_", "[test_claim_13_no_", "C13 names test_claim_13_no_the_length"),
        ("Decided by [test_claim_13_the_length_is_the_sum_of_products]", "Decided by [x]", "C13 names no test"),
        ("/test_claims_cost.py", "/test_claims_price.py", "does not exist"),
        ("## C9. ", "## C99. ", "C99 is section 9"),
        (
            "[test_claim_16_references_come",
            "[test_claim_17_width_and_height_scale_the_offsets",
            "a test of another claim",
        ),
        ("| false: split `qkv` |", "| true |", "the table says true of C7"),
        ("(#c9-", "(#c09-", "its anchor is c9-offsets-do-not-look-at-keys"),
        ("MSDM-16", "MSDM-99", "MSDM-99 is no clause"),
    ],
)
def test_a_fault_of_the_chapter_is_found(copy: Path, old: str, new: str, fault: str) -> None:
    text = (copy / CHAPTER).read_text()
    assert old in text
    (copy / CHAPTER).write_text(text.replace(old, new))
    assert any(fault in found for found in faults_of(copy))


def test_a_test_that_no_section_names_is_found(copy: Path) -> None:
    (path,) = copy.rglob("test_claims_cost.py")
    path.write_text(path.read_text() + "\n\ndef test_claim_12_nobody_knows_me() -> None:\n    pass\n")
    assert faults_of(copy) == ["test_claims_cost.py has test_claim_12_nobody_knows_me, which the chapter does not name"]


def test_a_test_that_is_gone_is_found(copy: Path) -> None:
    (path,) = copy.rglob("test_claims_decoder.py")
    path.write_text(
        path.read_text().replace("def test_claim_21_looking_forward_once", "def check_looking_forward_once")
    )
    (fault,) = faults_of(copy)
    assert "C21 names test_claim_21_looking_forward_once_is_a_diagonal, which is not in" in fault
