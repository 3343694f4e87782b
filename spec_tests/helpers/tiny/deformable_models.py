"""Tiny Deformable DETR and DINO models, and what the tests ask them: every number random, nothing symmetric."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from detr_reference.detectors import deformable_detr, dino
from detr_reference.detectors.config import DeformableDETRConfig, DINOConfig
from detr_reference.detectors.deformable_detr import DeformableDETR
from detr_reference.detectors.dino import DINO
from detr_reference.features.backbone import Backbone

Module = TypeVar("Module", bound=nn.Module)

SIZES: dict[str, Any] = {
    "num_classes": 3,
    "num_queries": 7,
    "embed_dim": 8,
    "num_heads": 2,
    "feedforward_dim": 12,
    "num_encoder_layers": 1,
    "num_decoder_layers": 3,
    "num_levels": 3,
    "num_points": 2,
    "dropout": 0.0,
    "neck_groups": 2,
    "backbone_blocks": (1, 1, 1, 1),
    "backbone_width": 2,
    "backbone_stages": (3, 4),
}
HEIGHT, WIDTH = 80, 112


def perturbed(module: Module, std: float = 0.3) -> Module:
    """In float64, no parameter as it was initialised, and norms with statistics: initial ones hide most differences."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * std)
        for name, buffer in module.named_buffers():
            buffer.copy_(
                torch.rand_like(buffer) + 0.5 if "var" in name or "weight" in name else torch.randn_like(buffer)
            )
    return module.double()


def tiny_deformable_detr(**options: Any) -> DeformableDETR:
    return perturbed(deformable_detr.build(DeformableDETRConfig(**{**SIZES, **options})))


def tiny_dino(**options: Any) -> DINO:
    """One whose first stage prefers cells that have a proposal: the others are all alike, and would all be selected."""
    model = perturbed(dino.build(DINOConfig(**{"denoising_number": 4, **SIZES, **options})))
    if model.config.two_stage:
        with torch.no_grad():
            nowhere = model.transformer.enc_output_norm(model.transformer.enc_output.bias)
            model.class_embed[-1].weight -= 5 * nowhere / nowhere.square().sum()
    return model


class Pooled(Backbone):
    """Pixels, made coarser: 3 channels at stride 8 and 5 at stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (3, 5)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        fine = nn.functional.avg_pool2d(images, 8)
        return fine, nn.functional.avg_pool2d(torch.cat((fine, fine[:, :2]), 1), 2)


def padded_images(batch: int = 2) -> tuple[Tensor, Tensor]:
    """Images of unlike sizes, zero and True where padded: one too low, one too narrow, both by an odd number."""
    images = torch.randn(batch, 3, HEIGHT, WIDTH, dtype=torch.float64)
    mask = torch.zeros(batch, HEIGHT, WIDTH, dtype=torch.bool)
    mask[0, 57:] = True
    mask[1:, :, 83:] = True
    return images.masked_fill(mask[:, None], 0), mask


def targets(*counts: int, num_classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """As many boxes as said of each image, somewhere on it."""
    boxes = torch.rand(sum(counts), 4, dtype=torch.float64) * 0.4 + 0.1
    return torch.randint(num_classes, (sum(counts),)), boxes, torch.tensor(counts)
