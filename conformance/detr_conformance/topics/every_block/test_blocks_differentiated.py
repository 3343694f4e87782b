"""What every block is held to: whose gradients come back, when, and how large. Clauses: BLK-18 to BLK-21, BLK-32."""

from __future__ import annotations

import torch
from torch import nn

from detr_conformance.harness.block import by_name, calling, expectations, leaves_of, make, run
from detr_conformance.harness.case import Case, lay_out
from detr_conformance.harness.mismatch import Raised, expect
from detr_conformance.harness.second_order import right_or_refused
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.every_block.cases.other_numbers import other_numbers
from detr_conformance.topics.every_block.cases.representative import one, representative
from detr_conformance.topics.every_block.checks import MODELS, asks_for_gradients, compare_gradients, plain

OPERATIONS = BLOCKS
FULL = ("float64", "float32")
POWERS = {"float16": (-2, 2)}  # more leaves its range


@covers("BLK-18", cases=representative, feature="backward", plain=plain)
def test_gradients_while_training(subject: Subject, case: Case) -> None:
    made = make(subject, case)
    if not isinstance(made, nn.Module) or not asks_for_gradients(subject, case):
        return
    right = expectations(subject, case)
    compare_gradients(subject, run(subject, case, made.train()).gradients, right, "while training")
    compare_gradients(subject, run(subject, case, made.eval()).gradients, right, "in evaluation after training")


@covers("BLK-19", cases=one, feature="backward", plain=plain)
def test_arguments_that_are_no_leaves(subject: Subject, case: Case) -> None:
    """As in any network: what a block is given was computed, and may be changed before the backward pass."""
    right = expectations(subject, case)
    for changed in (False, True):
        made = make(subject, case)
        bound, inputs = calling(subject, made, case)
        arguments = bound.arguments(inputs)
        leaves = leaves_of(subject, made, case, arguments)
        given = arguments.keys() & leaves.keys()
        if not given:
            return
        computed = arguments | {name: leaves[name] * 1 for name in given}
        output = bound.call(computed)
        if changed:
            for name in given:
                computed[name].add_(1)
        try:
            gradients = by_name(bound.pull_back(output, case["grad_output"].to(subject.device), leaves))
        except Raised:
            if changed:
                return  # torch itself notices that what it needs is gone
            raise
        what = "after the arguments were changed" if changed else "of arguments that are no leaves"
        compare_gradients(subject, gradients, right, what)


@covers("BLK-20", cases=one, feature="backward", plain=plain)
def test_two_calls_in_flight(subject: Subject, case: Case) -> None:
    """Forward twice with other numbers, then pull back the first, then the second."""
    made = make(subject, case)
    flying = []
    for tried in (case, other_numbers(subject.operation, case)):
        bound, inputs = calling(subject, made, tried)
        arguments = bound.arguments(inputs)
        leaves = leaves_of(subject, made, tried, arguments)
        if not leaves:
            return
        flying.append((bound, tried, leaves, bound.call(arguments)))
    for which, (bound, tried, leaves, output) in zip(("first", "second"), flying, strict=True):
        gradients = by_name(bound.pull_back(output, tried["grad_output"].to(subject.device), leaves))
        compare_gradients(subject, gradients, expectations(subject, tried), f"of the {which} of two calls in flight")


@covers("BLK-21", cases=one, feature="backward", plain=plain)
def test_gradients_of_any_scale(subject: Subject, case: Case) -> None:
    """A loss scaler multiplies by powers of two, and looks for what is not finite."""
    if not asks_for_gradients(subject, case):
        return
    right = expectations(subject, case)
    for power in POWERS.get(subject.dtype, (-24, 24)):
        gradients = run(subject, case.having(grad_output=case["grad_output"] * 2.0**power)).gradients
        scaled = {name: None if g is None else g * 2.0**-power for name, g in gradients.items()}
        compare_gradients(subject, scaled, right, f"of an incoming gradient times 2^{power}, scaled back")
    poisoned = case["grad_output"].clone()
    poisoned.view(-1)[0] = torch.nan
    seen = run(subject, case.having(grad_output=lay_out(poisoned, "contiguous"))).gradients
    reached = [name for name, gradient in seen.items() if gradient is not None and gradient.isnan().any()]
    if any(bool((each.expected != 0).any()) for name, each in right.items() if name != "output"):
        expect(bool(reached), "a NaN in the incoming gradient shows in no gradient", where="grad_output")


@covers("BLK-32", cases=one, feature="backward", dtypes=FULL, once=True, plain=plain)
def test_second_derivatives(subject: Subject, case: Case) -> None:
    """Not of whole models: nobody penalises the gradients of these."""
    if subject.operation not in MODELS and asks_for_gradients(subject, case):
        right_or_refused(subject, case)
