"""Free-running trainings of a target and of the reference beside each other: a picture, and no part of any verdict.

`python -m detr_conformance.running.training_curves TARGET FILE.png`; `detr-spec check --profile training --curves F`
runs it. Both start from the same parameters and see the same batches; then each goes its own way, with its own
assignments. Two right implementations part as well, only later (spec chapter 21).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import NotProvided, Settings, Subject
from detr_conformance.operations import OPERATIONS, TRAINED, resolve
from detr_conformance.running.loaders import load_target
from detr_conformance.target import TargetError
from detr_conformance.topics.training.cases import MODELS, batch_of, model_of
from detr_conformance.topics.training.checks.losses import assignments, losses_of, total_of
from detr_conformance.topics.training.checks.trajectory import CLIP_NORM, LEARNING_RATE, WEIGHT_DECAY
from detr_conformance.topics.training.checks.walk import learner, predictions
from detr_conformance.topics.training.test_training import trainings

FREE_STEPS = 100
FIRST_BATCHES = 10  # seen again and again, so that something is learned
INK, THEIRS = "#222222", "#c0392b"


@dataclass(frozen=True)
class Curves:
    """The losses of one training, step after step; a line ends where its training broke off."""

    title: str
    target: list[float]
    reference: list[float]


def free_running(subject: Subject, case: Case, steps: int = FREE_STEPS) -> list[float]:
    """The total loss at each step of a training with the target's own gradients and assignments."""
    made, model = learner(subject, case), model_of(case)
    learned = [part for parts in made.parts.values() for part in parts]
    optimiser = torch.optim.AdamW(learned, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    found: list[float] = []
    for step in range(steps):
        batch = batch_of(case, step % FIRST_BATCHES)
        optimiser.zero_grad()
        try:
            outputs = predictions(model, made, batch)
            total = total_of(model, losses_of(model, outputs, batch, assignments(model, outputs, batch)))
            total.backward()
        except (Mismatch, ValueError, RuntimeError, KeyError):
            break
        found.append(float(total.detach()))
        torch.nn.utils.clip_grad_norm_(learned, CLIP_NORM)
        optimiser.step()
    return found


def curves_of(subject: Subject, steps: int = FREE_STEPS) -> list[Curves]:
    """The target's and the reference's training of each case of the profile."""
    found = []
    for case in trainings(subject):
        model = model_of(case)
        own = Subject(model, resolve(OPERATIONS[model].reference), "float32", settings=subject.settings)
        title = form_of(case) if model == subject.operation else f"{subject.operation} in {model}"
        found.append(Curves(title, free_running(subject, case, steps), free_running(own, case, steps)))
    return found


def form_of(case: Case) -> str:
    """The model, and what of its settings makes this form."""
    usual, own = MODELS[model_of(case)], json.loads(case.options["settings"])
    switches = [name if value is True else f"{name} {value}" for name, value in own.items() if name not in usual]
    return ", ".join((model_of(case), *switches)).replace("_", " ")


def draw(curves: list[Curves], path: Path, name: str) -> None:
    """Above the losses, below how far they are apart; a column for each training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 4.2 * len(curves), 5.6), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False, sharex=True, height_ratios=(2, 1))
    for column, each in enumerate(curves):
        above, below = axes[0][column], axes[1][column]
        above.plot(each.reference, color=INK, linewidth=2.2, alpha=0.45, label="reference")
        above.plot(each.target, color=THEIRS, linewidth=1, label=name)
        above.set_title(each.title)
        above.legend(frameon=False)
        apart = [abs(a - b) for a, b in zip(each.target, each.reference, strict=False)]
        below.plot([max(value, 1e-9) for value in apart], color=THEIRS, linewidth=1)
        below.set_yscale("log")
        below.set_xlabel("step")
    axes[0][0].set_ylabel("loss")
    axes[1][0].set_ylabel("difference")
    figure.suptitle("Free-running trainings: no part of the verdict, for right implementations part too", fontsize=10)
    figure.savefig(path, dpi=130, format="png")


def _subjects(target: Any, make: Callable[..., Subject], operations: tuple[str, ...]) -> list[Subject]:
    asked = [operation for operation in TRAINED if operation in (operations or TRAINED)]
    return [make(operation, target.provides[operation]) for operation in asked if operation in target.provides]


@click.command()
@click.argument("target")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--operation", multiple=True, help="Only this; repeatable.")
@click.option("--seed", default=0, show_default=True, help="Of the parameters and batches.")
@click.option("--dtype", default="float32", show_default=True, help="Of the target.")
@click.option("--device", help="Of the target; the first that it claims by default.")
def main(target: str, file: Path, operation: tuple[str, ...], seed: int, dtype: str, device: str | None) -> None:
    """Draws the free-running trainings of TARGET and of the reference into FILE."""
    try:
        loaded = load_target(target)
    except TargetError as error:
        raise click.ClickException(str(error)) from error
    make = partial(
        Subject,
        dtype=dtype,
        device=device or loaded.devices[0],
        features=tuple(loaded.features),
        variants=loaded.variants,
        settings=Settings("training", seed),
    )
    try:
        curves = [each for subject in _subjects(loaded, make, operation) for each in curves_of(subject)]
    except (Mismatch, NotProvided) as error:
        raise click.ClickException(str(error)) from error
    draw(curves, file, loaded.name)


if __name__ == "__main__":
    main()
