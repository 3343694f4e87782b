"""Small models of every kind, a batch and a recipe, for the tests of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from detr_reference.data.batches import Batch
from detr_reference.losses.batch_targets import BatchTargets
from detr_reference.training.learning.models import make_model
from detr_reference.training.recipes.recipe import Recipe

_SMALL = {
    "num_classes": 3,
    "num_queries": 6,
    "embed_dim": 16,
    "num_heads": 2,
    "feedforward_dim": 16,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "backbone_blocks": [1, 1, 1, 1],
    "backbone_width": 4,
}
_LEVELS = {**_SMALL, "neck_groups": 4, "num_levels": 3, "num_points": 2}

# By name of the case: the model's name and its settings.
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "detr": ("detr", _SMALL),
    "dab_detr": ("dab_detr", _SMALL),
    "dn_detr": ("dn_detr", {**_SMALL, "denoising_groups": 2}),
    "deformable_detr": ("deformable_detr", _LEVELS),
    "refined": ("deformable_detr", {**_LEVELS, "box_refinement": True}),
    "two_stage": ("deformable_detr", {**_LEVELS, "box_refinement": True, "two_stage": True}),
    "dino": ("dino", {**_LEVELS, "denoising_number": 6}),
    "dino_shared": ("dino", {**_LEVELS, "denoising_number": 6, "shared_heads": True}),
    "dino_plain": ("dino", {**_LEVELS, "denoising_number": 6, "denoising": "plain"}),
    "dino_static": ("dino", {**_LEVELS, "query_selection": "static", "denoising": "none"}),
    "dino_pure": ("dino", {**_LEVELS, "query_selection": "pure", "look_forward_twice": False}),
}


def small_model(case: str, **changes: Any) -> nn.Module:
    name, settings = SMALL[case]
    return make_model(name, {**settings, **changes})


def small_batch(counts: tuple[int, ...] = (2, 0, 1)) -> Batch:
    """Images of 64 x 96 of which the second has padding below and the third on the right."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(counts), 3, 64, 96, generator=generator)
    mask = torch.zeros(len(counts), 64, 96, dtype=torch.bool)
    if len(counts) == 3:
        mask[1, 40:] = True
        mask[2, :, 70:] = True
    images = images.masked_fill(mask[:, None], 0)
    boxes = torch.rand(sum(counts), 4, generator=generator) * 0.4 + 0.2
    labels = torch.arange(sum(counts)) % 3
    sizes = torch.tensor([[640, 960], [400, 960], [640, 700]])[: len(counts)]
    targets = BatchTargets(labels, boxes, torch.tensor(counts))
    return Batch(images, mask, targets, torch.arange(11, 11 + len(counts)), sizes)


def small_recipe(case: str = "dino", **training: Any) -> Recipe:
    name, settings = SMALL[case]
    return Recipe.from_dict(
        {
            "name": "small",
            "about": "of a test",
            "model": {"name": name, **settings},
            "data": {"scales": [64], "max_size": 96, "evaluation_scale": 64},
            "training": {
                "epochs": 2,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "backbone_learning_rate": 1e-4,
                **training,
            },
        }
    )
