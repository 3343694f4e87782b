"""What a recipe would do and take, without data and without training: schedule, groups of parameters, memory, time.

Memory and time are projections: counted and measured here as far as they can be, and divided by what a GPU is assumed
to reach. Nothing of them was measured on such a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from detr_reference.data.batches import Batch
from detr_reference.losses.batch_targets import BatchTargets
from detr_reference.training.distributed import Processes
from detr_reference.training.dry_run.machine import Machine, assumed_machine
from detr_reference.training.dry_run.step_cost import SIZES, Cost, Trace, cost_of_pixels, traced
from detr_reference.training.learning.activation_checkpointing import checkpoint_activations
from detr_reference.training.learning.models import MODELS, make_model
from detr_reference.training.learning.objective import loss_of
from detr_reference.training.learning.parameter_groups import parameter_groups
from detr_reference.training.learning.schedule import rate_factor
from detr_reference.training.recipes.recipe import Recipe
from detr_reference.training.sampling import EpochBatches

COCO_IMAGES = 118_287  # of train2017; 1021 of them have no box (cocodataset/cocoapi, issue 76), and are kept
BOXES = 20  # of the images that are made up; train2017 has 7 an image on average
FLOAT = 4  # bytes: parameters are float32, also where autocast computes in half


@dataclass(frozen=True)
class Schedule:
    """Steps and learning rates.

    Attributes:
        images: of an epoch, before what does not fill the last step is left out.
        rates: by group of parameters, the learning rate of each epoch at its end.
    """

    images: int
    epochs: int
    batch_size: int
    images_per_gpu: int
    accumulation: int
    steps_per_epoch: int
    warmup_steps: int
    rates: dict[str, list[float]]


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate."""

    name: str
    tensors: int
    parameters: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        average: of the moving average of the parameters.
        buckets: DistributedDataParallel's own copy of the gradients.
        activations: the most that a step holds at once of images of the largest size.
        activations_padded: of such images, upright and lying ones, which are padded to a common size.
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    buckets: int
    activations: int
    activations_padded: int

    @property
    def constant(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.average + self.buckets


@dataclass(frozen=True)
class DryRun:
    """What a recipe would do and take.

    Attributes:
        size: (height, width) of the images that memory and time are projected for, the recipe's largest.
        frozen: parameters that are not trained.
        cost: of a step with one image of that size, projected.
        seconds: of the training, projected.
    """

    recipe: str
    model: str
    machine: Machine
    schedule: Schedule
    groups: list[Group]
    frozen: int
    size: tuple[int, int]
    autocast: bool
    activation_checkpointing: bool
    memory: Memory
    cost: Cost
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "cost": self.cost._asdict()}


def dry_run(recipe: Recipe, machine: Machine | None = None) -> DryRun:
    """The recipe's schedule and groups, and projections of its memory and time; a minute of one CPU core at most.

    Raises:
        ValueError: the recipe cannot be followed, as where its batch cannot be shared evenly among the GPUs.
    """
    training = recipe.training
    machine = machine or assumed_machine(recipe)
    model = trained_model(recipe)
    schedule = _schedule(recipe, machine, model)
    groups = [_group(group) for group in parameter_groups(model, recipe)]
    trained = sum(group.parameters for group in groups)
    everything = sum(parameter.numel() for parameter in model.parameters())

    size = largest_size(recipe)
    cost = _costs(recipe, model)
    whole, padded = cost(size[0] * size[1]), cost(size[1] ** 2)
    of_trained = FLOAT * trained
    memory = Memory(
        parameters=FLOAT * everything,
        gradients=of_trained,
        optimizer=2 * of_trained,  # AdamW: means of the gradient and of its square
        average=0 if training.ema_decay is None else FLOAT * everything,
        buckets=of_trained if machine.gpus > 1 else 0,  # DistributedDataParallel's own copy of the gradients
        activations=whole.peak * schedule.images_per_gpu,
        activations_padded=padded.peak * schedule.images_per_gpu,
    )
    seen = schedule.epochs * schedule.steps_per_epoch * schedule.batch_size
    return DryRun(
        recipe=recipe.name,
        model=recipe.model.name,
        machine=machine,
        schedule=schedule,
        groups=groups,
        frozen=everything - trained,
        size=size,
        autocast=training.autocast,
        activation_checkpointing=training.activation_checkpointing,
        memory=memory,
        cost=whole,
        seconds=whole.flops * seen / (machine.gpus * machine.teraflops * 1e12 * machine.utilisation),
    )


def _schedule(recipe: Recipe, machine: Machine, model: nn.Module) -> Schedule:
    training = recipe.training
    images = COCO_IMAGES if recipe.data.set == "coco" else recipe.data.images
    batches = EpochBatches(
        range(images),  # only its length is looked at
        Processes(torch.device("cpu"), count=machine.gpus),
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        seed=training.seed,
    )
    factors = [
        rate_factor(
            (epoch + 1) * batches.steps - 1,
            steps_per_epoch=batches.steps,
            drops=training.drops,
            drop_factor=training.drop_factor,
            warmup_steps=training.warmup_steps,
        )
        for epoch in range(training.epochs)
    ]
    rates = {group["name"]: float(group["lr"]) for group in parameter_groups(model, recipe)}
    return Schedule(
        images=images,
        epochs=training.epochs,
        batch_size=training.batch_size,
        images_per_gpu=training.batch_size // (machine.gpus * training.accumulation),
        accumulation=training.accumulation,
        steps_per_epoch=batches.steps,
        warmup_steps=training.warmup_steps,
        rates={name: [rate * factor for factor in factors] for name, rate in rates.items()},
    )


def _group(group: dict[str, Any]) -> Group:
    parameters = list(group["params"])
    return Group(
        name=group["name"],
        tensors=len(parameters),
        parameters=sum(parameter.numel() for parameter in parameters),
        learning_rate=float(group["lr"]),
        weight_decay=float(group["weight_decay"]),
    )


def _costs(recipe: Recipe, model: nn.Module) -> Callable[[int], Cost]:
    """By pixels. Models without deformable attention attend from all cells to all."""
    sizes = SIZES[:2] if MODELS[recipe.model.name].takes_core else SIZES
    traces = {height * width: trace_of_size(recipe, model, (height, width)) for height, width in sizes}
    return lambda pixels: cost_of_pixels(traces, pixels)


def trace_of_size(recipe: Recipe, model: nn.Module, size: tuple[int, int]) -> Trace:
    """Of a step with one image of this size: forward, losses and backward, for real."""
    trainable, batch = MODELS[recipe.model.name], made_up_batch(size, model)
    tensors = [batch.images, batch.mask, *batch.targets]
    autocast = recipe.training.autocast
    return traced(model, tensors, lambda: loss_of(trainable, model, batch, autocast=autocast)[0])


def largest_size(recipe: Recipe) -> tuple[int, int]:
    """(height, width) of the largest images, lying."""
    return max(recipe.data.scales), recipe.data.max_size


def trained_model(recipe: Recipe) -> nn.Module:
    """The recipe's model with random parameters, as it is trained."""
    model = make_model(recipe.model.name, recipe.model.settings).train()
    if recipe.training.activation_checkpointing:
        checkpoint_activations(model)
    return model


def made_up_batch(size: tuple[int, int], model: nn.Module) -> Batch:
    """One image of noise for this model, with boxes anywhere."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([size])
    return Batch(
        images=torch.randn(1, 3, *size, generator=generator),
        mask=torch.zeros(1, *size, dtype=torch.bool),
        targets=BatchTargets(
            torch.randint(config.num_classes, (BOXES,), generator=generator),
            torch.rand(BOXES, 4, generator=generator) * 0.4 + 0.1,
            torch.tensor([BOXES]),
        ),
        image_ids=torch.tensor([0]),
        original_sizes=sides,
    )
