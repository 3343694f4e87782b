"""What a model finds on all images of a set, shared among the processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from detr_reference.data.batches import collate
from detr_reference.data.loading import EvaluationImages
from detr_reference.training.distributed import Processes, from_all
from detr_reference.training.learning.models import Trainable
from detr_reference.training.learning.objective import detections


def detect(
    trainable: Trainable,
    model: nn.Module,
    images: EvaluationImages,
    group: Processes,
    *,
    batch_size: int = 1,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """The detections on each image, once each, as `objective.detections` gives them, on the CPU of every process.

    Each process takes every n-th image: unlike DistributedSampler, which repeats images until all processes have
    equally many.

    Args:
        model: not wrapped; it is in evaluation mode only within.
        batch_size: images of a process at a time.
        advance: is told after each batch how many images it had.
    """
    own = Subset(images, range(group.rank, len(images), group.count))
    # A loader draws a seed for its workers; from a generator of its own, training goes on with the same numbers.
    loader = DataLoader(own, batch_size, collate_fn=collate, num_workers=workers, generator=torch.Generator())
    was_training = model.training
    model.eval()
    found: list[dict[str, Any]] = []
    with torch.inference_mode():
        for batch in loader:
            found += detections(trainable, model, batch.to(group.device))
            if advance is not None:
                advance(len(batch.image_ids))
    model.train(was_training)
    on_cpu = [{name: _on_cpu(value) for name, value in each.items()} for each in found]
    return [each for part in from_all(on_cpu, group) for each in part]


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, torch.Tensor) else value
