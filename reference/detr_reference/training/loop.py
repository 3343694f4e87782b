"""Training from a recipe: epochs of steps, evaluation, checkpoints, and going on from one."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import nn

from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.data.coco import CocoDetection
from detr_reference.training.detection.evaluation import Twelve
from detr_reference.training.distributed import Processes
from detr_reference.training.learning.learner import Learner
from detr_reference.training.random_state import set_random_state
from detr_reference.training.recipes.recipe import Recipe
from detr_reference.training.run import CHECKPOINT, Run
from detr_reference.training.run_report import RunReport
from detr_reference.training.state import Checkpoint


class Result(NamedTuple):
    """What a run ends with.

    Attributes:
        model: the moving average where there is one, on its device.
        figures: COCO's, of the last evaluation; the last epoch is always evaluated.
        detections: what they are of, see `detect`.
    """

    model: nn.Module
    figures: Twelve
    detections: list[dict[str, Any]]


def train(
    recipe: Recipe,
    training: CocoDetection,
    validation: CocoDetection,
    output: Path,
    *,
    group: Processes | None = None,
    resume: bool = False,
    core: Callable[..., Any] | None = None,
    backbone_weights: Path | None = None,
    workers: int = 0,
    log_steps: int = 1,
    console: Console | None = None,
) -> Result:
    """Train the recipe's model on these images, and write recipe.toml, checkpoint.pt, log.jsonl and
    tensorboard/ into `output`.

    A run that was stopped at any moment and is resumed does what it would have done, on CPUs bit for bit, from its last
    checkpoint on: the order of the images depends on seed and epoch alone, the augmentation of each on seed, epoch and
    image, and the state of the random numbers is in the checkpoint. With another number of processes it goes on with
    random numbers of its own.

    Args:
        group: from `processes`; None is this process alone, on the CPU.
        resume: go on from output/checkpoint.pt; without it there must be none.
        core: sampling function of deformable attention, for the models that have it; None is the CPU kernel on a CPU
            and the reference's elsewhere.
        backbone_weights: published file of a pretrained backbone, for a new run.
        workers: processes that load images, of each process; 0 loads them in itself.
        log_steps: steps between lines of the log.
        console: where progress is shown; None shows nothing.

    Raises:
        CheckpointError: there is nothing to resume, it does not fit recipe and images, or without `resume` there is a
            run in the folder already; or the backbone's file does not fit.
        TrainingError: a loss or a gradient is not finite.
        ValueError: the batch cannot be shared among the processes, or there are fewer images than one batch has.
    """
    group = group or Processes(torch.device("cpu"))
    check_folder(output, resume)
    run = Run(recipe, training, validation, output, group, workers)
    checkpoint = run.begun() if resume else None
    learner = run.learner(core, backbone_weights if checkpoint is None else None)
    _set_random_numbers(checkpoint, recipe, group)
    step = 0
    if checkpoint is not None:
        learner.load(vars(checkpoint))
        step = checkpoint.step
    if checkpoint is None:
        run.begin()
    with ExitStack() as stack:
        report = RunReport(stack, run, step, log_steps, console if group.main else None)
        # An epoch that was finished when the checkpoint was written may not have been evaluated: so it is begun here.
        first = max(step - 1, 0) // run.steps
        for epoch in range(first, recipe.training.epochs):
            step = _epoch(run, learner, report, epoch, step)
            run.save(learner, step)
            if (epoch + 1) % recipe.training.evaluate_every == 0 or epoch + 1 == recipe.training.epochs:
                figures, found = run.evaluate(learner)
                report.evaluation(step, epoch, figures)
    return Result(learner.best_model, figures, found)


def _epoch(run: Run, learner: Learner, report: RunReport, epoch: int, step: int) -> int:
    """What is left of it; the steps done then."""
    every = run.recipe.training.checkpoint_steps
    for batches in run.batches(epoch, step - epoch * run.steps):
        step += 1
        report.step(step, epoch, learner.step(step, batches))
        if every and step % every == 0 and step % run.steps:
            run.save(learner, step)
    return step


def check_folder(output: Path, resume: bool) -> None:
    """A folder holds one run, which is either begun or resumed.

    Raises:
        CheckpointError: there is no checkpoint to resume, or one that would be overwritten.
    """
    path = output / CHECKPOINT
    if resume and not path.exists():
        raise CheckpointError(f"no checkpoint at {path}, so there is nothing to resume; begin without resuming")
    if not resume and path.exists():
        raise CheckpointError(f"{path} is of a run that was begun: resume it, or give another output folder")


def _set_random_numbers(checkpoint: Checkpoint | None, recipe: Recipe, group: Processes) -> None:
    """Each process has its own; with other processes than before there are none to go on with."""
    if checkpoint is not None and len(checkpoint.random_states) == group.count:
        set_random_state(checkpoint.random_states[group.rank], group.device)
        return
    seed = recipe.training.seed + group.rank + (checkpoint.step if checkpoint else 0)
    torch.manual_seed(seed)
    random.seed(seed)
