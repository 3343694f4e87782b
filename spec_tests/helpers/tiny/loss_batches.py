"""Random batches of predictions and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Predictions(NamedTuple):
    logits: Tensor
    boxes: Tensor


class Targets(NamedTuple):
    labels: Tensor
    boxes: Tensor
    counts: Tensor


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes_of(generator: torch.Generator, *shape: int) -> Tensor:
    low, high = torch.tensor([0.3, 0.25, 0.1, 0.05]).double(), torch.tensor([0.7, 0.75, 0.5, 0.3]).double()
    return low + (high - low) * torch.rand(*shape, 4, generator=generator, dtype=torch.float64)


def predictions_of(generator: torch.Generator, *shape: int, channels: int = 4) -> Predictions:
    logits = 2 * torch.randn(*shape, channels, generator=generator, dtype=torch.float64)
    return Predictions(logits, boxes_of(generator, *shape))


def targets_of(generator: torch.Generator, counts: Sequence[int], classes: int = 4) -> Targets:
    number = sum(counts)
    labels = torch.randint(classes, (number,), generator=generator)
    return Targets(labels, boxes_of(generator, number), torch.tensor(counts))
