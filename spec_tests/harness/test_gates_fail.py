"""Each gate, shown to fail on a planted fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from detr_conformance import Target
from detr_conformance.evidence.clauses import Clause, load_clauses
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import SuiteError
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.running.gates import (
    stray_mutants,
    stray_tests,
    unexercised_clauses,
    unguarded_clauses,
    untested_clauses,
)
from detr_conformance.running.mutants import MUTANTS, as_target
from detr_conformance.running.trial import Judge, rejection, suite_test_of, suite_tests, trials
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, inside
from detr_conformance.topics.deformable_attention.cases.dyadic import dyadic_case
from detr_conformance.topics.deformable_attention.checks.agreement import agrees, require_smooth
from detr_reference.deformable_attention.core import ms_deform_attn

FEATURES = ("backward", "deterministic", "autocast")
CLAUSES = load_clauses()
TESTS = suite_tests()["ms_deform_attn"]


def extra_clause() -> dict[str, Clause]:
    return {**CLAUSES, "MSDA-999": replace(CLAUSES["MSDA-1"], id="MSDA-999")}


def nowhere(subject: Subject) -> Iterator[Case]:
    yield from ()


@covers("MSDA-999", cases=nowhere)
def planted_test(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def test_a_clause_without_test_is_noticed() -> None:
    assert "MSDA-999" in untested_clauses(extra_clause(), TESTS)


def test_a_test_of_an_unknown_clause_is_noticed() -> None:
    assert stray_tests(CLAUSES, [planted_test]) == ["planted_test"]


def test_a_clause_without_mutant_is_noticed() -> None:
    assert unguarded_clauses(extra_clause(), MUTANTS.values()) == ["MSDA-999"]


def test_a_mutant_of_an_unknown_clause_is_noticed() -> None:
    stray = replace(next(iter(MUTANTS.values())), rejects="MSDA-999", name="stray")
    assert stray_mutants(CLAUSES, [stray]) == ["stray"]


def test_an_unexercised_clause_is_noticed() -> None:
    ran = [suite_test_of(test) for test in TESTS if "MSDA-7" not in suite_test_of(test).clauses]
    assert "MSDA-7" in unexercised_clauses(CLAUSES, ran)


def test_a_right_implementation_is_not_rejected() -> None:
    """The mutant gate would fail on a mutant that is none."""
    harmless = Target(name="harmless", provides={"ms_deform_attn": ms_deform_attn}, dtypes=("float32",))
    assert rejection(harmless, "MSDA-13") is None


def test_a_wrong_twin_does_not_pass() -> None:
    """The twin gate would fail on a twin that rounds once too often."""

    def rounded_twice(*arguments: torch.Tensor) -> torch.Tensor:
        return ms_deform_attn(*arguments).bfloat16().to(arguments[0].dtype)

    target = Target(name="rounded twice", provides={"ms_deform_attn": rounded_twice}, dtypes=("float32",))
    assert any(failure for _, _, failure in trials(target, {"MSDA-21"}))


def test_a_regime_that_is_not_reached_is_an_error_of_the_suite() -> None:
    subject = Subject("ms_deform_attn", ms_deform_attn, "float32")
    on_a_kink = case_at(subject, Structure(((1, 1),)), inside)
    with pytest.raises(SuiteError, match="near a kink"):
        require_smooth(subject, on_a_kink)
    with pytest.raises(SuiteError, match="not exact"):
        dyadic_case(subject, Structure(((3, 5),)))


def test_zeros_fail_every_clause_about_numbers() -> None:
    """An output of zeros is the signature of a failed launch."""

    def zeros(*arguments: torch.Tensor) -> torch.Tensor:
        value, _, _, locations, weights = arguments
        nothing = sum(torch.where(t.isfinite(), t, 0).sum() for t in (value, locations, weights)) * 0
        return nothing.expand(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3]).clone()

    target = Target(name="zeros", provides={"ms_deform_attn": zeros}, dtypes=("float32",), features=FEATURES)
    passed = {clause for test, _, failure in trials(target) if failure is None for clause in test.clauses}
    failed = {clause for test, _, failure in trials(target) if failure is not None for clause in test.clauses}
    assert passed - failed == {"MSDA-42"}  # where nothing is the right answer


def judge_names(judges: list[Judge]) -> list[str]:
    return [suite_test_of(judge).name for judge in judges]


def test_no_two_tests_of_an_operation_share_a_name() -> None:
    """Replays and reports find a test by its name."""
    for judges in suite_tests().values():
        names = judge_names(judges)
        assert len(names) == len(set(names))


def test_mutants_need_fresh_state() -> None:
    """Targets made twice from one mutant share nothing, so that mutants with caches do not depend on test order."""
    mutant = next(m for m in MUTANTS.values() if m.operation == "ms_deform_attn")
    first, second = (as_target(mutant).provides["ms_deform_attn"] for _ in range(2))
    assert first is not second
