"""What stands behind a clause: the tests that cover it, the mutants that it must reject, and the code it is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from detr_conformance.evidence.catalogue import CoveringTest, Mutant, covering_tests, mutants
from detr_conformance.evidence.clauses import Clause
from detr_conformance.operations import OPERATIONS


@dataclass(frozen=True)
class Evidence:
    """A clause with its tests, its mutants and its code; files are named from the package on: `topics/...`."""

    clause: Clause
    tests: tuple[CoveringTest, ...]
    mutants: tuple[Mutant, ...]

    @property
    def code(self) -> dict[str, str]:
        """Operation -> the file of the reference that computes it; none where a clause is about every block."""
        about = {name for test in self.tests for name in test.operations if name in OPERATIONS}
        return {
            name: file_of(operation.reference)
            for name, operation in OPERATIONS.items()
            if name in about and operation.chapters[0] == self.clause.chapter
        }

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
            "code": [{"operation": name, "file": file} for name, file in self.code.items()],
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


def file_of(reference: str) -> str:
    """Where "package.module:attribute" lies."""
    return reference.partition(":")[0].replace(".", "/") + ".py"


def place_of(entry: CoveringTest | Mutant) -> str:
    return f"topics/{entry.file}"
