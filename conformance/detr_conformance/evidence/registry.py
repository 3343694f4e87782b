"""Wrong implementations (mutants) and right ones written differently (twins): what they are, and their names.

A mutant is evidence for the clause it declares: right in everything else, so that a suite which accepts it
does not test that clause. A twin is evidence that the limits are not too tight.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from detr_conformance.operations import OPERATIONS
from detr_conformance.stages import STAGES
from detr_conformance.target import DTYPES, Target

Implementation = TypeVar("Implementation", bound=Callable[..., Any])

DEFAULT_FEATURES = ("backward", "deterministic", "autocast")
# Where the clauses of a prefix are about one operation, a mutant need not name it.
OPERATION_OF_PREFIX = {
    "MSDA": "ms_deform_attn",
    "MSDM": "ms_deform_attn_module",
    "MHA": "multihead_attention",
    "VIT": "vit",
}


@dataclass(frozen=True)
class Twin:
    """A right implementation, written differently from the reference.

    Attributes:
        name: unique among twins and mutants.
        operation: the operation it implements.
        origin: where this way of writing is found.
        summary: first line of its docstring.
        module: where it is written.
        build: returns what `Target.provides` holds for the operation; a new one each time, because some keep state.
        dtypes: claimed dtypes.
        features: claimed features.
        stages: whether the stages of a whole model can be read off its modules.
    """

    name: str
    operation: str
    origin: str
    summary: str
    module: str
    build: Callable[[], Callable[..., Any]]
    dtypes: tuple[str, ...] = DTYPES
    features: tuple[str, ...] = DEFAULT_FEATURES
    stages: bool = True


@dataclass(frozen=True, kw_only=True)
class Mutant(Twin):
    """A wrong implementation; `rejects` is the id of the clause that must reject it."""

    rejects: str


MUTANTS: dict[str, Mutant] = {}
TWINS: dict[str, Twin] = {}


def mutant(
    name: str,
    *,
    rejects: str,
    origin: str,
    operation: str | None = None,
    features: tuple[str, ...] = DEFAULT_FEATURES,
) -> Callable[[Implementation], Implementation]:
    """Registers the decorated class or function as a mutant.

    A class stands for its instances where the operation is a function, and for the factory
    `(config, state_dict) -> module` where it is a module.

    Raises:
        ValueError: the name is taken, or the operation is unknown.
    """
    about = operation or OPERATION_OF_PREFIX.get(rejects.partition("-")[0])
    if about not in OPERATIONS:
        raise ValueError(f"mutant {name!r} of clause {rejects!r} must say operation=, one of {sorted(OPERATIONS)}")

    def register(implementation: Implementation) -> Implementation:
        _claim(name)
        MUTANTS[name] = Mutant(
            name=name,
            operation=about,
            rejects=rejects,
            origin=origin,
            summary=_summary(implementation),
            module=implementation.__module__,
            build=_builder(about, implementation),
            features=features,
        )
        return implementation

    return register


def twin(
    name: str,
    *,
    origin: str,
    operation: str = "ms_deform_attn",
    features: tuple[str, ...] = DEFAULT_FEATURES,
    stages: bool = True,
) -> Callable[[Implementation], Implementation]:
    """Registers the decorated class or function as a twin.

    Raises:
        ValueError: the name is taken.
    """

    def register(implementation: Implementation) -> Implementation:
        _claim(name)
        TWINS[name] = Twin(
            name=name,
            operation=operation,
            origin=origin,
            summary=_summary(implementation),
            module=implementation.__module__,
            build=_builder(operation, implementation),
            features=features,
            stages=stages,
        )
        return implementation

    return register


def as_target(written: Twin) -> Target:
    """A mutant or twin as a target like anybody's, without the state of earlier ones."""
    return Target(
        name=written.name,
        provides={written.operation: written.build()},
        devices=("cpu",),
        dtypes=written.dtypes,
        features=written.features,
        stages=STAGES.get(written.operation) if written.stages else None,
    )


def _claim(name: str) -> None:
    if name in MUTANTS or name in TWINS:
        raise ValueError(f"two mutants or twins are called {name!r}; names are unique")


def _summary(implementation: Callable[..., Any]) -> str:
    return (inspect.getdoc(implementation) or "").partition("\n\n")[0].replace("\n", " ")


def _builder(operation: str, implementation: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    if isinstance(implementation, type) and OPERATIONS[operation].kind == "function":
        return implementation
    return lambda: implementation
