"""The suite's tests, played on the reference, become vectors; what cannot is said in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

from hypothesis.strategies import SearchStrategy

from detr_conformance.harness.case import Case, mixed_seed
from detr_conformance.harness.drive import run_cases
from detr_conformance.harness.subject import NotProvided, Settings
from detr_conformance.harness.suite_test import SuiteTest
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.running.trial import exempt, suite_test_of, suite_tests
from detr_conformance.stages import STAGES
from detr_conformance.target import DTYPES
from detr_conformance.vectors.answers import Tags, as_it_is, infinite
from detr_conformance.vectors.demands import asks_for_more, asks_for_stages
from detr_conformance.vectors.provenance import Catalogue, Judged, judged
from detr_conformance.vectors.stage_checks import stage_vector
from detr_conformance.vectors.tape import Answer, Recording, Tape
from detr_conformance.vectors.vector import Vector

FEATURES = ("backward", "deterministic")
GUARDED = {"MSDA-45", "MSDM-21"}  # arguments are left alone: seen around every call, and in no result
LISTED = {"smoke": 1, "standard": 6, "full-size": 4}  # cases that a test takes of those it lists, by profile
DRAWN = {"smoke": 1, "standard": 3, "full-size": 2}


@dataclass(frozen=True)
class Asked:
    """A test of the suite in one operation and dtype."""

    operation: str
    dtype: str
    file: str
    test: SuiteTest

    @property
    def name(self) -> str:
        return f"{self.file}.py::{self.test.name}"


@dataclass
class Recorded:
    """A case of a test, played: its vectors, and what of it no vector says."""

    asked: Asked
    number: int
    case: Case
    vectors: list[Vector] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    too_large: bool = False

    @property
    def whole(self) -> bool:
        """Whether the vectors say all that the test asks for of this case."""
        return bool(self.vectors) and not self.words


def asked_tests(profile: str, operations: Iterable[str] = (), dtypes: Iterable[str] = ()) -> Iterator[Asked]:
    """Every test that a profile runs, where it runs."""
    for operation, judges in suite_tests().items():
        if operations and operation not in operations:
            continue
        for judge in judges:
            test, file = suite_test_of(judge), judge.__module__.rpartition(".")[2]
            if exempt(operation, test) or not test.runs_in(profile):
                continue
            judged_in = [d for d in DTYPES if d in test.dtypes and d in OPERATIONS[operation].dtypes]
            if test.once:
                judged_in = ["float32"] if "float32" in judged_in else judged_in[:1]
            yield from (Asked(operation, d, file, test) for d in judged_in if not dtypes or d in dtypes)


def unplayed(asked: Asked, profile: str) -> str | None:
    """Why no case of a test becomes a vector, whatever it asks for."""
    test, operation, dtype = asked.test, asked.operation, asked.dtype
    if test.feature is not None and test.feature not in FEATURES:
        return f"is about the feature {test.feature}"
    if operation in STAGES and dtype != "float32":
        return "is exported in float32 alone, as models are"
    if test.costly and profile != "full-size":
        return "takes many or large calls"
    return None


def recorded(asked: Asked, profile: str, seed: int, largest: float = math.inf) -> list[Recorded]:
    """The first cases of a test, played; those with more bytes than that are only named."""
    settings = Settings(profile=profile, seed=seed, shrink=False)
    try:
        cases = first_cases(asked, settings)
    except NotProvided:
        return []
    found = []
    for number, case in enumerate(cases[:1] if asked.operation in STAGES else cases):
        if sum(tensor.nbytes for tensor in case.tensors.values()) > largest:
            found.append(Recorded(asked, number, case, too_large=True))
        else:
            found.append(played(asked, number, case, settings))
    return found


def first_cases(asked: Asked, settings: Settings) -> list[Case]:
    source = asked.test.cases(_subject(asked, settings, as_it_is))
    if not isinstance(source, SearchStrategy):
        return list(islice(source, LISTED[settings.profile]))
    found: list[Case] = []
    seed = mixed_seed(settings.seed, asked.test.name)
    run_cases(source, found.append, examples=DRAWN[settings.profile], seed_value=seed, shrink=False)
    return found


def played(asked: Asked, number: int, case: Case, settings: Settings) -> Recorded:
    """A case, played with the reference's own results and with others in their place."""
    found = Recorded(asked, number, case)
    right, problem = _tape(asked, case, settings, as_it_is)
    if problem is not None:
        found.words.append(problem)
    if asks_for_stages(asked.test.property):
        found.vectors.append(stage_vector(_subject(asked, settings, as_it_is), right, case, asked.name))
        return found
    if right.threaded:
        found.words.append("makes its calls in several threads")
        return found
    tagged, _ = _tape(asked, case, settings, Tags())
    other, _ = _tape(asked, case, settings, infinite)
    catalogue = Catalogue(tagged.calls)
    vectors: dict[int, Vector] = {}
    for index, comparison in enumerate(right.comparisons):
        same = [t.comparisons[index] for t in (tagged, other) if len(t.comparisons) > index]
        same = [each for each in same if each.got.shape == comparison.got.shape]
        if len(tagged.comparisons) <= index or not same:
            found.words.append(f"{comparison.name}: is made only if earlier results are right")
            continue
        parts = judged(comparison, same[0], same[1:], right, catalogue)
        if isinstance(parts, str):
            found.words.append(f"{comparison.name}: {parts}")
            continue
        _collect(found, vectors, parts, right, comparison.name)
    if asks_for_more(asked.test.property) or GUARDED & set(asked.test.clauses):
        found.words.append("asks for more than comparisons")
    if not right.comparisons:
        found.words.append("compares nothing")
    found.vectors = list(vectors.values())
    found.words = list(dict.fromkeys(found.words))
    return found


def _collect(found: Recorded, vectors: dict[int, Vector], parts: list[Judged], right: Tape, name: str) -> None:
    for part in parts:
        number = part.place[0]
        call = right.calls[number]
        if call.unlike is not None:
            found.words.append(f"{name}: the call {call.unlike}")
            continue
        if number not in vectors:
            note = [found.case.note] if found.case.note else []
            vectors[number] = Vector(found.asked.operation, found.asked.dtype, call, note)
        vectors[number].ask([part], found.asked.name)


def _tape(asked: Asked, case: Case, settings: Settings, answer: Answer) -> tuple[Tape, str | None]:
    """What the property did, and what it raised."""
    subject = _subject(asked, settings, answer)
    try:
        subject.judged(asked.test.property, case)
    except NotProvided as problem:
        return subject.tape, f"is about what the reference does not offer: {problem}"
    except Exception as problem:  # with wrong answers anything may happen
        return subject.tape, f"{type(problem).__name__}: {problem}"
    return subject.tape, None


def _subject(asked: Asked, settings: Settings, answer: Answer) -> Recording:
    tape = Tape(answer)
    implementation = tape.watched(asked.operation, _reference(asked.operation))
    return Recording(
        asked.operation,
        implementation,
        asked.dtype,
        features=FEATURES,
        stages=STAGES.get(asked.operation),
        settings=settings,
        tape=tape,
    )


@cache
def _reference(operation: str) -> Callable[..., Any]:
    made: Callable[..., Any] = resolve(OPERATIONS[operation].reference)
    return made
