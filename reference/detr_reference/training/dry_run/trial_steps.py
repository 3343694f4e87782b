"""Some real steps of a recipe, on images of noise of its largest size: how long they take, and how much memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import NamedTuple

import torch

from detr_reference.training.distributed import Processes
from detr_reference.training.dry_run.plan import largest_size, made_up_batch
from detr_reference.training.learning.initial_model import initial_model
from detr_reference.training.learning.learner import Learner
from detr_reference.training.learning.models import MODELS
from detr_reference.training.recipes.recipe import Recipe


class Trial(NamedTuple):
    """One step with one image.

    Attributes:
        seconds: of forward, losses, backward, clipping and the optimiser.
        cpu_seconds: of this process, on all its cores together.
        peak: bytes, the most that this process has held up to now: in main memory, or on its GPU.
    """

    seconds: float
    cpu_seconds: float
    peak: int
    loss: float
    gradient_norm: float


def trial_steps(recipe: Recipe, steps: int, device: torch.device) -> list[Trial]:
    """As many steps as given, one image each; on the CPU a step at 800 x 1333 takes minutes."""
    model = initial_model(recipe).to(device).train()
    learner = Learner(MODELS[recipe.model.name], model, recipe, Processes(device), steps)
    batch = made_up_batch(largest_size(recipe), model).to(device)
    trials = []
    for step in range(1, steps + 1):
        start, computing = time.perf_counter(), time.process_time()
        result = learner.step(step, [batch])  # its numbers are read, so a GPU is waited for
        seconds, computed = time.perf_counter() - start, time.process_time() - computing
        trials.append(Trial(seconds, computed, peak_memory(device), result.loss, result.gradient_norm))
    return trials


def peak_memory(device: torch.device) -> int:
    """Bytes: the largest resident set of this process, or what torch has held on the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
