"""Which known mistakes a target is said to behave like: rightly, as a class, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Settings
from detr_conformance.likeness.closeness import close
from detr_conformance.likeness.known import Known
from detr_conformance.likeness.measure import measure
from detr_conformance.likeness.naming import likeness, still_possible
from detr_conformance.likeness.probes import ordinary
from detr_conformance.likeness.traces import Traced, without_numbers
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.running.mutants import MUTANTS
from detr_conformance.topics.deformable_attention.cases.core import Structure, border, case_at
from detr_reference.queries.box_refinement import refine_boxes
from helpers.reports.wrong_kernels import LIKE_NONE, WRONG

CORE = "ms_deform_attn"
Named = Callable[[str, Callable[..., torch.Tensor]], tuple[str, ...]]


def subject_of(operation: str, implementation: Callable[..., torch.Tensor]) -> Traced:
    return Traced(operation, implementation, settings=Settings(shrink=False))


@pytest.fixture(scope="module")
def named() -> Named:
    """The names that an implementation gets by its plain calls alone."""
    known: dict[str, Known] = {}

    def names(operation: str, implementation: Callable[..., torch.Tensor]) -> tuple[str, ...]:
        like = subject_of(operation, implementation)
        found = likeness(known.setdefault(operation, Known(like)), like, [], still_possible(operation, {}))
        return () if found is None else found.names

    return names


@pytest.mark.parametrize("mutant", WRONG)
def test_a_mistake_in_other_code_has_the_mutants_name(mutant: str, named: Named) -> None:
    assert named(CORE, WRONG[mutant]) == (mutant,)


@pytest.mark.parametrize("kernel", LIKE_NONE)
def test_what_is_right_or_like_no_mutant_has_no_name(kernel: str, named: Named) -> None:
    assert named(CORE, LIKE_NONE[kernel]) == ()


def test_a_mistake_beside_another_library_raising_is_named(named: Named) -> None:
    """Where it raises there is nothing to compare."""

    def kernel(*call: torch.Tensor) -> torch.Tensor:
        if call[3].shape[0] == 1:
            raise NotImplementedError("one image")
        return WRONG["align-corners"](*call)

    assert named(CORE, kernel) == ("align-corners",)


def test_functions_with_settings_and_without_their_kernels_form(named: Named) -> None:
    def refine(delta: torch.Tensor, reference: torch.Tensor, eps: float = 1e-3) -> torch.Tensor:
        return delta.sigmoid() + reference

    assert named("refine_boxes", refine_boxes) == ()
    assert named("refine_boxes", refine) == ()
    mutant = next(each for each in MUTANTS.values() if each.operation == "refine_boxes")
    assert mutant.name in named("refine_boxes", mutant.build())


def test_mutants_whose_plain_call_is_right_are_named_by_how_they_fail() -> None:
    some = ("block-detached-while-training", "block-tenth-while-training")
    rejected = {name: [MUTANTS[name].rejects] for name in some}
    found = measure("mlp", rejected, frozenset(some))
    assert found["mutants"] == {name: [name] for name in some}


def test_all_mutants_of_an_operation_and_no_twin() -> None:
    found = measure("valid_ratios", {})
    assert {name for name, names in found["mutants"].items() if name not in names} == set()
    assert set(map(tuple, found["twins"].values())) == {()}


def test_a_case_that_is_to_be_refused_is_no_plain_call() -> None:
    like = subject_of(CORE, WRONG["align-corners"])
    case = case_at(like, Structure(), border)
    known = Known(like)
    assert known.call(case, like) is not None
    assert known.call(case.having(level_start_index=case["level_start_index"][:1]), like) is None


def test_a_passed_clause_leaves_its_mutants_out() -> None:
    clause = MUTANTS["align-corners"].rejects
    assert "align-corners" in still_possible(CORE, {clause: "fail"})
    assert "align-corners" in still_possible(CORE, {clause: "undecided"})
    assert "align-corners" not in still_possible(CORE, {clause: "pass"})


@pytest.mark.parametrize("operation", ["feed_forward", "hungarian_matching", "refine_boxes"])
def test_probes_are_ordinary_calls(operation: str) -> None:
    """Of functions and modules, with outputs that are random, or no floating numbers."""
    subject = subject_of(operation, resolve(OPERATIONS[operation].reference))
    found = Known(subject).probes
    assert len(found) >= 3
    assert all(map(ordinary, found))
    assert not ordinary(Case({"x": torch.tensor([1.0, float("inf")])}))


def test_a_class_is_told_apart_by_more_than_rounding() -> None:
    one = torch.tensor([1.0, -2.0, 1e-6])
    assert close(one, one * (1 + 1e-6))
    assert not close(one, one * (1 + 1e-3))
    assert not close(one, one.double())
    assert not close(one, torch.tensor([1.0, -2.0, float("nan")]))
    assert not close(torch.tensor([1, 2]), torch.tensor([1, 3]))


def test_messages_are_compared_without_their_numbers() -> None:
    said = "output[0, 3]: expected 1.25, got nan, limit 3e-05"
    assert without_numbers(said) == without_numbers("output[2, 11]: expected -0.5, got 7, limit 1.02e-06")
    assert without_numbers(said) != without_numbers(said.replace("output", "grad_value"))
