"""The process group of `two_ranks`, a backend of torch.distributed in one process."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

RANKS = 2
BACKEND = "detr_spec_two_ranks"


class Done(dist._Work):
    """A collective that is over before it is waited for."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.future: torch.futures.Future[Any] = torch.futures.Future()
        self.future.set_result(result)

    def wait(self, timeout: Any = None) -> bool:
        return True

    def get_future(self) -> torch.futures.Future[Any]:
        return self.future


class PretendedGroup(dist.ProcessGroup):
    """Remembers what this process contributes, and answers with what the other one has contributed.

    Args:
        contributions: filled by the collectives.
        other: what the other process contributes to each; None if that is not known yet.
    """

    def __init__(self, rank: int, size: int, contributions: list[Tensor], other: list[Tensor] | None) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]
        self.contributions = contributions
        self.other = other
        self.own_name = ""

    # By its name a group is found by the functional collectives.
    def getGroupName(self) -> str:
        return self.own_name

    def setGroupName(self, name: str) -> None:
        self.own_name = name

    def getBackendName(self) -> str:
        return BACKEND

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> Done:  # type: ignore[override]
        operation = dist.ReduceOp.SUM if opts is None else opts.reduceOp
        for tensor in tensors:
            total = tensor + self._theirs(tensor)
            if operation == dist.ReduceOp.SUM:
                tensor.copy_(total)
            elif operation == dist.ReduceOp.AVG:
                tensor.copy_(total / RANKS)
            else:
                raise NotImplementedError(
                    f"the suite's group of two only sums and averages, it was asked for {operation}"
                )
        return Done(tensors)

    def allgather(  # type: ignore[override]
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None
    ) -> Done:
        for gathered, tensor in zip(outputs, inputs, strict=True):
            theirs = self._theirs(tensor)
            ordered = (tensor, theirs) if self.rank() == 0 else (theirs, tensor)
            for place, value in zip(gathered, ordered, strict=True):
                place.copy_(value)
        return Done(outputs)

    def _allgather_base(self, output: Tensor, input: Tensor, opts: Any = None) -> Done:
        theirs = self._theirs(input)
        ordered = (input, theirs) if self.rank() == 0 else (theirs, input)
        output.copy_(torch.cat(ordered).view_as(output))
        return Done([output])

    all_gather_single = _allgather_base  # its name in newer versions of torch

    def barrier(self, opts: Any = None) -> Done:
        return Done([])

    def _theirs(self, tensor: Tensor) -> Tensor:
        index = len(self.contributions)
        self.contributions.append(tensor.detach().clone())
        if self.other is None or index >= len(self.other) or self.other[index].shape != tensor.shape:
            return torch.zeros_like(tensor)
        return self.other[index].to(tensor)


_between: tuple[list[Tensor], list[Tensor] | None] = ([], None)
_rank: int | None = None


def _create(store: Any, rank: int, size: int, timeout: Any) -> PretendedGroup:
    return PretendedGroup(rank, size, *_between)


dist.Backend.register_backend(BACKEND, _create, devices=["cpu", "cuda"])


@contextmanager
def pretended(rank: int, other: list[Tensor] | None) -> Iterator[list[Tensor]]:
    """An initialised group of two, of which this process is the given one; yields what it contributes."""
    global _between, _rank
    _between, _rank = ([], other), rank
    try:
        dist.init_process_group(BACKEND, store=dist.HashStore(), rank=rank, world_size=RANKS)
        yield _between[0]
    finally:
        _rank = None
        if dist.is_initialized():
            dist.destroy_process_group()


# -- the same group in the process of a target ------------------------------------------------------------------


def to_hand_over() -> dict[str, Any] | None:
    """The group that is pretended now, for the other process to pretend too; None if there is none."""
    if _rank is None:
        return None
    return {"rank": _rank, "other": None if _between[1] is None else [_as_text(each) for each in _between[1]]}


def take_contributions(texts: list[dict[str, Any]]) -> None:
    """What the other process has contributed counts as contributed here."""
    _between[0].extend(_from_text(each) for each in texts)


@contextmanager
def pretended_again(described: dict[str, Any] | None) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The handed over group; yields what says what was contributed."""
    if described is None:
        yield list
        return
    other = described["other"]
    with pretended(described["rank"], None if other is None else [_from_text(each) for each in other]) as contributed:
        yield lambda: [_as_text(each) for each in contributed]


def _as_text(tensor: Tensor) -> dict[str, Any]:
    content = base64.b64encode(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()).decode()
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "bytes": content}


def _from_text(described: dict[str, Any]) -> Tensor:
    content, dtype = bytearray(base64.b64decode(described["bytes"])), getattr(torch, described["dtype"])
    flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
    return flat.view(described["shape"])
