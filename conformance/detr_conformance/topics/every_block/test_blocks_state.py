"""What every block is held to: nothing is kept and nothing left behind. Clauses: BLK-6 to BLK-8, BLK-31."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from detr_conformance.harness.block import (
    agrees,
    calling,
    expectations,
    forward,
    make,
    parameters_by_name,
    parameters_if_named,
    run,
)
from detr_conformance.harness.block_case import inputs_of, parameters_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.detectors.cases.regimes import frozen_otherwise
from detr_conformance.topics.every_block.cases.dropping import with_dropout
from detr_conformance.topics.every_block.cases.other_numbers import other_numbers, other_parameters
from detr_conformance.topics.every_block.cases.representative import representative
from detr_conformance.topics.every_block.checks import MODELS, asks_for_gradients, is_module, plain, plain_output

OPERATIONS = BLOCKS


@covers("BLK-6", cases=representative, plain=plain_output)
def test_no_memory_of_the_past(subject: Subject, case: Case) -> None:
    """One module; its inputs change in place, then its parameters do, then the first call comes again."""
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    storage = bound.arguments(inputs)
    numbers, parameters = other_numbers(subject.operation, case), other_parameters(subject.operation, case)
    own = (parameters_if_named(subject, made, case) if is_module(subject) else None) or {}
    last = (parameters, "new parameters") if own else (case, "first again")
    for tried, what in ((case, "first"), (numbers, "new numbers in the same storage"), last):
        with torch.no_grad():
            for name, tensor in inputs_of(subject.operation, tried).items():
                storage[name].copy_(tensor)
            if tried is parameters:
                _load(own, tried)
            output = bound.call(storage)
            bound.drop_held()
        right = expectations(subject, tried, backward=False)["output"]
        subject.compare(f"output ({what})", output, right.expected, right.limit)


def _load(own: Mapping[str, tuple[Tensor, ...]], case: Case) -> None:
    """Overwrites a module's parameters in place, as an optimiser does."""
    for name, parts in own.items():
        values = parameters_of(case)[name].split([part.shape[0] for part in parts])
        for part, value in zip(parts, values, strict=True):
            part.copy_(value.to(part))


@covers("BLK-7", cases=with_dropout, feature="deterministic", plain=plain)
def test_deterministic(subject: Subject, case: Case) -> None:
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(1)
        first = forward(subject, case)
        torch.manual_seed(2)
        subject.compare_exactly("output of the second call", forward(subject, case), first.detach())
        if subject.backward and asks_for_gradients(subject, case):
            one, two = run(subject, case), run(subject, case)
            for name, gradient in one.gradients.items():
                if gradient is not None:
                    again = subject.gradient(name, two.gradients)
                    subject.compare_exactly(f"grad_{name} of the second call", again, gradient)
    finally:
        torch.random.set_rng_state(state)
    agrees(subject, case)


@covers("BLK-8", cases=with_dropout, plain=plain_output)
def test_no_side_effects(subject: Subject, case: Case) -> None:
    """`Subject.call` compares the modes around each call."""
    made = make(subject, case)
    before = torch.random.get_rng_state()
    forward(subject, case, made)
    expect(torch.equal(before, torch.random.get_rng_state()), "the call drew random numbers", where="global state")


def with_parameters_of_their_own(subject: Subject) -> list[Case]:
    """Complete calls; of whole models also backbones that are frozen otherwise."""
    frozen = frozen_otherwise(subject) if subject.operation in MODELS else []
    return [*representative(subject), *frozen]


@covers("BLK-31", cases=with_parameters_of_their_own, feature="backward", once=True)
def test_trained_parameters(subject: Subject, case: Case) -> None:
    """Also of a new module, while training and after it; `requires_grad` and registration say what is trained."""
    made = make(subject, case) if is_module(subject) else None
    if not isinstance(made, nn.Module):
        return
    trained_as_the_reference(subject, made, case, "a new module")
    made.train()
    trained_as_the_reference(subject, made, case, "a module in training mode")
    forward(subject, case, made)
    trained_as_the_reference(subject, made, case, "a module that was called")
    made.eval()
    trained_as_the_reference(subject, made, case, "a module that was trained")


def trained_as_the_reference(subject: Subject, made: nn.Module, case: Case, what: str) -> None:
    """By storage, since a module may have its parameters in other parts, under other names, or some of them twice."""
    registered = {storage_of(tensor): name for name, tensor in made.named_parameters() if tensor.requires_grad}
    wanted = parameters_by_name(subject.operation, made, case)
    for name, parts in wanted.items():
        for part in parts:
            expect(
                storage_of(part) in registered,
                f"{what} does not train {name}, or an optimiser does not see it",
                where=name,
                expected="a parameter of the module that requires a gradient",
            )
    known = {storage_of(part) for parts in wanted.values() for part in parts}
    others = sorted(name for storage, name in registered.items() if storage not in known)
    expect(
        not others,
        f"{what} trains {', '.join(others)}, which the reference has not or freezes",
        where=others[0] if others else None,
        expected="no other trained parameter",
        got=", ".join(others),
    )


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
