"""The clauses of a report with what the chapters say of them, in the order of the chapters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detr_conformance.evidence.clauses import Chapter, Clause, natural_key
from detr_conformance.reporting.pages import plain
from detr_conformance.reporting.pages.plain import Numbers

SILENT = ("not-provided", "not-exercised")
# What is shown first stands first; the order of counts and filters, too.
WORDS = {
    "fail": "failed",
    "undecided": "undecided",
    "warn": "warnings",
    "deviation": "known deviations",
    "pass": "passed",
    "not-exercised": "not exercised",
    "not-provided": "not provided",
}
ONE = {"warn": "warning", "deviation": "known deviation"}  # of what WORDS has the plural
SIGNS = {"fail": "✕", "undecided": "?", "warn": "!", "deviation": "≠", "pass": "✓"}
OTHER = "–"


@dataclass(frozen=True)
class Judged:
    """One clause and its verdict. Texts are as the report has them, unescaped.

    Attributes:
        follows: it failed, and another clause is to be looked at first.
    """

    id: str
    clause: Clause | None  # None where this version has no such clause
    verdict: str
    message: str = ""
    ratios: Numbers = field(default_factory=dict)
    mismatches: Numbers = field(default_factory=dict)
    places: tuple[tuple[str, str, str], ...] = ()  # operation, device, dtype of all that was judged
    tests: tuple[str, ...] = ()
    failed_tests: tuple[str, ...] = ()
    failure: Mapping[str, str] = field(default_factory=dict)
    case_file: str = ""
    replay: str = ""
    deviation: Mapping[str, str] = field(default_factory=dict)
    undecided: Mapping[str, str] = field(default_factory=dict)
    follows: bool = False

    @property
    def title(self) -> str:
        return self.clause.short if self.clause else "no clause of this version"

    @property
    def level(self) -> str:
        if self.clause is None:
            return ""
        return (
            f"{self.clause.level}, {self.clause.condition}".replace("`", "")
            if self.clause.condition
            else (self.clause.level)
        )

    @property
    def sign(self) -> str:
        return SIGNS.get(self.verdict, OTHER)

    @property
    def word(self) -> str:
        return "follows" if self.follows else counted(self.verdict, 1)

    @property
    def is_asked(self) -> bool:
        """False of what is about operations alone that the target does not provide."""
        return self.verdict != "not-provided" or bool(self.message)

    @property
    def worst(self) -> str:
        """The largest error as a share of its limit, or the mismatches of the exact tier."""
        return worst_of(self.ratios.values(), self.mismatches.values())

    @property
    def sought(self) -> str:
        """What a search looks in."""
        words = [self.id, self.title, self.clause.requirement if self.clause else "", self.message]
        return " ".join([*words, *dict.fromkeys(place[0] for place in self.places)]).casefold()


def counted(verdict: str, count: int) -> str:
    """The word for so many clauses of a verdict."""
    return ONE[verdict] if count == 1 and verdict in ONE else WORDS.get(verdict, verdict)


def worst_of(ratios: Iterable[float], mismatches: Iterable[float]) -> str:
    mismatched, ratio = max(mismatches, default=None), max(ratios, default=None)
    if mismatched:
        return f"{mismatched:.0f} wrong"
    return shown_ratio(ratio) if ratio is not None else "exact" if mismatched is not None else ""


def shown_ratio(ratio: float) -> str:
    """A share of the limit in at most five signs."""
    if ratio == 0:
        return "0"
    if ratio < 0.01:
        return "<0.01"
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" if ratio < 1e5 else f"{ratio:.0e}".replace("e+", "e")


def judged_clauses(report: Mapping[str, Any], chapters: Sequence[Chapter]) -> dict[str, Judged]:
    """Every clause of the report by id: chapter by chapter, then those that no chapter has."""
    entries = plain.as_map(report.get("clauses"))
    found = [plain.as_map(each) for each in plain.as_list(report.get("findings"))]
    follows = {name for each in found for name in plain.as_texts(each.get("follows"))}
    in_order = (
        clause
        for chapter in chapters
        for clause in sorted(chapter.clauses, key=lambda clause: natural_key(clause.id))
        if clause.id in entries
    )
    clauses: dict[str, Clause | None] = {clause.id: clause for clause in in_order}
    clauses |= dict.fromkeys(name for name in entries if name not in clauses)
    return {name: _judged(name, clause, entries[name], name in follows) for name, clause in clauses.items()}


def _judged(name: str, clause: Clause | None, entry: Any, follows: bool) -> Judged:
    said = plain.as_map(entry)
    return Judged(
        id=name,
        clause=clause,
        verdict=plain.as_text(said.get("verdict")),
        message=plain.as_text(said.get("message")),
        ratios=plain.numbers(said.get("worst_error_ratio")),
        mismatches=plain.numbers(said.get("mismatches")),
        places=tuple(plain.places(said.get("worst_error_ratio"))),
        tests=tuple(plain.as_texts(said.get("tests"))),
        failed_tests=tuple(plain.as_texts(said.get("failed_tests"))),
        failure=_texts(said.get("failure")),
        case_file=plain.as_text(said.get("case_file")),
        replay=plain.as_text(said.get("replay")),
        deviation=_texts(said.get("deviation")),
        undecided=_texts(said.get("undecided")),
        follows=follows and said.get("verdict") == "fail",
    )


def _texts(value: Any) -> dict[str, str]:
    return {key: plain.as_text(inner) for key, inner in plain.as_map(value).items()}


def of_verdict(judged: Mapping[str, Judged], *verdicts: str) -> list[Judged]:
    return [each for each in judged.values() if each.verdict in verdicts]
