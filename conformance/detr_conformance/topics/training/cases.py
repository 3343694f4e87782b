"""What the profile "training" is run on: a small model, and a batch for each step, made again from the case alone.

A case holds the parameters that the training starts from. Its batches come from its seed, so that a saved case is
replayed from the first step on, which what is kept from step to step asks for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detr_conformance.harness.block_case import config_of
from detr_conformance.harness.case import PARAMETER, Case
from detr_conformance.harness.fill import Filler
from detr_conformance.topics.detectors.cases.models import DEFORMABLE, TINY, model_parameters, padded_images
from detr_reference.losses.batch_targets import BatchTargets
from detr_reference.losses.criterion import Criterion
from detr_reference.losses.detection_losses import DINO_WEIGHTS

STEPS = 10
SIZE = (64, 96)  # what all images are padded to; stride 8 is the finest map, stride 32 DETR's only one
EXTENTS = (((64, 64), (43, 96)), ((64, 96), (32, 53)), ((50, 96), (64, 80)))
COUNTS = ((1, 6), (0, 2), (3, 1), (0, 0), (5, 4))  # boxes of the two images, step after step

SMALL: dict[str, Any] = {**TINY, "num_encoder_layers": 1, "num_decoder_layers": 2, "backbone_blocks": (1, 1, 1, 1)}
# Noise of size 0: nobody's random numbers are part of what is compared (chapter 13 has clauses about them).
QUIET = {"denoising_number": 4, "label_noise_ratio": 0.0, "box_noise_scale": 0.0}
MODELS: dict[str, dict[str, Any]] = {
    "detr": {**SMALL, "dropout": 0.0},
    "deformable_detr": {**SMALL, **DEFORMABLE},
    "dino": {**SMALL, **DEFORMABLE, **QUIET},
}


class Batch(NamedTuple):
    """One step's images, zero where padded, their masks and what is to be found."""

    images: Tensor
    mask: Tensor
    targets: BatchTargets


@dataclass(frozen=True)
class Objective:
    """How a model is trained, as published: its criterion, and the weights of the losses."""

    criterion: Criterion
    weights: dict[str, float]


OBJECTIVES = {
    "detr": Objective(Criterion(class_loss="cross_entropy", cost_class=1.0), dict(DINO_WEIGHTS)),
    "deformable_detr": Objective(Criterion(), {**DINO_WEIGHTS, "loss_class": 2.0}),
    "dino": Objective(Criterion(), dict(DINO_WEIGHTS)),
}


def training_case(model: str, seed: int, attempt: int, steps: int = STEPS, **settings: Any) -> Case:
    """The start of one training."""
    chosen = {**MODELS[model], **settings}
    fill = Filler("float32", "training", model, sorted(chosen.items()), seed, attempt)
    parameters = model_parameters(model, chosen, fill)
    return Case(
        {PARAMETER + n: t.to(fill.dtype) if t.is_floating_point() else t for n, t in parameters.items()},
        note=f"{model}, {steps} steps",
        options={
            "model": model,
            "settings": json.dumps(chosen),
            "steps": str(steps),
            "seed": f"{seed}/{attempt}",
        },
    )


def model_of(case: Case) -> str:
    return case.options["model"]


def steps_of(case: Case) -> int:
    return int(case.options["steps"])


def as_model_case(case: Case) -> Case:
    """The model of a training with its parameters, as the harness of whole models takes it."""
    settings = json.loads(case.options["settings"])
    options = {name: json.dumps(value) for name, value in settings.items()}
    return Case(dict(case.tensors), note=case.note, options=options)


def config_of_training(case: Case) -> Any:
    return config_of(model_of(case), as_model_case(case))


def batch_of(case: Case, step: int) -> Batch:
    """Two images of unequal size; none, one or many boxes."""
    fill = Filler("float32", "batch", case.options["seed"], step)
    images, mask = padded_images(fill, SIZE, EXTENTS[step % len(EXTENTS)])
    counts = COUNTS[step % len(COUNTS)]
    total = sum(counts)
    centres, sizes = fill.uniform(0.3, 0.7, total, 2), fill.uniform(0.1, 0.5, total, 2)
    targets = BatchTargets(
        fill.integers(0, 3, total).long(),
        torch.cat((centres, sizes), -1).float(),
        torch.tensor(counts),
    )
    return Batch(images.float(), mask, targets)


def call_inputs(model: str, batch: Batch, dtype: torch.dtype, device: str = "cpu") -> dict[str, Tensor]:
    """The arguments of the model's call; DINO is told the targets too."""
    inputs = {"images": batch.images.to(device, dtype), "mask": batch.mask.to(device)}
    if model == "dino":
        labels, boxes, counts = batch.targets
        inputs |= {
            "target_labels": labels.to(device),
            "target_boxes": boxes.to(device, dtype),
            "target_counts": counts.to(device),
        }
    return inputs
