"""What a model predicts in training mode, all of its outputs, beside the reference in that mode."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from detr_conformance.harness.block import seeded
from detr_conformance.harness.block_case import call_with, inputs_of, reference_callable
from detr_conformance.harness.case import Case, mixed_seed
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.random_rounding import spread
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.detectors.checks.models import trained_outputs

RUNS, DEVIATIONS = 4, 16.0  # as chapter 3 has them for clauses that are not about accuracy


def agrees_in_training(subject: Subject, case: Case, names: Iterable[str] | None = None) -> None:
    """All outputs that the reference has in training, or those of these names; the case must draw nothing random."""
    right = expected_in_training(subject, case)
    found = trained_outputs(subject, case)
    for name in right if names is None else names:
        expect(name in found, f"in training there is no {name}", where=name, got=", ".join(found))
        subject.compare(name, found[name], right[name].expected, right[name].limit)


def expected_in_training(subject: Subject, case: Case) -> dict[str, Expectation]:
    """What is right in training mode, in float64, and how far roundings of float32 lead away."""
    right = _in_training(subject, case, torch.float64)
    seed = mixed_seed(case.note, "training") >> 8
    spreads = spread(
        lambda: _in_training(subject, case, torch.float32), right, runs=RUNS, seed=seed, coarsest=torch.float32
    )
    unit, tiny = torch.finfo(torch.float32).eps, torch.finfo(torch.float32).tiny
    return {
        name: Expectation(expected, DEVIATIONS * spreads[name] + unit * expected.abs() + tiny)
        for name, expected in right.items()
    }


def _in_training(subject: Subject, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    inputs = {n: t.to(dtype) if t.is_floating_point() else t for n, t in inputs_of(subject.operation, case).items()}
    made = reference_callable(subject.operation, case, dtype)
    assert isinstance(made, nn.Module)
    with torch.no_grad(), seeded(subject):
        found: dict[str, Tensor] = call_with(subject.operation, made.train(), inputs)
    return found
