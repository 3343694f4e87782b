"""What every block is held to over many calls: sizes, copies, errors, threads, thousands. Clauses: BLK-22 to BLK-25."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance import operations
from detr_conformance.harness.block import calling, expectations, forward, leaves_of, make, run
from detr_conformance.harness.block_case import call_with
from detr_conformance.harness.case import Case
from detr_conformance.harness.packing import packed
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.harness.suite_test import covers
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.every_block.cases.images import batches
from detr_conformance.topics.every_block.cases.other_numbers import other_numbers, other_parameters
from detr_conformance.topics.every_block.cases.representative import one, representative
from detr_conformance.topics.every_block.checks import (
    MODELS,
    asks_for_gradients,
    compare_gradients,
    in_two_threads,
    nothing_kept,
    plain,
    right_after,
    same_every_time,
)

OPERATIONS = BLOCKS
STEPS = 12  # a tensor that each leaves behind is more than those that come and go


def separate(subject: Subject) -> bool:
    return "BLK-17" not in operations.OPERATIONS[subject.operation].exempt


@covers("BLK-22", cases=one, plain=plain)
def test_one_module_for_any_call(subject: Subject, case: Case) -> None:
    """The whole batch, an image alone, other numbers, and the whole batch again, without and while training."""
    made = make(subject, case)
    alone = batches(subject, case)[-1:] if separate(subject) else []
    for tried in (case, *alone, other_numbers(subject.operation, case), case):
        right_after(subject, made, tried, "of one module in a row of calls")
    if isinstance(made, nn.Module):
        made.train()
        right_after(subject, made, case, "while training")
        made.eval()
        right_after(subject, made, case, "in evaluation after training")


@covers("BLK-22", cases=representative, feature="backward", plain=plain)
def test_training_after_inference(subject: Subject, case: Case) -> None:
    """Validation, then the next epoch: what is kept from inference mode may not be part of a graph."""
    made = make(subject, case)
    right = expectations(subject, case)
    with torch.inference_mode():
        forward(subject, case, made)
    if asks_for_gradients(subject, case):
        compare_gradients(subject, run(subject, case, made).gradients, right, "after a call in inference mode")


@covers("BLK-23", cases=one, plain=plain)
def test_copies(subject: Subject, case: Case) -> None:
    """A deep copy, and a state dict read by a new module and by a used one, compute the same and share nothing."""
    made = make(subject, case)
    right_after(subject, made, case, "before it is copied")
    if not isinstance(made, nn.Module):
        return
    copied = copy.deepcopy(made)
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
    right_after(subject, copied, case, "of a deep copy, after the original was overwritten")
    made.load_state_dict(state)
    right_after(subject, made, case, "after its state dict was loaded again")
    other = make(subject, other_parameters(subject.operation, case))
    with torch.no_grad():
        forward(subject, case, other)  # what it has packed by now is of its first parameters
    other.load_state_dict(state)
    right_after(subject, other, case, "of another module that has read the state dict")


@covers("BLK-23", cases=one, feature="backward", plain=plain)
def test_copies_between_steps(subject: Subject, case: Case) -> None:
    """While the graph of a training call is alive, and after its backward pass."""
    made = make(subject, case)
    if not isinstance(made, nn.Module) or not asks_for_gradients(subject, case):
        return
    made.train()
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    leaves = leaves_of(subject, made, case, arguments)
    output = bound.call(arguments)
    with explained("copy.deepcopy of a module between call and backward"):
        first = copy.deepcopy(made)
    bound.pull_back(output, case["grad_output"].to(subject.device), leaves)
    with explained("copy.deepcopy of a module after backward"):
        second = copy.deepcopy(made)
    for copied in (first, second):
        right_after(subject, copied.eval(), case, "of a copy made in training")


@covers("BLK-24", cases=one, once=True, plain=plain)
def test_threads(subject: Subject, case: Case) -> None:
    """Two threads with one module and other numbers."""
    made = make(subject, case)
    tries = (case, other_numbers(subject.operation, case))
    rights = [expectations(subject, tried, backward=False)["output"] for tried in tries]
    found = in_two_threads([repeated(subject, made, tried) for tried in tries], 12)
    for outputs, right in zip(found, rights, strict=True):
        for output in outputs:
            subject.compare("output in one of two threads", output, right.expected, right.limit)


def repeated(subject: Subject, made: Any, case: Case) -> Callable[[], Tensor]:
    """A call without the guards, which are for one thread and one call at a time."""
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    return lambda: packed(call_with(subject.operation, made, arguments), case.shapes)


@covers("BLK-25", cases=one, once=True, costly=True)
def test_many_calls(subject: Subject, case: Case) -> None:
    """Hundreds of calls, thousands of a function, give what the first gave, and leave nothing behind."""
    made = make(subject, case)
    right = expectations(subject, case, backward=False)["output"]

    def check(first: Tensor) -> None:
        subject.compare("output of the first call", first, right.expected, right.limit)

    same_every_time(repeated(subject, made, case), check, (2 * right.limit).to(subject.device), soak(subject))


@covers("BLK-25", cases=one, feature="backward", once=True, costly=True)
def test_many_training_steps(subject: Subject, case: Case) -> None:
    """A step is a call in training mode and its backward pass; the graph and all that it holds go with the step."""
    made = make(subject, case)
    if isinstance(made, nn.Module):
        made.train()
    elif not asks_for_gradients(subject, case):
        return
    training_step(subject, made, case)
    with nothing_kept(f"{STEPS} steps of training"):
        for _ in range(STEPS):
            training_step(subject, made, case)


def training_step(subject: Subject, made: Any, case: Case) -> None:
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    leaves = leaves_of(subject, made, case, arguments)
    output = packed(call_with(subject.operation, made, arguments), case.shapes)
    if leaves and output.requires_grad:
        grad_output = case["grad_output"].to(output)
        torch.autograd.grad(output, list(leaves.values()), grad_output, allow_unused=True)


def soak(subject: Subject) -> int:
    if subject.settings.profile == "smoke":
        return 20
    if subject.operation in MODELS:
        return 50
    operation = operations.OPERATIONS[subject.operation]
    assigns = "BLK-15" in operation.exempt  # with scipy, which takes longer than all the rest
    return 1_000 if operation.kind == "module" or assigns else 20_000
