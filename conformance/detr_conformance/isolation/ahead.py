"""Many calls for one message: what is elsewhere may be asked for the next calls too, where they are the same one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

AT_ONCE = 500  # calls in one message
BYTES_AT_ONCE = 1 << 22

_ahead = threading.local()


@contextmanager
def ahead(times: int) -> Iterator[None]:
    """The next so many calls are the same one: what is elsewhere may do many of them for one message."""
    _ahead.left, _ahead.bytes, _ahead.results = times, None, deque()
    try:
        yield
    finally:
        _ahead.left, _ahead.results = 1, deque()


def prepared() -> deque[Any]:
    """Results that are there already."""
    found: deque[Any] = getattr(_ahead, "results", deque())
    return found


def next_times() -> int:
    """How many calls the next message should ask for."""
    left, size = getattr(_ahead, "left", 1), getattr(_ahead, "bytes", None)
    if left <= 1:
        return 1
    return max(2, min(left, 20 if size is None else AT_ONCE, AT_ONCE if not size else int(BYTES_AT_ONCE / size)))


def first_of(results: list[Any]) -> Any:
    """The first of several results; the others are kept for the calls that follow."""
    _ahead.results = deque(results)
    _ahead.left -= len(results)
    _ahead.bytes = sum(each.numel() * each.element_size() for each in _tensors(results)) / len(results)
    return _ahead.results.popleft()


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    values = result.values() if isinstance(result, Mapping) else result if isinstance(result, list | tuple) else ()
    return [tensor for each in values for tensor in _tensors(each)]
