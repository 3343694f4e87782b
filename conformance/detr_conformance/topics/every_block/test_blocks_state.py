"""What every block is held to: nothing is kept and nothing left behind. Clauses: BLK-6 to BLK-8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import torch
from torch import Tensor

from detr_conformance import operations
from detr_conformance.harness.block import agrees, calling, expectations, forward, make, parameters_if_named, run
from detr_conformance.harness.block_case import inputs_of, parameters_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.every_block.cases.other_numbers import other_numbers, other_parameters
from detr_conformance.topics.every_block.cases.representative import representative
from detr_conformance.topics.every_block.checks import asks_for_gradients, is_module

OPERATIONS = BLOCKS
DROPOUTS = ("attn_drop", "proj_drop", "ffn_drop", "dropout")


@covers("BLK-6", cases=representative)
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


def with_dropout(subject: Subject) -> list[Case]:
    """Complete calls, where there is dropout at a probability that would show."""
    config = operations.OPERATIONS[subject.operation].config
    cases = representative(subject)
    if config is None:
        return cases
    drops = [field.name for field in fields(operations.resolve(config)) if field.name in DROPOUTS]
    return [replace(case, options=case.options | dict.fromkeys(drops, "0.5")) for case in cases]


@covers("BLK-7", cases=with_dropout, feature="deterministic")
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


@covers("BLK-8", cases=with_dropout)
def test_no_side_effects(subject: Subject, case: Case) -> None:
    """`Subject.call` compares the modes around each call."""
    made = make(subject, case)
    before = torch.random.get_rng_state()
    forward(subject, case, made)
    expect(torch.equal(before, torch.random.get_rng_state()), "the call drew random numbers", where="global state")
