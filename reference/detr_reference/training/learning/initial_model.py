"""The model that a run begins with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detr_reference.checkpoints.loading import load_checkpoint
from detr_reference.training.learning.models import make_model
from detr_reference.training.recipes.recipe import Recipe


def initial_model(
    recipe: Recipe, core: Callable[..., Any] | None = None, backbone_weights: Path | None = None
) -> nn.Module:
    """The recipe's model, initialised by its seed alone; torch's global random numbers are set by it.

    Args:
        core: sampling function of deformable attention.
        backbone_weights: file of a pretrained ResNet, such as torchvision's.

    Raises:
        ValueError: the model does not take a core, or a setting is wrong.
        CheckpointError: the file does not fit the backbone.
    """
    torch.manual_seed(recipe.training.seed)
    model = make_model(recipe.model.name, recipe.model.settings, core=core)
    if backbone_weights is not None:
        backbone = model.get_submodule("backbone")
        backbone.load_state_dict(load_checkpoint(backbone_weights, backbone))
    return model
