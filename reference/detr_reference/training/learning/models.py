"""The models that can be trained, each with the losses and the post-processing of its published training.

Source: facebookresearch/detr, main.py and models/detr.py; IDEA-Research/DAB-DETR, main.py (its `cls_loss_coef` is 1);
IDEA-Research/DN-DETR, main.py and models/DN_DAB_DETR/dn_components.py; fundamentalvision/Deformable-DETR, main.py and
models/deformable_detr.py; IDEA-Research/DINO, config/DINO/DINO_4scale.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from detr_reference.deformable_attention.module import DeformableCore
from detr_reference.detectors.config import DABDETRConfig, DeformableDETRConfig, DETRConfig, DINOConfig, DNDETRConfig
from detr_reference.detectors.dab_detr import DABDETR
from detr_reference.detectors.deformable_detr import DeformableDETR
from detr_reference.detectors.detr import DETR
from detr_reference.detectors.dino import DINO
from detr_reference.detectors.dn_detr import DNDETR
from detr_reference.losses.detection_losses import DINO_WEIGHTS
from detr_reference.training.recipes.fields import hint, read_fields


@dataclass(frozen=True)
class Trainable:
    """A model, and what is particular to it in training and evaluation.

    Attributes:
        config: class of its configuration.
        model: class of the model; `model(config)`, or `model(config, core)` if it takes a core.
        losses: settings of `detection_losses`, of a configuration.
        weights: of the losses, see `weighted_total`.
        scores: "sigmoid" or "softmax", see `postprocess`.
        num_select: detections an image; of softmax it is one a query instead.
        takes_core: whether it has deformable attention, and a sampling function can be put in.
        takes_targets: whether its forward pass is given the targets too, for denoising.
    """

    config: type
    model: Callable[..., nn.Module]
    losses: Callable[[Any], dict[str, Any]]
    weights: Mapping[str, float] = field(default_factory=lambda: DINO_WEIGHTS)
    scores: str = "sigmoid"
    num_select: int = 300
    takes_core: bool = False
    takes_targets: bool = False


def _dino_losses(config: DINOConfig) -> dict[str, Any]:
    """Denoising without negatives has another layout; the rest of the criterion stays DINO's."""
    return {"contrastive": config.denoising == "contrastive"}


MODELS: dict[str, Trainable] = {
    "detr": Trainable(
        DETRConfig,
        DETR,
        lambda config: {"class_loss": "cross_entropy", "no_object_weight": 0.1, "cost_class": 1.0},
        scores="softmax",
    ),
    "dab_detr": Trainable(DABDETRConfig, DABDETR, lambda config: {}),
    "dn_detr": Trainable(
        DNDETRConfig, DNDETR, lambda config: {"contrastive": False, "padded_slots": "ignored"}, takes_targets=True
    ),
    "deformable_detr": Trainable(
        DeformableDETRConfig,
        DeformableDETR,
        lambda config: {"encoder_targets": "objectness"},
        weights={"loss_class": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0},
        num_select=100,
        takes_core=True,
    ),
    "dino": Trainable(DINOConfig, DINO, _dino_losses, takes_core=True, takes_targets=True),
}


def trainable_named(name: str) -> Trainable:
    """MODELS[name].

    Raises:
        ValueError: there is no such model; the message names the close ones, or all.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; {hint(name, MODELS)}")
    return MODELS[name]


def model_config(name: str, settings: Mapping[str, Any]) -> Any:
    """The model's configuration with these fields, the others at their defaults.

    Raises:
        ValueError: the model or a setting is unknown, or a value is refused.
    """
    return read_fields(trainable_named(name).config, settings, "model")


def make_model(name: str, settings: Mapping[str, Any], core: DeformableCore | None = None) -> nn.Module:
    """The model, initialised from torch's global random state.

    Args:
        name: a key of MODELS.
        settings: fields of its configuration; lists are taken for tuples.
        core: sampling function of deformable attention; None means the reference's.

    Raises:
        ValueError: the model or a setting is unknown, a value is refused, or the model does not take a core.
    """
    trainable, config = trainable_named(name), model_config(name, settings)
    if core is None:
        return trainable.model(config)
    if not trainable.takes_core:
        takers = ", ".join(taker for taker, each in MODELS.items() if each.takes_core)
        raise ValueError(f"{name} has no deformable attention, so it takes no sampling function; those do: {takers}")
    return trainable.model(config, core)
