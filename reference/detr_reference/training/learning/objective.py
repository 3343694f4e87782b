"""What a model's predictions on a batch are worth, and what it detects there."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detr_reference.data.batches import Batch
from detr_reference.detectors.postprocess import postprocess
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from detr_reference.training.learning.models import Trainable


def loss_of(
    trainable: Trainable, model: nn.Module, batch: Batch, *, autocast: bool = False
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """sum of weight * loss over all predictions of the model, and the losses one by one

    Losses are computed in float32 or wider, whatever the model computes in.

    Args:
        trainable: what model it is.
        model: on the device of the batch, may be wrapped by DistributedDataParallel. In evaluation mode there are no
            losses of denoising.
        batch: the images with their boxes.
        autocast: whether the model computes in bfloat16 what torch thinks fit for it.

    Raises:
        ValueError: a loss or a prediction is not finite, which the message names with the images.
    """
    targets = {f"target_{name}": each for name, each in batch.targets._asdict().items()}
    with torch.autocast(batch.images.device.type, torch.bfloat16) if autocast else nullcontext():
        outputs = model(batch.images, batch.mask, **(targets if trainable.takes_targets else {}))
    predictions: dict[str, Any] = {name: _widened(each) for name, each in outputs.items()}
    try:
        losses = detection_losses(**predictions, **targets, **trainable.losses(_config(model)))
        _check_finite(losses)
    except ValueError as error:
        raise ValueError(f"images {batch.image_ids.tolist()}: {error}") from error
    return weighted_total(losses, trainable.weights), losses


@torch.no_grad()
def detections(trainable: Trainable, model: nn.Module, batch: Batch) -> list[dict[str, Any]]:
    """{"image_id": int, "scores": (n,), "labels": (n,), "boxes": (n, 4)} of every image, see `postprocess`

    Boxes are (x1, y1, x2, y2) in pixels of the original image. Everything stays on the device of the batch.

    Args:
        model: in evaluation mode.
    """
    outputs = model(batch.images, batch.mask)
    found = postprocess(
        _widened(outputs["pred_logits"][-1]),
        _widened(outputs["pred_boxes"][-1]),
        batch.original_sizes,
        scores=trainable.scores,
        num_select=trainable.num_select,
    )
    return [
        {"image_id": image, **{name: each[i] for name, each in found.items()}}
        for i, image in enumerate(batch.image_ids.tolist())
    ]


def _config(model: nn.Module) -> Any:
    return (model.module if isinstance(model, DistributedDataParallel) else model).config


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _check_finite(losses: dict[str, Tensor]) -> None:
    finite = torch.stack(list(losses.values())).isfinite()
    if not finite.all():
        values = {name: float(loss) for name, loss in losses.items() if not loss.isfinite()}
        raise ValueError("not finite: " + ", ".join(f"{name} = {value}" for name, value in values.items()))
