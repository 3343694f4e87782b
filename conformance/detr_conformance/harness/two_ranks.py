"""A process of a data-parallel training, without the other one.

The two processes of a group run one after the other. What the second contributes to each collective is recorded first;
then the first process runs, and every collective gives it what a real group would. This holds as long as no
contribution depends on an earlier collective, as with a number of boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor

from detr_conformance.harness.mismatch import Mismatch, SuiteError
from detr_conformance.harness.subject import NotProvided


def collectives_of_other(call: Callable[[], Any]) -> list[Tensor]:
    """What process 1 contributes to each collective of the call; the results that it sees are only placeholders."""
    with _group(1, None) as contributions:
        call()
    return contributions


def beside_other(call: Callable[[], Any], other: list[Tensor]) -> Any:
    """What the call returns in process 0, while process 1 contributes these.

    Raises:
        Mismatch: the processes do not take part in the same collectives, so that they would wait for ever.
    """
    with _group(0, other) as contributions:
        result = call()
    mine, theirs = ([tuple(tensor.shape) for tensor in each] for each in (contributions, other))
    if mine != theirs:
        raise Mismatch(
            f"one process takes part in collectives of the shapes {mine}, the other in {theirs}: they would wait "
            "for ever",
            where="collectives",
            expected=str(theirs),
            got=str(mine),
        )
    return result


@contextmanager
def _group(rank: int, other: list[Tensor] | None) -> Iterator[list[Tensor]]:
    if not dist.is_available():
        raise NotProvided("this torch has no torch.distributed")
    if dist.is_initialized():
        raise SuiteError("torch.distributed is initialised already; the suite needs a group of its own")
    from detr_conformance.harness.two_ranks_group import pretended

    with pretended(rank, other) as contributions:
        yield contributions
