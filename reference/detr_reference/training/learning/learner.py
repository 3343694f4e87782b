"""A model that learns: what a step of training changes, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from detr_reference.data.batches import Batch
from detr_reference.training.distributed import Processes, mean_of_all
from detr_reference.training.learning.activation_checkpointing import checkpoint_activations
from detr_reference.training.learning.ema import moving_average
from detr_reference.training.learning.models import Trainable
from detr_reference.training.learning.objective import loss_of
from detr_reference.training.learning.parameter_groups import parameter_groups
from detr_reference.training.learning.schedule import rate_schedule
from detr_reference.training.recipes.recipe import Recipe


class TrainingError(ValueError):
    """Training cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class StepResult:
    """Of one step, over its batches and all processes; numbers on their way to a log.

    Attributes:
        loss: the weighted total, of which the gradient was taken.
        losses: its parts, unweighted.
        gradient_norm: before clipping.
        rates: the learning rate of each group of parameters.
    """

    loss: float
    losses: dict[str, float]
    gradient_norm: float
    rates: dict[str, float]


class Learner:
    """Model, optimiser, schedule and moving average, and the step that moves them.

    Attributes:
        model: the reference's own, on the device of this process.
        average: the moving average of its parameters, or None if the recipe has none.

    With several processes each computes the gradient of its own images, and DistributedDataParallel averages them.
    Losses that are sums over boxes are divided by the mean number of boxes of a process (`mean_boxes`), so that the
    average is the gradient of all images together. Every parameter that is trained has a gradient in each step, so
    DistributedDataParallel need not look for unused ones.

    With `accumulation` batches a step, the loss is the mean of theirs, each divided by its own number of boxes: a box
    of a batch with few boxes counts more than in one large batch.
    """

    def __init__(self, trainable: Trainable, model: nn.Module, recipe: Recipe, group: Processes, steps: int) -> None:
        """
        Args:
            steps: of an epoch.
        """
        training = recipe.training
        self.model, self._trainable, self._recipe, self._group = model, trainable, recipe, group
        if training.activation_checkpointing:
            checkpoint_activations(model)
        self._parallel = _shared(model, group)
        self._optimizer = AdamW(parameter_groups(model, recipe), fused=True)
        self._schedule = rate_schedule(
            self._optimizer,
            steps_per_epoch=steps,
            drops=training.drops,
            drop_factor=training.drop_factor,
            warmup_steps=training.warmup_steps,
        )
        self.average = moving_average(model, training.ema_decay) if training.ema_decay is not None else None

    def step(self, number: int, batches: Sequence[Batch]) -> StepResult:
        """One step of the optimiser, with the mean of the gradients of these batches.

        Raises:
            TrainingError: a loss or the gradient is not finite.
        """
        self._optimizer.zero_grad(set_to_none=True)
        total, losses = self._gradient(number, batches)
        norm = self._clipped(number, losses)
        rates = {group["name"]: float(group["lr"]) for group in self._optimizer.param_groups}
        self._optimizer.step()
        self._schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        names = sorted(losses)
        numbers = mean_of_all(torch.stack([total, *(losses[name] for name in names)]), self._group).tolist()
        return StepResult(numbers[0], dict(zip(names, numbers[1:], strict=True)), float(norm), rates)

    def _gradient(self, number: int, batches: Sequence[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds it to the parameters' own; processes exchange theirs once, with the last batch."""
        total = torch.zeros((), device=self._group.device)
        losses: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            wait = nullcontext() if last or self._group.count == 1 else self._parallel.no_sync()
            with wait:
                own, parts = self._loss(number, batch)
                (own / len(batches)).backward()
            total += own.detach().float() / len(batches)
            for name, part in parts.items():
                losses[name] = losses.get(name, 0.0) + part.detach().float() / len(batches)
        return total, losses

    def _loss(self, number: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        try:
            return loss_of(self._trainable, self._parallel, batch, autocast=self._recipe.training.autocast)
        except ValueError as error:
            raise TrainingError(f"step {number}: {error}") from error

    def _clipped(self, number: int, losses: Mapping[str, Tensor]) -> Tensor:
        clip = self._recipe.training.clip_norm
        try:
            return clip_grad_norm_(self.model.parameters(), clip or float("inf"), error_if_nonfinite=True)
        except RuntimeError as error:
            shown = ", ".join(f"{name} {float(loss):.4g}" for name, loss in losses.items())
            raise TrainingError(f"step {number}: the gradient is not finite; the losses were {shown}") from error

    @property
    def best_model(self) -> nn.Module:
        """What is evaluated and kept: the moving average, if there is one."""
        return self.model if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """Of model, optimizer, schedule and ema, under the names that `Checkpoint` has."""
        average = self.average
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "ema": None if average is None else average.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["ema"])


def _shared(model: nn.Module, group: Processes) -> Any:
    if group.count == 1:
        return model
    devices = [group.device] if group.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)
