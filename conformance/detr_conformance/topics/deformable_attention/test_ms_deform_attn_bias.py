"""Errors of `ms_deform_attn` taken together. Clause: MSDA-64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.core import Structure, make_case, structure_of, to_locations
from detr_conformance.topics.deformable_attention.checks.agreement import GRADIENTS, ordinary, rounding_of
from detr_conformance.topics.deformable_attention.checks.bias import unbiased, within
from detr_conformance.topics.deformable_attention.checks.oracle import expectations

OPERATION = "ms_deform_attn"
SIDES = ((16, 16), (8, 16), (16, 4), (8, 8))  # powers of two, on which quarters of cells are exact in every dtype


def many_elements(subject: Subject) -> Iterator[Case]:
    """Exact coordinates, and numbers of one sign, so that errors come from products and sums alone and show."""
    few = Structure(SIDES[:2], batch=2, queries=1_000, heads=4, channels=8, points=2)
    for s in (few, Structure(SIDES, batch=1, queries=300, heads=8, channels=33, points=4)):
        fill = Filler(subject.dtype, subject.settings.seed, "bias", s)
        pixels = torch.floor(fill.uniform(0, 1, *s.samples, 2) * (s.sizes() + 1)) - 1
        yield make_case(
            fill,
            s,
            locations=to_locations(pixels + fill.integers(1, 3, *s.samples, 2) / 4, s),
            weights=fill.uniform(0.5, 1.5, *s.samples),
            value=fill.uniform(0.5, 1.5, s.batch, s.cells, s.heads, s.channels),
            grad_output=fill.uniform(0.5, 1.5, s.batch, s.queries, s.heads * s.channels),
            note="many errors together",
        )


@covers("MSDA-64", cases=many_elements, dtypes=("float32", "float16", "bfloat16"), plain=ordinary)
def test_errors_have_no_direction(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    require(s.batch * s.queries * s.heads >= 2_000, "too few elements for a mean")
    together = {"output": s.channels, "grad_value": s.channels, "grad_sampling_locations": 2}
    if subject.backward:
        result = subject.run(case)
        found = {f"grad_{name}": subject.gradient(name, result.gradients) for name in GRADIENTS}
        found["output"] = result.output
    else:
        found = {"output": subject.forward(case)}
    # Coordinates are exact here, however they are computed.
    strict, loose = (
        expectations(case, replace(rounding_of(subject, precise), coordinates=0.0), subject.backward)
        for precise in (True, False)
    )
    for name, got in found.items():
        # Where half dtypes are computed in themselves, other clauses say so; the mean is judged by as much.
        right = strict[name] if within(got, strict[name]) else loose[name]
        unbiased(subject, name, got, right, together.get(name, 1))
