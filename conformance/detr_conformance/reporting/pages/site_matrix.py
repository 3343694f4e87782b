"""The matrix of implementations by clause: chapter by chapter, with the implementations that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detr_conformance.evidence.clauses import Chapter, Clause, natural_key
from detr_conformance.reporting.pages.history import Implementation
from detr_conformance.reporting.pages.judged import WORDS, Judged


@dataclass(frozen=True)
class Row:
    """A clause, and what was found of it in each of the chapter's implementations; None where nothing was."""

    clause: Clause
    cells: tuple[Judged | None, ...]

    @property
    def verdicts(self) -> str:
        return " ".join(sorted({cell.verdict for cell in self.cells if cell}))

    @property
    def sought(self) -> str:
        return f"{self.clause.id} {self.clause.short} {self.clause.requirement}".casefold()


@dataclass(frozen=True)
class ChapterMatrix:
    """A chapter's clauses that some implementation was judged by."""

    title: str
    columns: tuple[Implementation, ...]
    rows: tuple[Row, ...]

    @property
    def calm(self) -> bool:
        """Whether nothing but passes is in it."""
        return all(row.verdicts == "pass" for row in self.rows)


def chapter_matrices(found: Sequence[Implementation], chapters: Sequence[Chapter]) -> list[ChapterMatrix]:
    matrices = []
    for chapter in chapters:
        clauses = [clause for clause in chapter.clauses if any(clause.id in each.spoken for each in found)]
        ids = {clause.id for clause in clauses}
        columns = tuple(each for each in found if ids & each.spoken.keys())
        rows = tuple(
            Row(clause, tuple(each.spoken.get(clause.id) for each in columns))
            for clause in sorted(clauses, key=lambda clause: natural_key(clause.id))
        )
        matrices.append(ChapterMatrix(chapter.title, columns, rows))
    return [matrix for matrix in matrices if matrix.rows]


def counts(matrices: Sequence[ChapterMatrix]) -> list[tuple[str, int, str]]:
    """Of how many clauses some implementation has each verdict."""
    rows = [row.verdicts.split() for matrix in matrices for row in matrix.rows]
    found = [(verdict, sum(verdict in each for each in rows), word) for verdict, word in WORDS.items()]
    return [each for each in found if each[1]]


@dataclass(frozen=True)
class Cause:
    """A declared deviation, and who has it."""

    judged: Judged
    names: tuple[Implementation, ...]


def causes(found: Sequence[Implementation]) -> list[Cause]:
    """Each declared deviation once, in the order of clauses."""
    having: dict[tuple[str, str, str], list[tuple[Judged, Implementation]]] = {}
    for implementation in found:
        for told in implementation.latest:
            for each in told.judged.values():
                if each.deviation:
                    key = (each.id, each.deviation.get("kind", ""), each.deviation.get("reason", ""))
                    having.setdefault(key, []).append((each, implementation))
    ordered = sorted(having.values(), key=lambda pairs: natural_key(pairs[0][0].id))
    return [Cause(pairs[0][0], tuple({who.slug: who for _, who in pairs}.values())) for pairs in ordered]
