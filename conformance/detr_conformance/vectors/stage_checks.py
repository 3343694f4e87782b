"""What the stages of a whole model compute in a call, as further results of its vector."""

from __future__ import annotations

import torch

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.staging.expectations import stage_expectations
from detr_conformance.vectors.provenance import Judged
from detr_conformance.vectors.tape import Tape
from detr_conformance.vectors.vector import STAGE, Vector


def stage_vector(subject: Subject, tape: Tape, case: Case, test: str) -> Vector:
    """The call of the model, with the numbers of every stage, one call of a stage after the other."""
    (call,) = tape.calls
    call.unlike = None  # hooks read under no_grad, which changes no number
    vector = Vector(subject.operation, subject.dtype, call, [case.note] if case.note else [])
    for name, right, _ in stage_expectations(subject, case):
        result = f"{STAGE}{name}"
        if result not in call.results:
            call.results[result] = torch.zeros(right.expected.shape, dtype=subject.torch_dtype)
            every = torch.arange(right.expected.numel())
            vector.ask([Judged((0, result), every, right.expected, right.limit)], test)
    return vector
