"""A dry run as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from detr_reference.training.dry_run.plan import DryRun
from detr_reference.training.dry_run.trial_steps import Trial

GIB = 2**30


def show(result: DryRun, console: Console) -> None:
    """Schedule, groups of parameters, memory and time, and what was assumed for the last two."""
    for table in (_schedule(result), _groups(result), _memory(result), _time(result)):
        console.print(table)
    console.print(
        "Memory and time are projections, not measurements: counted on this machine for one image and multiplied. "
        "They leave out what a GPU's kernels need for themselves, loading of images, talk between GPUs, and the "
        "operations of sampling, norms and losses.",
        style="dim",
    )


def show_trials(trials: Sequence[Trial], console: Console) -> None:
    """What real steps took here."""
    table = Table(title="real steps with one image of the largest size, measured here")
    for column in ("step", "loss", "gradient norm", "seconds", "of the CPU", "peak memory"):
        table.add_column(column, justify="right")
    for number, trial in enumerate(trials, 1):
        shown = (
            f"{trial.loss:.2f}",
            f"{trial.gradient_norm:.1f}",
            f"{trial.seconds:.1f}",
            f"{trial.cpu_seconds:.1f}",
            f"{trial.peak / GIB:.2f} GiB",
        )
        table.add_row(str(number), *shown)
    console.print(table)


def _schedule(result: DryRun) -> Table:
    schedule = result.schedule
    table = Table(title=f"{result.recipe}: schedule")
    table.add_column("epochs")
    table.add_column("steps", justify="right")
    for name in schedule.rates:
        table.add_column(f"learning rate, {name}", justify="right")
    for first, last in _spans(result):
        steps = f"{(last - first + 1) * schedule.steps_per_epoch:,}"
        rates = [f"{of_group[first - 1]:g}" for of_group in schedule.rates.values()]
        table.add_row(f"{first} to {last}" if last > first else str(first), steps, *rates)
    gpus = result.machine.gpus
    each = f"{schedule.images_per_gpu} on " + (f"each of {gpus} GPUs" if gpus > 1 else "one GPU")
    if schedule.accumulation > 1:
        each += f", {schedule.accumulation} times"
    table.caption = (
        f"{schedule.images:,} images an epoch, {schedule.batch_size} a step ({each}): "
        f"{schedule.steps_per_epoch:,} steps an epoch, {schedule.steps_per_epoch * schedule.epochs:,} in all"
    )
    if schedule.warmup_steps:
        table.caption += f"; the rate rises over the first {schedule.warmup_steps:,}"
    return table


def _spans(result: DryRun) -> Iterator[tuple[int, int]]:
    """First and last epoch, counted from 1, of each stretch with the same learning rates."""
    rates = list(zip(*result.schedule.rates.values(), strict=True))
    for _, epochs in groupby(range(len(rates)), key=lambda epoch: rates[epoch]):
        numbers = list(epochs)
        yield numbers[0] + 1, numbers[-1] + 1


def _groups(result: DryRun) -> Table:
    table = Table(title=f"{result.model}: groups of parameters")
    table.add_column("group")
    for column in ("tensors", "parameters", "learning rate", "weight decay"):
        table.add_column(column, justify="right")
    for group in result.groups:
        table.add_row(
            group.name,
            str(group.tensors),
            f"{group.parameters:,}",
            f"{group.learning_rate:g}",
            f"{group.weight_decay:g}",
        )
    if result.frozen:
        table.add_row("not trained", "", f"{result.frozen:,}", "", "", style="dim")
    return table


def _memory(result: DryRun) -> Table:
    memory, images = result.memory, result.schedule.images_per_gpu
    height, width = result.size
    table = Table(title="memory of one GPU, projected")
    table.add_column("what")
    table.add_column("GiB", justify="right")
    rows = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "AdamW's two means": memory.optimizer,
        "moving average": memory.average,
        "DistributedDataParallel's copy of the gradients": memory.buckets,
    }
    for name, size in rows.items():
        if size:
            table.add_row(name, f"{size / GIB:.2f}")
    plural = f"{images} image{'s' * (images > 1)}"
    table.add_row(f"activations, {plural} of {height} x {width}", f"{memory.activations / GIB:.2f}")
    table.add_row("in all", f"{(memory.constant + memory.activations) / GIB:.2f}", style="bold", end_section=True)
    table.add_row(
        f"in all, where upright and lying images are padded to {width} x {width}",
        f"{(memory.constant + memory.activations_padded) / GIB:.2f}",
    )
    table.caption = f"{_how(result)}; assumed: {result.machine.gpu}, {result.machine.gigabytes / GIB * 1e9:.1f} GiB"
    return table


def _time(result: DryRun) -> Table:
    machine, schedule = result.machine, result.schedule
    height, width = result.size
    table = Table(title="time, projected")
    table.add_column("what")
    table.add_column("", justify="right")
    steps = schedule.epochs * schedule.steps_per_epoch
    table.add_row(f"operations for an image of {height} x {width}", f"{result.cost.flops / 1e12:.3g} x 10^12")
    table.add_row("a step", _duration(result.seconds / steps))
    table.add_row("an epoch", _duration(result.seconds / schedule.epochs))
    table.add_row("in all", _duration(result.seconds), style="bold")
    table.caption = (
        f"assumed: {machine.gpus} of {machine.gpu}, each at {machine.utilisation:.0%} of {machine.teraflops:g} x 10^12 "
        f"operations a second ({'bfloat16' if result.autocast else 'float32'}), all images of the largest size"
    )
    return table


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 3600:.3g} h"


def _how(result: DryRun) -> str:
    precision = "activations partly in bfloat16" if result.autocast else "all in float32"
    return precision + (", with activation checkpointing" if result.activation_checkpointing else "")
