"""What tests ask of any block and of its cases."""

from __future__ import annotations

from detr_conformance import operations
from detr_conformance.harness.block import differentiable
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject


def is_module(subject: Subject) -> bool:
    return operations.OPERATIONS[subject.operation].kind == "module"


def asks_for_gradients(subject: Subject, case: Case) -> bool:
    """Some blocks take a mask and have no parameter: nothing is differentiable there."""
    return any(differentiable(subject.operation, name, t) for name, t in case.tensors.items() if name != "grad_output")
