"""Whether a property asks for more than comparisons, read from its code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

PACKAGE = "detr_conformance."
# Each raises where something is wrong that is no comparison.
DEMANDS = frozenset({"expect", "expect_share", "Mismatch", "raises"})
STAGES = "stages_agree"
# Their own guards stand around every call alike, and are nothing that a property asks for.
GUARDS = tuple(f"{PACKAGE}harness.{name}" for name in ("block", "block_case", "case", "mismatch", "packing", "subject"))


def asks_for_more(property: Callable[..., Any]) -> bool:
    """Whether it, or what it calls of the suite, names something that raises by itself."""
    assert isinstance(property, FunctionType)
    return any(DEMANDS & set(names) for names in _names(property, set()))


def asks_for_stages(property: Callable[..., Any]) -> bool:
    """Whether it compares the stages of a whole model."""
    return STAGES in property.__code__.co_names


def _names(function: FunctionType, seen: set[int]) -> Iterator[tuple[str, ...]]:
    seen.add(id(function))
    for code in _codes(function.__code__):
        yield code.co_names
        for name in code.co_names:
            called = function.__globals__.get(name)
            if isinstance(called, FunctionType) and id(called) not in seen and _is_of_the_suite(called):
                yield from _names(called, seen)


def _is_of_the_suite(function: FunctionType) -> bool:
    return function.__module__.startswith(PACKAGE) and not function.__module__.startswith(GUARDS)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
