"""A process of a data-parallel training, without the other one.

The two processes of a group run one after the other. What each contributes to the collectives is recorded and given to
the other, until both contribute what they did before: a contribution may depend on an earlier collective, as the length
of a gathered object depends on the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from detr_conformance.harness.mismatch import Mismatch, SuiteError
from detr_conformance.harness.subject import NotProvided

ROUNDS = 4


def beside_other(mine: Callable[[], Any], theirs: Callable[[], Any]) -> Any:
    """What a call returns in process 0, while process 1 makes another one; both are made several times.

    Raises:
        Mismatch: the processes do not take part in the same collectives, so that they would wait for ever.
    """
    of_theirs = _run(1, theirs, None)[1]
    for _ in range(ROUNDS):
        answer, of_mine = _run(0, mine, of_theirs)
        again = _run(1, theirs, of_mine)[1]
        settled = _same(again, of_theirs)
        of_theirs = again
        if settled:
            break
    own, other = ([tuple(tensor.shape) for tensor in each] for each in (of_mine, of_theirs))
    if own != other:
        raise Mismatch(
            f"one process takes part in collectives of the shapes {own}, the other in {other}: they would wait for "
            "ever",
            where="collectives",
            expected=str(other),
            got=str(own),
        )
    return answer()


def _run(rank: int, call: Callable[[], Any], other: list[Tensor] | None) -> tuple[Callable[[], Any], list[Tensor]]:
    """What a call comes to in one process, and what it contributes to each collective.

    While the other one's contributions are not known, zeros stand for them, at which a call may fail.
    """
    with _group(rank, other) as contributions:
        try:
            result = call()
        except Exception as error:
            return partial(_raise, error), contributions
    return lambda: result, contributions


def _raise(error: Exception) -> None:
    raise error


def _same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@contextmanager
def _group(rank: int, other: list[Tensor] | None) -> Iterator[list[Tensor]]:
    if not dist.is_available():
        raise NotProvided("this torch has no torch.distributed")
    if dist.is_initialized():
        raise SuiteError("torch.distributed is initialised already; the suite needs a group of its own")
    from detr_conformance.isolation.two_ranks_group import pretended

    with pretended(rank, other) as contributions:
        yield contributions
