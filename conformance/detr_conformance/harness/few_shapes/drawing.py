"""How cases are drawn: structure and contents. Under few shapes structures are rounded to some, and contents vary."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from detr_conformance.harness.case import LAYOUTS

STRUCTURES = 3  # of each way to draw: the smallest one and two others

_rounding: ContextVar[int | None] = ContextVar("rounding", default=None)  # the seed of the structures
_contents: WeakSet[st.SearchStrategy[Any]] = WeakSet()

P = ParamSpec("P")
T = TypeVar("T")


def contents(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Marks what changes no shape and no setting of a call, and is drawn anew also where structures are rounded."""
    _contents.add(strategy)
    return strategy


SEEDS = contents(st.integers(0, 2**16))
ANY_LAYOUT = contents(st.sampled_from(LAYOUTS))


@contextmanager
def rounded(seed_value: int | None) -> Iterator[None]:
    """Within, structures are rounded to few, the same for all tests; None leaves them as they are drawn."""
    token = _rounding.set(seed_value)
    try:
        yield
    finally:
        _rounding.reset(token)


def composite(function: Callable[Concatenate[st.DrawFn, P], T]) -> Callable[P, st.SearchStrategy[T]]:
    """Hypothesis' `composite`; under few shapes all that is drawn but contents comes from one of few recorded draws."""
    plain = st.composite(function)

    def strategy(*arguments: P.args, **named: P.kwargs) -> st.SearchStrategy[T]:
        seed_value = _rounding.get()
        if seed_value is None:
            return plain(*arguments, **named)

        def build(draw: Callable[..., Any]) -> T:
            with rounded(None):  # what it draws from is a part of its structure
                return function(draw, *arguments, **named)  # type: ignore[arg-type]

        return _as_recorded(build, _recorded(build, seed_value))

    return strategy


def _recorded(build: Callable[[Callable[..., Any]], Any], seed_value: int) -> list[list[Any]]:
    """What some runs draw, but for contents."""
    found: list[list[Any]] = []

    def record(data: Any) -> None:
        drawn: list[Any] = []

        def draw(strategy: st.SearchStrategy[Any]) -> Any:
            value = data.draw(strategy)
            if strategy not in _contents:
                drawn.append(copy.deepcopy(value))
            return value

        build(draw)
        found.append(drawn)

    settings(
        max_examples=STRUCTURES,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )(seed(seed_value)(given(st.data())(record)))()
    return found


def _as_recorded(build: Callable[[Callable[..., Any]], T], recorded: list[list[Any]]) -> st.SearchStrategy[T]:
    @st.composite
    def chosen(draw: st.DrawFn) -> T:
        values = copy.deepcopy(draw(st.sampled_from(recorded)))

        def again(strategy: st.SearchStrategy[Any]) -> Any:
            # contents may ask for more than those that were recorded did
            return draw(strategy) if strategy in _contents or not values else values.pop(0)

        return build(again)

    return chosen()
