"""Reads spec chapter 10 and the tests of its claims; `faults` says what does not fit together."""

from __future__ import annotations

import ast
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

_SECTION = re.compile(r"^## C(\d+)\. (.+)$", re.MULTILINE)
_VERDICT = re.compile(r"^\*\*Verdict: (true, if|true|false)\b.*\.\*\*$", re.MULTILINE)
_TEST_LINK = re.compile(r"\[(test_\w+)\]\(([^)]+)\)")
_LINK = re.compile(r"\]\(([^)#]+)\)")
_ROW = re.compile(r"^\| \[C(\d+)\]\(#([^)]+)\) \|[^|]*\| (true, if|true|false)\b[^|]*\|$", re.MULTILINE)
_CLAUSE = re.compile(r"\b[A-Z]{2,4}-\d+\b")


@dataclass(frozen=True)
class Section:
    """One claim: its number, title and text."""

    number: int
    title: str
    text: str

    @property
    def anchor(self) -> str:
        """The heading's anchor, as GitHub makes it."""
        heading = f"c{self.number}. {self.title}".lower()
        return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


def sections(chapter: str) -> list[Section]:
    parts = _SECTION.split(chapter)[1:]
    return [Section(int(number), title, text) for number, title, text in zip(*[iter(parts)] * 3, strict=True)]


def tests_in(path: Path) -> list[str]:
    """The names of the test functions of a file, without importing it."""
    body = ast.parse(path.read_text()).body
    return [node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def faults(chapter_file: Path, tests: Path, clauses: Container[str]) -> list[str]:
    """Everything that is wrong with the chapter, one sentence each.

    Args:
        chapter_file: the chapter.
        tests: the folder below which test_claims_*.py lie.
        clauses: the ids that chapters may refer to.
    """
    chapter = chapter_file.read_text()
    claims = sections(chapter)
    found = [f"C{claim.number} is section {i}" for i, claim in enumerate(claims, start=1) if claim.number != i]
    for claim in claims:
        found += _faults_of_section(claim, chapter_file.parent)
    found += _faults_of_table(chapter, claims)
    found += _faults_of_links(chapter, chapter_file.parent, clauses)
    return found + _unnamed_tests(claims, tests)


def _faults_of_section(claim: Section, folder: Path) -> list[str]:
    found = []
    verdicts = _VERDICT.findall(claim.text)
    if len(verdicts) != 1:
        found.append(f"C{claim.number} has {len(verdicts)} verdicts")
    links = _TEST_LINK.findall(claim.text)
    if not links:
        found.append(f"C{claim.number} names no test")
    for name, target in links:
        path = folder / target
        if not path.is_file() or name not in tests_in(path):
            found.append(f"C{claim.number} names {name}, which is not in {target}")
        if name.startswith("test_claim_") and not name.startswith(f"test_claim_{claim.number:02}_"):
            found.append(f"C{claim.number} names {name}, a test of another claim")
    return found


def _faults_of_table(chapter: str, claims: list[Section]) -> list[str]:
    rows = {int(number): (anchor, verdict) for number, anchor, verdict in _ROW.findall(chapter)}
    found = [f"the table has no row C{claim.number}" for claim in claims if claim.number not in rows]
    found += [f"the table has C{n}, which has no section" for n in rows if n not in {c.number for c in claims}]
    for claim in claims:
        anchor, verdict = rows.get(claim.number, (claim.anchor, None))
        if anchor != claim.anchor:
            found.append(f"the table links C{claim.number} to {anchor}, its anchor is {claim.anchor}")
        if verdict is not None and [verdict] != _VERDICT.findall(claim.text):
            found.append(f"the table says {verdict} of C{claim.number}, its section does not")
    return found


def _faults_of_links(chapter: str, folder: Path, clauses: Container[str]) -> list[str]:
    found = [f"{target} does not exist" for target in _LINK.findall(chapter) if not (folder / target).is_file()]
    prose = re.sub(r"\[test_\w+\]\([^)]*\)", "", chapter)
    return found + [f"{clause} is no clause" for clause in _CLAUSE.findall(prose) if clause not in clauses]


def _unnamed_tests(claims: list[Section], tests: Path) -> list[str]:
    named = {(name, Path(target).name) for claim in claims for name, target in _TEST_LINK.findall(claim.text)}
    return [
        f"{path.name} has {name}, which the chapter does not name"
        for path in sorted(tests.rglob("test_claims_*.py"))
        for name in tests_in(path)
        if name.startswith("test_claim_") and (name, path.name) not in named
    ]
