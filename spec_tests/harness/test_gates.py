"""Who tests the tests: every clause is exercised, every mutant rejected by its own clause, every twin accepted."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.harness.subject import Settings
from detr_conformance.operations import OPERATIONS, TRAINED, TRAINING_CHAPTER
from detr_conformance.running.gates import (
    stray_mutants,
    stray_tests,
    unexercised_clauses,
    unguarded_clauses,
    untested_clauses,
)
from detr_conformance.running.mutants import MUTANTS, TWINS, Mutant, Twin, as_target
from detr_conformance.running.naive_check import naive_check
from detr_conformance.running.trial import exempt, rejection, suite_test_of, suite_tests, trials
from detr_conformance.targets.reference import target as reference

# A user does not have the run-time checks of shapes: they draw random numbers, break graphs, and would judge mutants.
pytestmark = pytest.mark.usefixtures("unchecked_shapes")

CLAUSES = load_clauses()
TRAINING = Settings(profile="training", shrink=False)
# Of the reference, of which `detr-spec check reference` asks everything, and of the twins: a quarter of the listed
# cases, and few drawn. What takes seconds is asked of some alone, see below. `make gates` asks everything of all.
A_QUARTER = Settings(profile="smoke", shrink=False)
WHOLE = os.environ.get("DETR_SPEC_GATES") == "whole"
# The whole models' twins, and the sampling functions that differ most in the order of their sums, forward or backward.
TRAINED_TWINS = (
    "detr-in-steps",
    "deformable-detr-image-by-image",
    "dino-image-by-image",
    "hand-written-backward",
    "autograd-gather",
    "chunked-queries",
    "levels-reversed",
    "sequential-sum",
    "grid-sample",
    "sparse-matrix",
    "gradient-by-level",
)
# These are asked everything in float32, also what takes seconds.
JUDGED_WHOLE = ("outputs-of-one-arena", "module-by-hand")
ASKED_WHAT_TAKES_SECONDS = ("ms_deform_attn", "ms_deform_attn_module", "encoder_layer", "sigmoid_focal_loss")
TESTS = [test for tests in suite_tests().values() for test in tests]


def test_every_clause_has_a_test() -> None:
    assert untested_clauses(CLAUSES, TESTS) == []


def test_every_test_names_a_clause() -> None:
    assert stray_tests(CLAUSES, TESTS) == []


def test_every_clause_has_a_mutant() -> None:
    assert unguarded_clauses(CLAUSES, MUTANTS.values()) == []


def test_every_mutant_declares_a_clause() -> None:
    assert stray_mutants(CLAUSES, MUTANTS.values()) == []


def test_no_clause_is_exempt_everywhere() -> None:
    asked = {
        clause
        for operation, tests in suite_tests().items()
        for test in map(suite_test_of, tests)
        if not exempt(operation, test)
        for clause in test.clauses
    }
    assert asked == set(CLAUSES)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_reference_passes_and_exercises_every_clause(operation: str) -> None:
    """Of the operation's own chapter and, if it is a block, of chapter 3 but for what it is exempt from."""
    target = replace(reference, provides={operation: reference.provides[operation]})
    others = tuple(dtype for dtype in OPERATIONS[operation].dtypes if dtype != "float32")
    costly = WHOLE or operation in ASKED_WHAT_TAKES_SECONDS
    settings = None if WHOLE else A_QUARTER
    found = list(trials(target, dtypes=("float32",), settings=settings, costly=costly))
    found += trials(target, dtypes=others, settings=settings, costly=WHOLE, elsewhere=False)
    assert [(test.name, dtype, str(failure)) for test, dtype, failure in found if failure] == []
    tests = [test for test in map(suite_test_of, suite_tests()[operation]) if test.runs_in("standard")]
    tests = [test for test in tests if costly or not test.costly]
    asked = {clause: CLAUSES[clause] for test in tests for clause in test.clauses if not exempt(operation, test)}
    assert unexercised_clauses(asked, [test for test, _, _ in found]) == []


@pytest.mark.parametrize("operation", TRAINED)
def test_the_reference_is_trained_with_and_exercises_every_clause_of_training(operation: str) -> None:
    found = list(trials(replace(reference, provides={operation: reference.provides[operation]}), settings=TRAINING))
    assert [(test.name, dtype, str(failure)) for test, dtype, failure in found if failure] == []
    asked = {name: clause for name, clause in CLAUSES.items() if clause.chapter == TRAINING_CHAPTER}
    assert unexercised_clauses(asked, [test for test, _, _ in found]) == []


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_a_mutant_is_rejected_by_its_clause(mutant: Mutant) -> None:
    assert rejection(as_target(mutant), mutant.rejects) is not None, f"{mutant.rejects} accepts it: {mutant.summary}"


@pytest.mark.parametrize(
    ("twin", "dtype"),
    [
        pytest.param(twin, dtype, id=f"{twin.name}-{dtype}")
        for twin in TWINS.values()
        for dtype in OPERATIONS[twin.operation].dtypes
    ],
)
def test_a_twin_passes(twin: Twin, dtype: str) -> None:
    """Over its dtypes each test is asked where a check asks it: one that does not depend on the dtype in float32."""
    whole = WHOLE or (dtype == "float32" and twin.name in JUDGED_WHOLE)
    failures = [
        f"{', '.join(test.clauses)} {test.name}: {failure}"
        for test, _, failure in trials(
            as_target(twin), dtypes=(dtype,), settings=None if whole else A_QUARTER, costly=whole, elsewhere=False
        )
        if failure is not None
    ]
    assert failures == []


@pytest.mark.parametrize("name", TRAINED_TWINS)
def test_a_twin_is_trained_with(name: str) -> None:
    found = list(trials(as_target(TWINS[name]), settings=TRAINING))
    assert found
    assert [(test.name, str(failure)) for test, _, failure in found if failure] == []


def test_the_naive_check_accepts_every_twin() -> None:
    """A check that refused right implementations would say nothing about wrong ones."""
    assert [twin.name for twin in TWINS.values() if not naive_check(twin.operation, twin.build())] == []
