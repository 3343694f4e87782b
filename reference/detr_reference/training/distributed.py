"""One process, or the many that torchrun started; see https://docs.pytorch.org/docs/stable/elastic/run.html."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

# The others wait while the main process checks or evaluates the images of COCO, which takes minutes.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """This process among all that train one model.

    Attributes:
        device: of this process.
        rank: its number; 0 is the main one, which alone writes files and prints.
        count: how many there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0


@contextmanager
def processes(device: str | None = None) -> Iterator[Processes]:
    """The group of processes that torchrun's environment describes (RANK, WORLD_SIZE, LOCAL_RANK); without it, one.

    They talk by nccl where each has a GPU and by gloo on CPUs. The group is left at the end of the block.

    Args:
        device: such as "cpu" or "cuda"; None means a GPU where there is one. Of several processes each takes the GPU
            of its local rank.

    Raises:
        ValueError: there is no such device, or fewer GPUs than processes on this machine.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes(_device(device, 0))
        return
    own = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(own, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _device(name: str | None, local_rank: int) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"no device is called {name!r}; such are cpu, cuda and cuda:1") from error
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise ValueError(f"no GPU {index}: torch finds {torch.cuda.device_count()} on this machine")
        return torch.device("cuda", index)
    return device


def from_all(own: T, group: Processes) -> list[T]:
    """What each process gives, in the order of their ranks, on all of them."""
    if group.count == 1:
        return [own]
    found: list[T | None] = [None] * group.count
    dist.all_gather_object(found, own)
    return found  # type: ignore[return-value]  # all filled


def from_main(own: T, group: Processes) -> T:
    """What the main process gives, on all of them."""
    if group.count == 1:
        return own
    given = [own]
    dist.broadcast_object_list(given, src=0)
    return given[0]


def mean_of_all(numbers: torch.Tensor, group: Processes) -> torch.Tensor:
    """The mean over the processes, elementwise."""
    if group.count == 1:
        return numbers
    total = numbers.clone()
    dist.all_reduce(total)
    return total / group.count


def together(group: Processes) -> None:
    """Nobody goes on before all are here."""
    if group.count > 1:
        dist.barrier()
