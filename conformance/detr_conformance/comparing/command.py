"""What `detr-spec compare` does once its options are understood."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from detr_conformance.comparing.comparison import Comparison, compare
from detr_conformance.comparing.configuration import read_config, settings_of_config
from detr_conformance.comparing.inputs import DEFAULT_SIZE, LAYERS, layer_inputs, random_images, read_images, read_size
from detr_conformance.comparing.reference import ROUNDINGS, Tick
from detr_conformance.comparing.table import as_json, table_of
from detr_conformance.comparing.weights import Weights, random_weights, read_weights
from detr_conformance.harness.case import PARAMETER, TORCH_DTYPES, Case
from detr_conformance.harness.mismatch import Mismatch, SuiteError
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.reporting.console import report_console, visible
from detr_conformance.reporting.json_file import FileError, write_json
from detr_conformance.running.devices import is_present
from detr_conformance.running.loaders import load_target, resolve_names
from detr_conformance.target import Target, TargetError
from detr_reference.cli import CannotDo

SCHEMA_VERSION = 1
SHARE = 0.9  # of the bar, that the runs with random roundings take


@dataclass(frozen=True)
class Asked:
    """The options."""

    target: str
    operation: str
    config: str | None = None
    checkpoint: str | None = None
    images: tuple[str, ...] = ()
    size: str | None = None
    dtype: str | None = None
    device: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """A comparison that only has to be run."""

    subject: Subject
    case: Case
    weights: Weights


def prepared(asked: Asked) -> Prepared:
    """Everything read and checked.

    Raises:
        CannotDo: something cannot be read, does not fit, or is not there.
    """
    target = _target(asked.target)
    if asked.operation not in target.provides:
        raise CannotDo(f"{target.name} does not provide {asked.operation}; it provides {', '.join(target.provides)}")
    dtype, device = asked.dtype or target.dtypes[0], asked.device or target.devices[0]
    if dtype not in target.dtypes:
        raise CannotDo(f"{target.name} does not claim {dtype}; it claims {', '.join(target.dtypes)}")
    if not is_present(device):
        raise CannotDo(f"there is no device {device} on this machine; give another one by --device")
    config = read_config(asked.operation, asked.config)
    if asked.checkpoint is None:
        weights = random_weights(asked.operation, config, asked.seed)
    else:
        weights = read_weights(asked.operation, config, asked.checkpoint, config_given=asked.config is not None)
    inputs = _inputs(asked, weights.config)
    tensors = {**inputs, **{PARAMETER + name: tensor for name, tensor in weights.tensors.items()}}
    given = {n: t.to(TORCH_DTYPES[dtype]) if t.is_floating_point() else t for n, t in tensors.items()}
    options = {name: json.dumps(value) for name, value in settings_of_config(weights.config).items()}
    subject = Subject(
        asked.operation,
        target.provides[asked.operation],
        dtype,
        device,
        variants=target.variants,
        stages=target.stages,
        settings=Settings(seed=asked.seed),
    )
    return Prepared(subject, Case(given, note=f"seed {asked.seed}", options=options), weights)


def compare_target(asked: Asked, json_file: str | None) -> int:
    """Compares, shows the table, and returns the exit code.

    Raises:
        CannotDo: it could not be done.
    """
    ready, start = prepared(asked), time.perf_counter()
    try:
        with torch.no_grad(), _progress() as progress:
            found = compare(ready.subject, ready.case, _ticking(progress))
    except Mismatch as mismatch:
        raise CannotDo(f"{asked.target}: {mismatch.message}; nothing could be compared") from mismatch
    except SuiteError as error:
        raise CannotDo(
            f"the reference cannot be run on this: {error}; try other weights, or a wider --dtype"
        ) from error
    seconds = round(time.perf_counter() - start, 1)
    _show(asked, ready, found, seconds)
    if json_file is not None:
        try:
            write_json(json_file, _report(asked, ready, found, seconds))
        except FileError as error:
            raise CannotDo(str(error)) from error
    return int(found.first is not None)


def _target(name: str) -> Target:
    try:
        names = resolve_names(name)
        if len(names) > 1:
            raise CannotDo(f"{name} stands for several targets; give one of {', '.join(names)}")
        return load_target(names[0])
    except TargetError as error:
        raise CannotDo(str(error)) from error


def _inputs(asked: Asked, config: Any) -> dict[str, torch.Tensor]:
    size = read_size(asked.size)
    if asked.operation in LAYERS:
        if asked.images:
            raise CannotDo(f"{asked.operation} takes no images; leave --image out, its inputs are random")
        return layer_inputs(asked.operation, config, size or DEFAULT_SIZE, asked.seed)
    return read_images(asked.images, size) if asked.images else random_images(size or DEFAULT_SIZE, asked.seed)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _ticking(progress: Progress) -> Tick:
    task = progress.add_task("the target", total=1.0)

    def tick(what: str, done: float) -> None:
        if what.startswith("rounding"):
            number = int(what.split()[1])
            progress.update(task, completed=SHARE * (number - 1 + done) / ROUNDINGS[0])
        progress.update(task, description=what)

    return tick


def _show(asked: Asked, ready: Prepared, found: Comparison, seconds: float) -> None:
    console = report_console()
    shapes = ", ".join(
        f"{name} {tuple(tensor.shape)}"
        for name, tensor in ready.case.tensors.items()
        if not name.startswith(PARAMETER) and tensor.is_floating_point()
    )
    subject = ready.subject
    console.print(visible(f"{asked.target}   {asked.operation}, {subject.dtype} on {subject.device}"), soft_wrap=True)
    console.print(visible(f"weights: {ready.weights.source}; {shapes}"), soft_wrap=True)
    console.print()
    console.print(table_of(found))
    console.print()
    for line in found.told():
        console.print(visible(line))
    if not subject.stages:
        console.print(
            "the target names no stages, so that only its outputs were compared; Target(stages=...) names them"
        )
    first = found.first
    verdict = "AGREES" if first is None else f"DIFFERS from {(found.part or first).name} on"
    console.print(visible(f"{verdict} ({seconds} s)", "bold green" if first is None else "bold red"))


def _report(asked: Asked, ready: Prepared, found: Comparison, seconds: float) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "target": asked.target,
        "operation": asked.operation,
        "dtype": ready.subject.dtype,
        "device": ready.subject.device,
        "seed": asked.seed,
        "config": settings_of_config(ready.weights.config),
        "weights": ready.weights.source,
        "inputs": {n: list(t.shape) for n, t in ready.case.tensors.items() if not n.startswith(PARAMETER)},
        "seconds": seconds,
        **as_json(found),
    }
