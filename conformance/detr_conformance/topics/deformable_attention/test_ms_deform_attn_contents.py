"""What the arguments hold, and what is around the call. Clauses: MSDA-44, MSDA-62, MSDA-63, MSDA-66 and MSDA-67."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.case import Case, LazyCases
from detr_conformance.harness.mismatch import plainly
from detr_conformance.harness.subject import Result, Subject, explained
from detr_conformance.harness.suite_test import covers
from detr_conformance.isolation import ambient
from detr_conformance.topics.deformable_attention.cases.contents import STRUCTURE, contents
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, everywhere, inside
from detr_conformance.topics.deformable_attention.checks.agreement import (
    GRADIENTS,
    check_gradients,
    check_output,
    ordinary,
    whole,
)
from detr_conformance.topics.every_block.checks import in_two_threads, nothing_kept

OPERATION = "ms_deform_attn"
OFTEN = 20


@covers("MSDA-66", cases=contents, once=True, costly=True, plain=ordinary)
def test_contents_of_models(subject: Subject, case: Case) -> None:
    whole(subject, case)
    with torch.no_grad():
        check_output(subject, subject.forward(case), case)


# -- what is around a call ------------------------------------------------------------------------------------


def surroundings(subject: Subject) -> LazyCases:
    return LazyCases(
        [partial(case_at, subject, replace(STRUCTURE, queries=70), everywhere, note=note) for note in AROUND]
    )


THREADS = (1, 2, 3, 5, 6, 7)
AROUND: dict[str, Callable[[], Any]] = {
    **{f"{n} threads": partial(torch.set_num_threads, n) for n in THREADS},
    **{f"{dtype} by default": partial(torch.set_default_dtype, dtype) for dtype in (torch.float64, torch.bfloat16)},
    "deterministic algorithms": partial(torch.set_deterministic_debug_mode, "warn"),
}


@covers("MSDA-67", cases=surroundings, once=True, plain=ordinary)
def test_surroundings(subject: Subject, case: Case) -> None:
    with ambient.kept():
        AROUND[case.note]()
        result = subject.run(case) if subject.backward else Result(subject.forward(case))
    check_output(subject, result.output, case)
    if subject.backward:
        check_gradients(subject, result.gradients, case)


# -- over time ------------------------------------------------------------------------------------------------


def of_models(subject: Subject) -> list[Case]:
    return [case_at(subject, STRUCTURE, everywhere, note="again and again")]


@covers("MSDA-63", cases=of_models, feature="backward", once=True, costly=True)
def test_tens_of_larger_calls(subject: Subject, case: Case) -> None:
    """Calls that are timed before they are chosen between, and graphs that nobody frees."""
    other = case_at(subject, STRUCTURE, everywhere, note="other numbers between")
    with plainly():
        whole(subject, case)
    with nothing_kept(f"{OFTEN} calls and backward passes"):
        for _ in range(OFTEN):
            subject.run(other)  # which must not change what the last call gave
            result = subject.run(case)
        check_output(subject, result.output, case)
        check_gradients(subject, result.gradients, case)
        del result
        subject.drop_held()


def of_any_size(subject: Subject) -> list[Case]:
    return [case_at(subject, Structure(((2, 2),), 1, 1, 1, 1, 1), inside, note="one size after another")]


@covers("MSDA-63", cases=of_any_size, once=True, costly=True)
def test_hundreds_of_sizes(subject: Subject, case: Case) -> None:
    """What is kept for a size may be kept for the last so many, not for all that ever came."""
    of_sizes(subject, range(1, 31))
    with nothing_kept("300 further sizes"):
        of_sizes(subject, range(31, 61))


def of_sizes(subject: Subject, heights: range) -> None:
    for height in heights:
        for width in range(1, 11):
            sized = case_at(subject, Structure(((height, width),), 1, 1, 1, 1, 1), inside, note="of any size")
            with torch.no_grad():
                subject.forward(sized)
            subject.drop_held()


@covers("MSDA-62", cases=of_models, feature="backward", once=True, plain=ordinary)
def test_backward_in_threads(subject: Subject, case: Case) -> None:
    cases = [case_at(subject, STRUCTURE, everywhere, which, note="in a thread") for which in (1, 2)]
    with explained("backward in a thread"):
        found = in_two_threads([gradients_of(subject, own) for own in cases], 5, differentiated=True)
    for several, own in zip(found, cases, strict=True):
        for gradients in several:
            check_gradients(subject, dict(zip(GRADIENTS, gradients, strict=True)), own)


def gradients_of(subject: Subject, case: Case) -> Callable[[], tuple[Tensor, ...]]:
    """A call and its backward pass without the guards, which are for one thread."""
    arguments = subject.arguments(case)
    inputs = [arguments[name].requires_grad_() for name in GRADIENTS]
    incoming = case["grad_output"].to(subject.device)
    return lambda: torch.autograd.grad(subject.implementation(*arguments.values()), inputs, incoming)


# -- as projections lay arguments out -------------------------------------------------------------------------


@covers("MSDA-44", cases=lambda subject: [case_at(subject, Structure(), inside, note="of a projection")], plain=whole)
def test_views_of_projections(subject: Subject, case: Case) -> None:
    """Values with the heads first, and one of several layers; offsets and weights cut out of one projection."""
    for view in (heads_first, one_of_three, beside_another):
        arguments = subject.arguments(case)
        given = arguments | {name: view(arguments[name]) for name in GRADIENTS}
        check_output(subject, subject.call(given), case)
        if subject.backward:
            inputs = {name: given[name].requires_grad_() for name in GRADIENTS}
            incoming = case["grad_output"].to(subject.device)
            check_gradients(subject, subject.pull_back(subject.call(given), incoming, inputs), case)


def heads_first(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def one_of_three(tensor: Tensor) -> Tensor:
    """The middle third of what a wider projection gives, cut along the heads."""
    return torch.cat((tensor + 1, tensor, tensor - 1), 2)[:, :, tensor.shape[2] : 2 * tensor.shape[2]]


def beside_another(tensor: Tensor) -> Tensor:
    """Each head's numbers beside others of the same head."""
    return torch.cat((tensor, tensor[..., :1, :] - 1), -2)[..., : tensor.shape[-2], :]
