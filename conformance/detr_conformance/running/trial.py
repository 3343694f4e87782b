"""Runs tests of the suite on an implementation directly, without pytest: how mutants and twins are judged."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

from detr_conformance import topics
from detr_conformance.harness.drive import Failure, Undecided
from detr_conformance.harness.subject import NotProvided, Settings, Subject
from detr_conformance.harness.suite_test import SuiteTest
from detr_conformance.isolation.process import NotDone
from detr_conformance.operations import OPERATIONS
from detr_conformance.target import Target

Judge = Callable[[Subject], None]


def suite_tests() -> dict[str, list[Judge]]:
    """Every test of the suite, by operation."""
    found: dict[str, list[Judge]] = {}
    for info in pkgutil.walk_packages(topics.__path__, f"{topics.__name__}."):
        if not info.name.rpartition(".")[2].startswith("test_"):
            continue
        module = importlib.import_module(info.name)
        tests = [each for each in vars(module).values() if hasattr(each, "suite_test")]
        for operation in operations_of(module):
            found.setdefault(operation, []).extend(tests)
    return found


def operations_of(module: Any) -> tuple[str, ...]:
    """The operations that a module of the suite is about: its OPERATION, or its OPERATIONS."""
    return (module.OPERATION,) if hasattr(module, "OPERATION") else module.OPERATIONS


def clauses_by_test_name() -> dict[str, tuple[str, ...]]:
    """file.py::test -> the clauses it covers."""
    return {
        f"{judge.__module__.rpartition('.')[2]}.py::{suite_test_of(judge).name}": suite_test_of(judge).clauses
        for judges in suite_tests().values()
        for judge in judges
    }


def suite_test_of(judge: Judge) -> SuiteTest:
    return judge.suite_test  # type: ignore[attr-defined]


def trials(
    target: Target,
    clauses: set[str] | None = None,
    dtypes: tuple[str, ...] | None = None,
    settings: Settings | None = None,
    costly: bool = True,
    elsewhere: bool = True,
) -> Iterator[tuple[SuiteTest, str, Failure | None]]:
    """Each applicable test of a target with what it found: None if it passed. Costly ones may be left out.

    Args:
        dtypes: of the dtypes in which a check asks each test, those to ask it in.
        elsewhere: ask a test that a check asks in none of these in the first that it does. Whoever goes through the
            dtypes one after the other asks each test where a check does, and no more, without it.
    """
    settings = settings or Settings(profile="standard", shrink=False)
    tests = suite_tests()
    for operation, implementation in target.provides.items():
        for judge in tests[operation]:
            test = suite_test_of(judge)
            if (clauses is not None and not clauses & set(test.clauses)) or (test.costly and not costly):
                continue
            if test.feature is not None and test.feature not in target.features:
                continue
            if exempt(operation, test) or not test.runs_in(settings.profile):
                continue
            asked_in = _dtypes(operation, test, target)
            chosen = [dtype for dtype in asked_in if dtypes is None or dtype in dtypes]
            for dtype in chosen or asked_in[: int(elsewhere)]:
                yield test, dtype, _try(judge, operation, implementation, dtype, target, settings)


def profile_of(clause: str) -> str:
    """The profile in which a clause is judged: that of its tests, if all have one of their own."""
    tests = [suite_test_of(judge) for judges in suite_tests().values() for judge in judges]
    profiles = [test.profile for test in tests if clause in test.clauses]
    return "standard" if None in profiles else next(filter(None, profiles), "standard")


def exempt(operation: str, test: SuiteTest) -> bool:
    """Whether all that a test decides is no question of this operation."""
    return set(test.clauses) <= set(OPERATIONS[operation].exempt)


def _dtypes(operation: str, test: SuiteTest, target: Target) -> list[str]:
    """Where a check asks a test: of one that is asked once in one dtype."""
    judged = [d for d in target.dtypes if d in test.dtypes and d in OPERATIONS[operation].dtypes]
    if test.once and judged:
        return ["float32"] if "float32" in judged else judged[:1]
    return judged


def _try(
    judge: Judge, operation: str, implementation: Callable[..., Any], dtype: str, target: Target, settings: Settings
) -> Failure | None:
    about = (target.features, target.variants, target.stages, settings)
    subject = Subject(operation, implementation, dtype, "cpu", *about)
    try:
        judge(subject)
    except Failure as failure:
        return failure
    except (NotProvided, NotDone):
        return None
    return None


def rejection(target: Target, clause: str) -> tuple[SuiteTest, str, Failure] | None:
    """The first failure of a target in a test of one clause, or None if the clause accepts it."""
    order = ("float32", "bfloat16", "float16", "float64")
    settings = Settings(profile=profile_of(clause), shrink=False)
    for dtype in order:
        for test, tried, failure in trials(target, {clause}, (dtype,), settings, elsewhere=False):
            if failure is not None and not isinstance(failure, Undecided):
                return test, tried, failure
    return None
