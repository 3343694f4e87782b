"""What stands behind a clause: the tests that cover it and the mutants that it must reject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from detr_conformance.evidence.catalogue import CoveringTest, Mutant, covering_tests, mutants
from detr_conformance.evidence.clauses import Clause


@dataclass(frozen=True)
class Evidence:
    """A clause with its tests and mutants, whose files are named from the package on: `topics/...`."""

    clause: Clause
    tests: tuple[CoveringTest, ...]
    mutants: tuple[Mutant, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        clause = asdict(self.clause)
        return {
            **{name: clause[name] for name in ("id", "level", "condition", "title", "requirement", "notes")},
            **{name: clause[name] for name in ("chapter", "line")},
            "tests": [
                {"name": test.test, "file": place_of(test), "line": test.line, "operations": list(test.operations)}
                for test in self.tests
            ],
            "mutants": [
                {"name": mutant.name, "file": place_of(mutant), "line": mutant.line, "origin": mutant.origin}
                for mutant in self.mutants
            ],
        }


def evidence_of(clauses: Iterable[Clause]) -> Iterator[Evidence]:
    """What stands behind each of them; the sources are read once."""
    tests, wrong = covering_tests(), mutants()
    for clause in clauses:
        yield Evidence(
            clause,
            tuple(test for test in tests if test.clause == clause.id),
            tuple(mutant for mutant in wrong if mutant.clause == clause.id),
        )


def place_of(entry: CoveringTest | Mutant) -> str:
    return f"topics/{entry.file}"
