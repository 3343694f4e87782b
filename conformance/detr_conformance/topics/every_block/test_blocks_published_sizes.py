"""Every block at the sizes of published models, and beyond any table of fixed size. Clauses: BLK-30, BLK-14."""

from __future__ import annotations

import torch
from torch import nn

from detr_conformance.harness.block import compare_result, expectations, forward, make, run
from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.subject import Result, Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.every_block.cases.published import PUBLISHED, published
from detr_conformance.topics.every_block.checks import asks_for_gradients, is_module, ordinary, plain

OPERATIONS = tuple(PUBLISHED)
RARER = 4.0
RARER_IN_HALF = 1.5


@covers("BLK-30", cases=published, once=True, costly=True, plain=ordinary)
def test_published_sizes(subject: Subject, case: Case) -> None:
    """Among a million elements some are further off than among a hundred, and this is no question of precision.
    Whoever chooses a path by size may choose it by mode as well."""
    asked = asks_for_gradients(subject, case) or is_module(subject)
    backward = subject.backward and asked and PUBLISHED[subject.operation].smooth
    result = run(subject, case) if backward else Result(forward(subject, case))
    right = expectations(subject, case, backward=backward)
    wide = {name: Expectation(each.expected, RARER * each.limit) for name, each in right.items()}
    compare_result(subject, result, wide if backward else {"output": wide["output"]})
    output, made = wide["output"], make(subject, case)
    with torch.no_grad():
        subject.compare("output under no_grad", forward(subject, case, made), output.expected, output.limit)
    if isinstance(made, nn.Module):
        got = forward(subject, case, made.train())
        subject.compare("output while training", got, output.expected, output.limit)


def first_of_a_module(subject: Subject) -> list[Case]:
    return [next(published(subject))] if is_module(subject) else []


@covers("BLK-14", cases=first_of_a_module, feature="autocast", dtypes=("float32",), costly=True, plain=plain)
def test_autocast_at_published_sizes(subject: Subject, case: Case) -> None:
    """What the reference keeps in float32 while it is in bfloat16 stays so: sums of many small numbers."""
    right = expectations(subject, case, backward=False, dtype="bfloat16", precise=True)["output"]
    with torch.autocast(subject.device, dtype=torch.bfloat16), torch.no_grad():
        output = forward(subject, case)
    subject.compare("output", output, right.expected, RARER_IN_HALF * right.limit)
