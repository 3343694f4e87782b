"""Callables that are imported when they are first called, so that a target loads without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def when_called(name: str, load: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    """What `load` returns, under this name; it is loaded once, at the first call."""
    loaded: list[Callable[..., Any]] = []  # not functools.cache, which torch.compile cannot look into

    def call(*arguments: Any, **settings: Any) -> Any:
        if not loaded:
            loaded.append(load())
        return loaded[0](*arguments, **settings)

    call.__name__ = name
    return call
