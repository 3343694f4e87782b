"""Dry run of the recipe for DINO with ResNet-50 and four scales on COCO, saved with real steps at 800 x 1333.

python docs/dry_run.py                     everything, into docs/runs/dry-run.json; about 5 minutes of one core
python docs/dry_run.py --steps 0           the projections alone, in a minute; nothing is saved
python docs/dry_run.py --assume gpus=4 --assume utilisation=0.2   for another machine; nothing is saved

The projections come of small images. What they say of a large one is measured too, here, with one image of 800 x 1333,
with and without activation checkpointing. Each has a process of its own, as have the steps, whose peak of memory is
their own then.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from run_environment import environment

from detr_reference.training.dry_run.machine import assumed_machine
from detr_reference.training.dry_run.plan import dry_run, largest_size, trace_of_size, trained_model
from detr_reference.training.dry_run.step_cost import Cost
from detr_reference.training.dry_run.tables import show, show_trials
from detr_reference.training.dry_run.trial_steps import trial_steps
from detr_reference.training.recipes.recipe import Recipe

RESULT = Path(__file__).resolve().parent / "runs" / "dry-run.json"
RECIPE = "dino-r50-4scale-12"
CHECKPOINTING = {"training.activation_checkpointing": "true"}


def measured(recipe: Recipe) -> Cost:
    """Of one image of the recipe's largest size."""
    torch.manual_seed(0)
    return trace_of_size(recipe, trained_model(recipe), largest_size(recipe)).cost


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, from a process that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def comparison(rows: dict[str, tuple[Cost, Cost]]) -> Table:
    """Projected beside measured."""
    table = Table(title="one image of the largest size: projected from small ones, and measured")
    for column in ("", "kept, GiB", "peak, GiB", "operations, 10^12"):
        table.add_column(column, justify="right" if column else "left")
    for name, costs in rows.items():
        for kind, cost in zip(("projected", "measured"), costs, strict=True):
            table.add_row(
                f"{name}, {kind}", f"{cost.kept / 2**30:.3f}", f"{cost.peak / 2**30:.3f}", f"{cost.flops / 1e12:.3f}"
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2, help="real steps at 800 x 1333")
    parser.add_argument("--assume", action="append", default=[], metavar="KEY=VALUE", help="of the machine")
    arguments, console = parser.parse_args(), Console()
    recipe = Recipe.read(RECIPE)
    assumed = dict(each.split("=", 1) for each in arguments.assume)
    runs = {"as published": recipe, "with activation checkpointing": recipe.with_values(CHECKPOINTING)}
    results = {name: dry_run(each, assumed_machine(each, assumed)) for name, each in runs.items()}
    for each in results.values():
        show(each, console)
    if not arguments.steps:
        return
    costs = {name: (results[name].cost, alone(measured, each)) for name, each in runs.items()}
    console.print(comparison(costs))
    trials = alone(trial_steps, recipe, arguments.steps, torch.device("cpu"))
    show_trials(trials, console)
    if assumed:
        return
    saved = {
        "projected": {name: each.to_dict() for name, each in results.items()},
        "measured": {name: cost._asdict() for name, (_, cost) in costs.items()},
        "steps": [trial._asdict() for trial in trials],
        "environment": environment(),
    }
    RESULT.write_text(json.dumps(saved, indent=2) + "\n")
    console.print(f"saved: {RESULT.relative_to(RESULT.parents[2])}")


if __name__ == "__main__":
    main()
