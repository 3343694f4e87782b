"""The suite's group of two, which one process plays alone, answers as a real one does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor

from detr_conformance.harness.mismatch import Mismatch, SuiteError
from detr_conformance.harness.two_ranks import beside_other
from detr_reference.losses.loss_normaliser import mean_boxes


def total(number: Tensor) -> Tensor:
    dist.all_reduce(number)
    return number


def average(number: Tensor) -> Tensor:
    dist.all_reduce(number, op=dist.ReduceOp.AVG)
    return number * 2


def gathered(number: Tensor) -> Tensor:
    found = [torch.zeros_like(number) for _ in range(dist.get_world_size())]
    dist.all_gather(found, number)
    assert float(found[dist.get_rank()]) == float(number)
    return torch.stack(found).sum()


def divided_first(number: Tensor) -> Tensor:
    """As mmdetection's reduce_mean."""
    dist.all_reduce(number.div_(dist.get_world_size()))
    return number * 2


def into_one_tensor(number: Tensor) -> Tensor:
    found = torch.zeros(dist.get_world_size())
    dist.all_gather_into_tensor(found, number[None])
    return found.sum()


def as_objects(number: Tensor) -> Tensor:
    """Of unlike lengths, so that the longer one decides how much the other sends."""
    found: list[list[float]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, [float(number)] * int(number))
    return torch.tensor([numbers[0] for numbers in found]).sum()


def functionally(number: Tensor) -> Tensor:
    return functional.all_reduce(number, "sum", dist.group.WORLD) + 0


@pytest.mark.parametrize("reduce", [total, average, gathered, into_one_tensor, as_objects, divided_first, functionally])
def test_sum_of_both(reduce: Callable[[Tensor], Tensor]) -> None:
    assert float(beside_other(lambda: reduce(torch.tensor(4.0)), lambda: reduce(torch.tensor(3.0)))) == 7
    assert not dist.is_initialized()


def test_reference() -> None:
    found = beside_other(lambda: mean_boxes(torch.tensor([0, 0])), lambda: mean_boxes(torch.tensor([2, 1])))
    assert float(found) == 1.5


def test_unlike_collectives() -> None:
    with pytest.raises(Mismatch, match="they would wait for ever"):
        beside_other(lambda: total(torch.tensor(4.0)), lambda: None)


def test_a_group_that_is_there_already() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(SuiteError, match="initialised already"):
            beside_other(lambda: None, lambda: None)
    finally:
        dist.destroy_process_group()
