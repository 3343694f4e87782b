"""Whether vectors judge as the suite does: outputs of mutants, and the mutants themselves, on the same cases.

    python -m detr_conformance.vectors.gate [--operation ID ...] [--dtype T ...] [--most N] [--json FILE]

For each mutant whose declared clause is decided by comparisons alone: its outputs for the exported vectors are judged
by the manifest, and the mutant itself by the properties of the cases that the vectors come from. A case that is told
whole must be failed by both or by neither; one that is told in part may be failed by the property alone.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from detr_conformance.cli.completion import OperationName
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.reporting.json_file import write_json
from detr_conformance.running.mutants import MUTANTS, Mutant
from detr_conformance.target import DTYPES
from detr_conformance.vectors.export import Export, Wanted, collect
from detr_conformance.vectors.reading import Vectors, read_vectors
from detr_conformance.vectors.recording import FEATURES, Recorded
from detr_conformance.vectors.replay import replayed
from detr_conformance.vectors.verify import judge

Build = Callable[[], Any]


@dataclass
class Tried:
    """One implementation, judged twice.

    Attributes:
        clauses: failed by properties of cases that are told whole.
        only_suite, only_vectors: such cases that the one fails and the other does not, as "test#number dtype".
        beyond: cases told in part that the vectors fail and the property does not.
    """

    name: str
    clause: str | None
    cases: int = 0
    failed: int = 0
    clauses: list[str] = field(default_factory=list)
    only_suite: list[str] = field(default_factory=list)
    only_vectors: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        return not (self.only_suite or self.only_vectors or self.beyond)


class Gate:
    """The vectors of one operation, with the cases that they come from."""

    def __init__(self, operation: str, dtypes: Sequence[str], profile: str = "standard") -> None:
        self.operation = operation
        self.export: Export = collect(Wanted(profile, (operation,), tuple(dtypes)))
        with tempfile.TemporaryDirectory() as folder:
            self.export.write(Path(folder), npz=False)
            self.vectors: Vectors = read_vectors(Path(folder))
        self._entries = {vector["id"]: vector for vector in self.vectors.manifest["vectors"]}

    def compared(self) -> set[str]:
        """The clauses that every exported test of theirs tells whole, and that are told of at all."""
        told = {clause: True for case in self.export.cases for clause in case.asked.test.clauses}
        for entry in self.export.tests.values():
            for clause in entry.clauses:
                told[clause] = told.get(clause, False) and not entry.words
        return {clause for clause, whole in told.items() if whole}

    def mutants(self) -> list[Mutant]:
        compared = self.compared()
        mine = [each for each in MUTANTS.values() if each.operation == self.operation and "backward" in each.features]
        return [each for each in mine if each.rejects in compared]

    def reference(self) -> Tried:
        return self.tried("the reference", None, lambda: resolve(OPERATIONS[self.operation].reference))

    def tried(self, name: str, clause: str | None, build: Build, everywhere: bool = True) -> Tried:
        """
        Args:
            everywhere: on the cases of every clause in float32; otherwise on those of its own clause alone.
        """
        found = Tried(name, clause)
        by_vectors: dict[str, set[str]] = {}
        for case in self._cases(clause, everywhere):
            for vector in case.vectors:
                if vector.id not in by_vectors:
                    by_vectors[vector.id] = self._failed_tests(vector.id, build)
            told = any(case.asked.name in by_vectors[vector.id] for vector in case.vectors)
            asked = _fails(case, build)
            found.cases += 1
            found.failed += asked
            where = f"{case.asked.name}#{case.number} {case.asked.dtype}"
            if case.whole and asked:
                found.clauses += [each for each in case.asked.test.clauses if each not in found.clauses]
            if case.whole and asked != told:
                (found.only_suite if asked else found.only_vectors).append(where)
            if not case.whole and told and not asked:
                found.beyond.append(where)
        return found

    def _cases(self, clause: str | None, everywhere: bool) -> Iterator[Recorded]:
        for case in self.export.cases:
            own = clause is None or clause in case.asked.test.clauses
            if own or (everywhere and case.asked.dtype == "float32"):
                yield case

    def _failed_tests(self, name: str, build: Build) -> set[str]:
        entry = self._entries[name]
        subject = Subject(self.operation, build(), entry["dtype"], features=FEATURES)
        results: dict[str, Tensor]
        try:
            results = replayed(subject, entry, self.vectors)
        except Exception:  # as a missing file of outputs
            results = {}
        failed = [check for check in entry["checks"] if isinstance(judge(check, self.vectors, results), AssertionError)]
        return {test for check in failed for test in check["tests"]}


def _fails(case: Recorded, build: Build) -> bool:
    settings = Settings(shrink=False)
    subject = Subject(case.asked.operation, build(), case.asked.dtype, features=FEATURES, settings=settings)
    try:
        subject.judged(case.asked.test.property, case.case)
    except Exception:  # a Mismatch, or whatever a wrong implementation makes of it
        return True
    return False


def run(operations: Iterable[str], dtypes: Sequence[str], most: int | None, say: Callable[[str], None]) -> list[Tried]:
    """The reference and the mutants of these operations; at most so many of each."""
    found: list[Tried] = []
    for operation in operations:
        gate = Gate(operation, dtypes)
        tried = [gate.reference()]
        tried += [gate.tried(each.name, each.rejects, each.build) for each in gate.mutants()[:most]]
        wrong = [each for each in tried if not each.agrees]
        say(
            f"{operation}: {len(gate.vectors.manifest['vectors'])} vectors, "
            f"{len(tried) - 1} mutants, {len(wrong)} judged otherwise"
        )
        for each in wrong:
            say(f"  {each.name} ({each.clause}): {json.dumps({k: v for k, v in asdict(each).items() if v})}")
        found += tried
    return found


@click.command()
@click.option("--operation", multiple=True, type=OperationName(), help="Only this; repeatable.")
@click.option("--dtype", multiple=True, type=click.Choice(DTYPES), help="Only this; repeatable.")
@click.option("--most", type=click.IntRange(min=1), help="Mutants of each operation.")
@click.option("--json", "json_file", type=click.Path(), metavar="FILE", help="Write what was found of each mutant.")
def main(operation: tuple[str, ...], dtype: tuple[str, ...], most: int | None, json_file: str | None) -> None:
    """Compare the verdicts of vectors with those of the suite, on the reference and on mutants."""
    found = run(operation or OPERATIONS, dtype, most, click.echo)
    mutants = [each for each in found if each.clause is not None]
    differ = [each for each in found if not each.agrees]
    failed = sum(each.clause in each.clauses for each in mutants)
    click.echo(
        f"{len(mutants)} mutants, {failed} fail their clause here; {len(differ)} implementations are judged otherwise"
    )
    if json_file:
        write_json(json_file, [asdict(each) for each in found])
    raise SystemExit(int(bool(differ)))


if __name__ == "__main__":
    main()
