"""The matrix of a report: a row a clause, a column an operation; chapter by chapter, each with its own columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detr_conformance.evidence.clauses import Chapter
from detr_conformance.reporting.pages.judged import OTHER, SIGNS, SILENT, WORDS, Judged, counted, worst_of
from detr_conformance.target import DTYPES

ELSEWHERE = "Clauses of no chapter"
Column = tuple[str, str]  # operation, and the dtype where there is one operation only


@dataclass(frozen=True)
class Cell:
    """What was found of one clause in one operation; an empty verdict where nothing was judged."""

    verdict: str = ""
    worst: str = ""

    @property
    def sign(self) -> str:
        return SIGNS.get(self.verdict, OTHER)


@dataclass(frozen=True)
class Table:
    """The clauses of a chapter that have a verdict."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Judged, tuple[Cell, ...]], ...]

    @property
    def operation(self) -> str:
        """The only one, where columns are dtypes."""
        return self.columns[0][0] if self.columns and self.columns[0][1] else ""

    @property
    def clean(self) -> bool:
        return all(judged.verdict == "pass" for judged, _ in self.rows)

    @property
    def summary(self) -> str:
        counts = Counter(judged.verdict for judged, _ in self.rows)
        return ", ".join(
            f"{counts[verdict]} {counted(verdict, counts[verdict])}" for verdict in WORDS if counts[verdict]
        )


def tables(judged: Mapping[str, Judged], chapters: Sequence[Chapter]) -> list[Table]:
    spoken = [each for each in judged.values() if each.verdict not in SILENT]
    by_title: dict[str, list[Judged]] = {}
    titles = {chapter.file: chapter.title for chapter in chapters}
    for each in spoken:
        title = titles.get(each.clause.chapter, ELSEWHERE) if each.clause else ELSEWHERE
        by_title.setdefault(title, []).append(each)
    return [_table(title, clauses) for title, clauses in by_title.items()]


def _table(title: str, clauses: Sequence[Judged]) -> Table:
    operations = list(dict.fromkeys(place[0] for each in clauses for place in each.places))
    dtypes = {place[2] for each in clauses for place in each.places} if len(operations) == 1 else {""}
    columns = tuple((name, dtype) for name in operations for dtype in sorted(dtypes, key=by_precision))
    return Table(title, columns, tuple((each, tuple(_cell(each, column) for column in columns)) for each in clauses))


def by_precision(dtype: str) -> tuple[int, str]:
    """The most precise first; what is no dtype last."""
    return (DTYPES.index(dtype) if dtype in DTYPES else len(DTYPES), dtype)


def _cell(judged: Judged, column: Column) -> Cell:
    def within(place: tuple[str, str, str]) -> bool:
        return place[0] == column[0] and column[1] in ("", place[2])

    if not any(map(within, judged.places)):
        return Cell()
    ratios = [number for place, number in judged.ratios.items() if within(place)]
    wrong = [number for place, number in judged.mismatches.items() if within(place)]
    return Cell(_verdict(judged, column, ratios, wrong), worst_of(ratios, wrong))


def _verdict(judged: Judged, column: Column, ratios: Sequence[float], wrong: Sequence[float]) -> str:
    """The clause's own verdict, unless it failed elsewhere and nothing speaks against this column."""
    if judged.verdict not in ("fail", "warn", "deviation"):
        return judged.verdict
    of_this = all(
        part in ("", judged.failure.get(name)) for name, part in zip(("operation", "dtype"), column, strict=True)
    )
    named = any(_names(test, judged, column) for test in judged.failed_tests)
    return judged.verdict if of_this or named or max(ratios, default=0) > 1 or any(wrong) else "pass"


def _names(test: str, judged: Judged, column: Column) -> bool:
    """Whether the parameters of a failed test, as in "[dino-cpu-float32]", are of this column."""
    parameters = test.rpartition("[")[2].rstrip("]").split("-")
    operations = {place[0] for place in judged.places}
    operation = column[0] in parameters or len(operations) == 1 or not operations & set(parameters)
    return operation and column[1] in ("", *parameters)
