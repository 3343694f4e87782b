"""The reference as a target: it must pass its own suite, or one of the two is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.stages import TABLES
from detr_conformance.target import DTYPES, Target
from detr_conformance.targets.lazily import when_called


def reference(operation: str) -> Callable[..., Any]:
    """The reference's callable for an operation, imported when it is first called."""
    return when_called(operation, lambda: resolve(OPERATIONS[operation].reference))


target = Target(
    name="reference",
    provides={operation: reference(operation) for operation in OPERATIONS},
    devices=("cpu", "cuda"),
    dtypes=DTYPES,
    features=("backward", "deterministic", "compile", "autocast", "export"),
    stages={name: path for table in TABLES for stages in table.values() for name, path in stages.items()},
)
