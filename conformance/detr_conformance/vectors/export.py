"""`detr-spec vectors export`: the manifest and its files of tensors."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from detr_conformance.reporting.json_file import write_whole
from detr_conformance.stages import STAGES
from detr_conformance.vectors.demands import asks_for_stages
from detr_conformance.vectors.recording import Asked, Recorded, asked_tests, recorded, unplayed
from detr_conformance.vectors.store import Writer, json_text, rounded_up
from detr_conformance.vectors.tape import Given
from detr_conformance.vectors.vector import Check, Vector

SCHEMA = "urn:detr-spec:vectors:1"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# Bytes of a case, of a model's case, of all that a model has, and of everything, the manifest included.
LARGEST_CASE, LARGEST_MODEL, MOST_OF_A_MODEL, MOST = 60_000, 800_000, 1_700_000, 19_000_000
OF_AN_ENTRY, OF_A_CHECK, OF_A_PARAMETER = 450, 130, 60  # in the manifest

Show = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Wanted:
    """What to export: the options of the command."""

    profile: str = "standard"
    operations: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    seed: int = 0

    @property
    def bounded(self) -> bool:
        return self.profile != "full-size"

    def largest(self, operation: str) -> float:
        """What a case of it may take."""
        largest = LARGEST_MODEL if operation in STAGES else LARGEST_CASE
        return largest if self.bounded else math.inf


@dataclass
class AboutTest:
    """What the manifest says of a test of the suite."""

    clauses: list[str]
    feature: str | None = None
    operations: list[str] = field(default_factory=list)
    cases: int = 0
    left_out: int = 0  # for their size
    words: list[str] = field(default_factory=list)


@dataclass
class Export:
    """The vectors that were chosen, with the cases that they come from."""

    wanted: Wanted
    writer: Writer = field(default_factory=Writer)
    vectors: dict[str, Vector] = field(default_factory=dict)
    tests: dict[str, AboutTest] = field(default_factory=dict)
    cases: list[Recorded] = field(default_factory=list)
    spent: dict[str, int] = field(default_factory=dict)  # bytes, by operation

    def room_for(self, operation: str, cost: int) -> bool:
        if not self.wanted.bounded:
            return True
        if operation in STAGES:
            return self.spent.get(operation, 0) + cost <= MOST_OF_A_MODEL
        return cost <= 2 * LARGEST_CASE and sum(self.spent.values()) + cost <= MOST

    def write(self, folder: Path, npz: bool) -> dict[str, Any]:
        """Writes everything, and returns the manifest.

        Raises:
            FileError: the folder cannot be written to.
        """
        vectors = list(self.entries()[0].values())
        files, tensors = self.writer.write(folder, npz)
        manifest = {
            "$schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "detr_spec": importlib.metadata.version("detr-spec"),
            "profile": self.wanted.profile,
            "seed": self.wanted.seed,
            "operations": list(self.wanted.operations),
            "dtypes": list(self.wanted.dtypes),
            "files": files,
            "tests": {name: vars(entry) for name, entry in sorted(self.tests.items())},
            "tensors": tensors,
            "vectors": vectors,
        }
        write_whole(folder / MANIFEST, json_text(manifest))
        return manifest

    def entries(self) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
        """The vectors as the manifest holds them, by id, and every tensor that they name."""
        found = {name: _entry(self.writer, self.vectors[name]) for name in sorted(self.vectors)}
        return found, self.writer.tensors


def collect(wanted: Wanted, show: Show = lambda done, of, what: None) -> Export:
    """Plays the tests and chooses vectors: the first case of every test, then the second, as long as there is room."""
    export = Export(wanted)
    played: list[Recorded] = []
    every = list(asked_tests(wanted.profile, wanted.operations, wanted.dtypes))
    for done, asked in enumerate(every):
        show(done, len(every), f"{asked.operation} {asked.dtype} {asked.test.name}")
        entry = export.tests.setdefault(asked.name, AboutTest(list(asked.test.clauses), asked.test.feature))
        entry.operations += [] if asked.operation in entry.operations else [asked.operation]
        if reason := unplayed(asked, wanted.profile):
            _say(entry, asked, [f"not exported: it {reason}"])
            continue
        for case in recorded(asked, wanted.profile, wanted.seed, wanted.largest(asked.operation)):
            _say(entry, asked, case.words)
            entry.left_out += case.too_large
            if case.vectors:
                played.append(case)
    for case in sorted(played, key=_turn):
        choose(export, case)
    return export


def _turn(case: Recorded) -> tuple[int, int, int]:
    """The second cases come in after the first ones, those of other dtypes after float32; small ones before large. Of
    whole models what shows where they part comes first."""
    late = case.asked.operation in STAGES and not asks_for_stages(case.asked.test.property)
    return case.number + (case.asked.dtype != "float32"), int(late), case.case.size


def _say(entry: AboutTest, asked: Asked, words: Iterable[str]) -> None:
    entry.words += [each for each in dict.fromkeys(words) if each not in entry.words]


def choose(export: Export, case: Recorded) -> None:
    entry = export.tests[case.asked.name]
    tensors = [tensor for vector in case.vectors for tensor in _tensors(vector)]
    cost = export.writer.cost(tensors) + sum(map(_written, case.vectors))
    if not export.room_for(case.asked.operation, cost):
        entry.left_out += 1
        return
    export.spent[case.asked.operation] = export.spent.get(case.asked.operation, 0) + cost
    entry.cases += 1
    export.cases.append(case)
    for vector in case.vectors:
        known = export.vectors.setdefault(vector.id, vector)
        known.absorb(vector)
        _entry(export.writer, known)


def _written(vector: Vector) -> int:
    """About how long its entry in the manifest is."""
    return OF_AN_ENTRY + OF_A_CHECK * len(vector.checks) + OF_A_PARAMETER * len(vector.parameters)


def _tensors(vector: Vector) -> Iterator[Tensor]:
    yield from (given.numbers for given in (*vector.call.inputs.values(), *vector.incoming.values()))
    yield from vector.parameters.values()
    for check in vector.checks.values():
        yield check.expected
        if check.limit is not None:
            yield rounded_up(check.limit)


def _entry(writer: Writer, vector: Vector) -> dict[str, Any]:
    """A vector as the manifest holds it; its tensors are in the writer."""

    def placed(given: Given) -> dict[str, Any]:
        entry: dict[str, Any] = {"tensor": writer.add(vector.operation, given.numbers)}
        return entry if given.plain else entry | {"strides": list(given.strides), "offset": given.offset}

    def check(each: Check) -> dict[str, Any]:
        limit = "exact" if each.limit is None else writer.add(vector.operation, rounded_up(each.limit))
        expected = writer.add(vector.operation, each.expected)
        return {"of": each.of, "expected": expected, "limit": limit, "judged": each.share, "tests": each.tests}

    results = {name: vector.call.results[name] for name in vector.results}
    entry: dict[str, Any] = {
        "id": vector.id,
        "operation": vector.operation,
        "dtype": vector.dtype,
        "notes": vector.notes,
        "flags": vector.flags,
        "training": vector.call.training,
        "config" if vector.call.made else "settings": vector.settings,
        "inputs": {name: placed(given) for name, given in vector.call.inputs.items()},
        "parameters": {name: writer.add(vector.operation, t) for name, t in vector.parameters.items()},
        "incoming": {name: placed(given) for name, given in vector.incoming.items()},
        "gradients": vector.gradients,
        "results": {name: {"dtype": _name(t), "shape": list(t.shape)} for name, t in results.items()},
        "checks": [check(each) for each in vector.checks.values()],
    }
    return entry


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
