"""The sections of a recipe: model, data and training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detr_reference.data.augmentation import Augmentation
from detr_reference.data.shape_sides import SIDES, check_sides
from detr_reference.training.learning.models import MODELS, model_config

SETS = ("coco", "shapes")


@dataclass(frozen=True)
class ModelRecipe:
    """Which model.

    Attributes:
        name: a key of `MODELS`.
        settings: fields of its configuration; the others have their defaults.

    Raises:
        ValueError: the model or a setting is unknown, or a value is refused.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model_config(self.name, self.settings)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelRecipe:
        """Of a section that holds the name among the settings.

        Raises:
            ValueError: see above, or there is no name.
        """
        settings = dict(values)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"model.name must be one of {', '.join(MODELS)}, got {name!r}")
        return cls(name, settings)


@dataclass(frozen=True)
class DataRecipe:
    """What it is trained on, and how images are made of it.

    Attributes:
        set: "coco", a dataset in COCO's layout that the user has, or "shapes", which is generated.
        scales, max_size, crop_scales, crop_range, flip, evaluation_scale: see `Augmentation`.
        images, validation_images, seed, sides: how many images of shapes there are to train on and to evaluate on,
            the seed that they are drawn from, and their least and greatest side with the step between, see
            `write_shapes`; not for COCO.

    Raises:
        ValueError: set is unknown, a value is out of range, or images of shapes have no number or those of COCO one.
    """

    scales: tuple[int, ...]
    max_size: int
    evaluation_scale: int
    crop_scales: tuple[int, ...] = ()
    crop_range: tuple[int, int] = (384, 600)
    flip: float = 0.5
    set: str = "coco"
    images: int = 0
    validation_images: int = 0
    seed: int = 0
    sides: tuple[int, int, int] = SIDES

    def __post_init__(self) -> None:
        if self.set not in SETS:
            raise ValueError(f"set must be one of {SETS}, got {self.set!r}")
        _check_at_least(self, 0, "images", "validation_images", "seed")
        _check_seed(self.seed)
        if self.set == "shapes":
            _check_at_least(self, 1, "images", "validation_images")
            check_sides(self.sides)
        elif self.images or self.validation_images or self.seed or self.sides != SIDES:
            raise ValueError(
                f"images, validation_images, seed and sides are of shapes; leave them out of set = {self.set!r}"
            )
        _ = self.augmentation  # checks its own fields

    @property
    def augmentation(self) -> Augmentation:
        """How images are changed in training, and resized in evaluation."""
        names = (each.name for each in dataclasses.fields(Augmentation))
        return Augmentation(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class TrainingRecipe:
    """How it is trained, by AdamW.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, of all processes and accumulated batches together.
        learning_rate: of everything but the parameters of the two others.
        backbone_learning_rate: of the backbone.
        slow_learning_rate: of reference points and sampling offsets, see `parameter_groups`; None means learning_rate.
        weight_decay: of every parameter.
        clip_norm: the gradient's greatest norm; None leaves it as it is.
        drops: the learning rates are multiplied by drop_factor after each of so many epochs.
        drop_factor: between 0 and 1.
        warmup_steps: over which learning rates rise from 0; 0 begins with the full ones.
        ema_decay: of the moving average of the parameters, which is then evaluated; None keeps no average.
        autocast: whether the model computes in bfloat16; parameters, losses and the optimiser are float32.
        activation_checkpointing: whether transformer layers are computed again in the backward pass, to save memory.
        accumulation: batches whose gradients are averaged in a step.
        seed: of initial parameters, order of images, augmentation, noise and dropout.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        checkpoint_steps: steps between checkpoints; None writes one after each epoch only.

    Raises:
        ValueError: a value is out of range.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    backbone_learning_rate: float
    slow_learning_rate: float | None = None
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    drops: tuple[int, ...] = ()
    drop_factor: float = 0.1
    warmup_steps: int = 0
    ema_decay: float | None = None
    autocast: bool = False
    activation_checkpointing: bool = False
    accumulation: int = 1
    seed: int = 0
    evaluate_every: int = 1
    checkpoint_steps: int | None = None

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "epochs", "batch_size", "accumulation", "evaluate_every", "checkpoint_steps")
        _check_at_least(self, 0, "warmup_steps", "seed", "weight_decay")
        _check_seed(self.seed)
        for name in ("learning_rate", "backbone_learning_rate", "slow_learning_rate", "clip_norm"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")
        if not 0 < self.drop_factor <= 1:
            raise ValueError(f"drop_factor must be greater than 0 and at most 1, got {self.drop_factor}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie between 0 and 1, got {self.ema_decay}")
        if list(self.drops) != sorted(set(self.drops)) or min(self.drops, default=1) < 1:
            raise ValueError(f"drops must be rising numbers of epochs from 1 up, got {list(self.drops)}")
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch_size {self.batch_size}")


def _check_at_least(section: Any, least: int, *fields_: str) -> None:
    for name in fields_:
        if (value := getattr(section, name)) is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_seed(seed: int) -> None:
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2^63, got {seed}")
