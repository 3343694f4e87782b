"""Two processes with different numbers of boxes, in a real gloo group, do what one process with both batches does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from detr_reference.losses.detection_losses import detection_losses, weighted_total
from detr_reference.losses.loss_normaliser import mean_boxes
from helpers.tiny.loss_batches import Predictions, Targets, generator_of, predictions_of, targets_of

WORLD = 2
# Boxes of the images of each process: unlike numbers, then one process without any, then hardly any at all.
BATCHES = (((3, 1), (0, 1)), ((2, 2), (0, 0)), ((1, 0), (0, 0)))


def batch_of(number: int, rank: int) -> tuple[Predictions, Targets]:
    generator = generator_of(10 * number + rank)
    return predictions_of(generator, 2, 2, 5), targets_of(generator, BATCHES[number][rank])


def head() -> Tensor:
    """A parameter that both processes share: it scales the logits and shifts the boxes."""
    return torch.tensor([0.7, 0.02], dtype=torch.float64, requires_grad=True)


def total(parameter: Tensor, predictions: Predictions, targets: Targets) -> Tensor:
    return weighted_total(
        detection_losses(predictions.logits * parameter[0], predictions.boxes + parameter[1], *targets)
    )


def one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    results = []
    for number in range(len(BATCHES)):
        parameter = head()
        total(parameter, *batch_of(number, rank)).backward()
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        results.append((parameter.grad / WORLD, mean_boxes(batch_of(number, rank)[1].counts)))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")
def test_averaged_gradients_are_those_of_one_process() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(one_process, (folder,), nprocs=WORLD, start_method="spawn")
        found = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    for number, counts in enumerate(BATCHES):
        (gradient, boxes), (other_gradient, other_boxes) = (each[number] for each in found)
        assert torch.equal(gradient, other_gradient)
        assert boxes == other_boxes == max(1, sum(map(sum, counts)) / WORLD)

        joined = [batch_of(number, rank) for rank in range(WORLD)]
        predictions = Predictions(*(torch.cat(parts, 1) for parts in zip(*(p for p, _ in joined), strict=True)))
        targets = Targets(*(torch.cat(parts) for parts in zip(*(t for _, t in joined), strict=True)))
        parameter = head()
        (alone,) = torch.autograd.grad(total(parameter, predictions, targets), parameter)
        boxes_of_all = max(1, sum(map(sum, counts)))
        share = boxes_of_all / (WORLD * float(boxes))  # 1, but where a mean below 1 was clamped
        torch.testing.assert_close(gradient, alone * share, rtol=1e-10, atol=1e-12)


def test_alone_the_number_is_that_of_the_batch() -> None:
    assert not dist.is_initialized()
    assert mean_boxes(torch.tensor([2, 0, 3])) == 5
    assert mean_boxes(torch.tensor([0, 0])) == 1
    assert mean_boxes(torch.tensor([2]), torch.float64).dtype == torch.float64
