"""The page before the chapters: what they are, and which there are."""

from __future__ import annotations

from collections.abc import Sequence

from detr_conformance.evidence.clauses import Chapter

_HEAD = """# Specification

Each chapter explains a block and says in numbered clauses what an implementation has to do. MUST is required; SHOULD
names differences that are known and legitimate. Ids are stable: a clause may be retired, it is never renumbered.
`detr-spec spec MSDA-14` prints a clause with its tests and the mutants that it has to reject, and
`detr-spec spec --search border` lists the clauses in which a word occurs.

| chapter | ids | clauses |
|---|---|---|
"""


def spec_index(chapters: Sequence[Chapter]) -> str:
    rows = []
    for chapter in chapters:
        clauses = [clause for clause in chapter.clauses if clause.level != "retired"]
        ids = ", ".join(dict.fromkeys(clause.id.rpartition("-")[0] for clause in clauses))
        rows.append(f"| [{chapter.title}]({chapter.file}) | {ids} | {len(clauses) or ''} |")
    return _HEAD + "\n".join(rows) + "\n"
