"""Computed arguments, scale, threads, and thousands of calls. Clauses: MSDA-60 to MSDA-63, MSDA-65."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from detr_conformance.harness.case import Case, lay_out
from detr_conformance.harness.mismatch import Raised, expect
from detr_conformance.harness.second_order import right_or_refused
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, everywhere, inside, structure_of
from detr_conformance.topics.deformable_attention.checks.agreement import (
    GRADIENTS,
    check_gradients,
    check_output,
    ordinary,
    rounding_of,
    whole,
)
from detr_conformance.topics.deformable_attention.checks.oracle import expectations
from detr_conformance.topics.every_block.checks import in_two_threads, same_every_time

OPERATION = "ms_deform_attn"
FULL = ("float64", "float32")
SMALLEST = Structure(((2, 3),), batch=1, queries=2, heads=1, channels=2, points=1)
CALLS = 20_000


@covers(
    "MSDA-60",
    cases=lambda subject: [case_at(subject, Structure(), inside, note="computed")],
    feature="backward",
    plain=whole,
)
def test_computed_arguments(subject: Subject, case: Case) -> None:
    for changed in (False, True):
        arguments = subject.arguments(case)
        leaves = {name: arguments[name].requires_grad_() for name in GRADIENTS}
        computed = arguments | {name: leaf * 1 for name, leaf in leaves.items()}
        output = subject.call(computed)
        if changed:
            for name in GRADIENTS:
                computed[name].add_(1)
        grad_output = lay_out(case["grad_output"].to(subject.device), case.layout)
        try:
            gradients = subject.pull_back(output, grad_output, leaves)
        except Raised:
            if changed:
                return  # torch itself notices that what it needs is gone
            raise
        check_gradients(subject, gradients, case)


@covers(
    "MSDA-65",
    cases=lambda subject: [case_at(subject, Structure(), inside, note="differentiated twice")],
    feature="backward",
    dtypes=FULL,
    once=True,
    plain=whole,
)
def test_second_derivatives(subject: Subject, case: Case) -> None:
    right_or_refused(subject, case)


def scaled(subject: Subject) -> Iterator[Case]:
    """One argument after another times a power of two, far above and below ordinary numbers."""
    case = case_at(subject, Structure(), everywhere, note="scaled")
    for power in (-26, 26):
        for name in ("value", "attention_weights", "grad_output"):
            yield case.having(**{name: case[name] * 2.0**power})


@covers("MSDA-61", cases=scaled, dtypes=FULL, plain=ordinary)
def test_any_scale(subject: Subject, case: Case) -> None:
    whole(subject, case)


def one_row_poisoned(subject: Subject) -> Iterator[Case]:
    case = case_at(subject, Structure(queries=5), inside, note="NaN in the gradient of one query and head")
    s = structure_of(case)
    for poison in (torch.nan, torch.inf):
        grad_output = case["grad_output"].clone().view(s.batch, s.queries, s.heads, s.channels)
        grad_output[1, 3, 2, 0] = poison
        yield case.having(grad_output=grad_output.flatten(2))


@covers("MSDA-61", cases=one_row_poisoned, feature="backward", plain=ordinary)
def test_a_damaged_gradient_shows_where_it_is(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    gradients = subject.run(case).gradients
    there = torch.zeros(s.samples[:3], dtype=torch.bool)
    there[1, 3, 2] = True
    for name in ("attention_weights", "sampling_locations"):
        damaged = ~subject.gradient(name, gradients).detach().cpu().isfinite().flatten(3).all(-1)
        expect(torch.equal(damaged, there), f"grad_{name} is not finite in other queries or heads than grad_output is")
    damaged = ~subject.gradient("value", gradients).detach().cpu().isfinite().all(-1)
    expect(bool(damaged[1, :, 2].any()), "grad_value is finite, although grad_output is not", where="grad_value")
    damaged[1, :, 2] = False
    expect(not damaged.any(), "grad_value is not finite in other images or heads than grad_output is")


def smallest(subject: Subject) -> list[Case]:
    return [case_at(subject, SMALLEST, inside, note="the smallest call")]


@covers("MSDA-62", cases=smallest, once=True, plain=ordinary)
def test_threads(subject: Subject, case: Case) -> None:
    cases = [case_at(subject, Structure(queries=40), everywhere, which, note="in a thread") for which in (1, 2)]
    found = in_two_threads([repeated(subject, own) for own in cases], 20)
    for outputs, own in zip(found, cases, strict=True):
        for output in outputs:
            check_output(subject, output, own)


@covers("MSDA-63", cases=smallest, once=True, costly=True)
def test_thousands_of_calls(subject: Subject, case: Case) -> None:
    right = expectations(case, rounding_of(subject), backward=False)["output"]
    calls = 20 if subject.settings.profile == "smoke" else CALLS
    check = partial(check_output, subject, case=case)
    same_every_time(repeated(subject, case), check, (2 * right.limit).to(subject.device), calls)


def repeated(subject: Subject, case: Case) -> Callable[[], Tensor]:
    """A call without the guards, which are for one thread and one call at a time."""
    arguments = subject.arguments(case).values()
    return lambda: subject.implementation(*arguments)
