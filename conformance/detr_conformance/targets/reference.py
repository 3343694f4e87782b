"""The reference as a target: it must pass its own suite, or one of the two is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.stages import STAGES
from detr_conformance.target import DTYPES, Target


def reference(operation: str) -> Callable[..., Any]:
    """The reference's callable for an operation, imported when it is first called."""
    imported: list[Callable[..., Any]] = []  # not functools.cache, which torch.compile cannot look into

    def call(*arguments: Any, **settings: Any) -> Any:
        if not imported:
            imported.append(resolve(OPERATIONS[operation].reference))
        return imported[0](*arguments, **settings)

    call.__name__ = operation
    return call


target = Target(
    name="reference",
    provides={operation: reference(operation) for operation in OPERATIONS},
    devices=("cpu", "cuda"),
    dtypes=DTYPES,
    features=("backward", "deterministic", "compile", "autocast", "export"),
    stages={name: path for stages in STAGES.values() for name, path in stages.items()},
)
