"""Which parameters learn at which rate.

Source: facebookresearch/detr, IDEA-Research/DAB-DETR and IDEA-Research/DN-DETR, main.py (`param_dicts`);
fundamentalvision/Deformable-DETR, main.py (`lr_backbone_names`, `lr_linear_proj_names`); IDEA-Research/DINO,
util/get_param_dicts.py ("default", which its published runs have).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from detr_reference.training.recipes.recipe import Recipe

SLOW = ("reference_points", "sampling_offsets")


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups for `AdamW`, each with "name", "params", "lr" and "weight_decay"; every parameter that learns is in one

    "backbone": backbone_learning_rate.
    "slow": slow_learning_rate, if the recipe has one, of the linear layers `reference_points` and `sampling_offsets`.
        Deformable DETR has a tenth of learning_rate; DINO, which has sampling offsets too, makes no difference.
    "main": learning_rate, of all others.
    Weight decay is the same for all, norms and biases included. A group without parameters is left out.

    Raises:
        ValueError: the recipe has a slow_learning_rate, but the model no such layers.
    """
    training = recipe.training
    rates = {"main": training.learning_rate, "backbone": training.backbone_learning_rate}
    if training.slow_learning_rate is not None:
        rates["slow"] = training.slow_learning_rate
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[_group_of(name, slow="slow" in rates)].append(parameter)
    if "slow" in rates and not groups["slow"]:
        raise ValueError(f"training.slow_learning_rate: {recipe.model.name} has no {' or '.join(SLOW)} to train")
    return [
        {"name": name, "params": parameters, "lr": rates[name], "weight_decay": training.weight_decay}
        for name, parameters in groups.items()
        if parameters
    ]


def _group_of(parameter: str, *, slow: bool) -> str:
    parts = parameter.split(".")
    if parts[0] == "backbone":
        return "backbone"
    return "slow" if slow and any(part in SLOW for part in parts) else "main"
