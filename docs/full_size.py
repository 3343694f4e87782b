"""Runs the published sizes of DINO and Deformable DETR on images of 800 x 1333 and saves what that takes.

python docs/full_size.py                 every run, into docs/runs/full-size.json
python docs/full_size.py --size 400 667  smaller images, for a trial; nothing is saved

Each run has a process of its own, so that its peak of memory is its own too. Random parameters and pixels: nothing that
is measured depends on them.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from run_environment import environment
from torch import Tensor, nn

from detr_reference.detectors import deformable_detr, dino
from detr_reference.detectors.config import DeformableDETRConfig, DINOConfig
from detr_reference.losses.detection_losses import detection_losses, weighted_total

RESULT = Path(__file__).resolve().parent / "runs" / "full-size.json"
BOXES = 20  # an image: with 100 denoising positives, 5 groups of 40 queries


def train_dino(images: Tensor, mask: Tensor) -> dict[str, Any]:
    """One step of training without the optimiser's: denoising, first stage and all auxiliary losses."""
    model = dino.build(DINOConfig()).train()
    truth = {
        "target_labels": torch.randint(80, (BOXES,)),
        "target_boxes": torch.rand(BOXES, 4) * 0.4 + 0.1,
        "target_counts": torch.tensor([BOXES]),
    }
    found, forward = timed(lambda: model(images, mask, **truth))
    total, losses = timed(lambda: weighted_total(detection_losses(**found, **truth)))
    _, backward = timed(total.backward)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    return {**sizes(model, found), "seconds": {"forward": forward, "losses": losses, "backward": backward}}


def look_dino(images: Tensor, mask: Tensor) -> dict[str, Any]:
    return look(dino.build(DINOConfig()), images, mask)


def look_deformable_detr(images: Tensor, mask: Tensor) -> dict[str, Any]:
    return look(deformable_detr.build(DeformableDETRConfig()), images, mask)


def look_two_stage(images: Tensor, mask: Tensor) -> dict[str, Any]:
    return look(deformable_detr.build(DeformableDETRConfig(box_refinement=True, two_stage=True)), images, mask)


RUNS: dict[str, Callable[[Tensor, Tensor], dict[str, Any]]] = {
    "Deformable DETR, forward": look_deformable_detr,
    "Deformable DETR two-stage, forward": look_two_stage,
    "DINO, forward": look_dino,
    "DINO, forward and backward": train_dino,
}


def look(model: nn.Module, images: Tensor, mask: Tensor) -> dict[str, Any]:
    """A forward without gradients, in evaluation mode."""
    with torch.no_grad():
        found, forward = timed(lambda: model.eval()(images, mask))
    assert found["pred_boxes"].isfinite().all()
    return {**sizes(model, found), "seconds": {"forward": forward}}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function()
    return result, round(time.perf_counter() - start, 2)


def sizes(model: nn.Module, found: dict[str, Tensor]) -> dict[str, Any]:
    queries = {name: list(found[name].shape) for name in ("pred_logits", "dn_logits") if name in found}
    return {"parameters": sum(p.numel() for p in model.parameters()), "shapes": queries}


def measure(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """One run, with the peak of this process's memory and what it held before the run."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, *size)
    before = peak_mib()
    result = RUNS[name](images, torch.zeros(1, *size, dtype=torch.bool))
    return {"name": name, **result, "peak_mib": peak_mib(), "mib_before": before}


def peak_mib() -> int:
    """The largest resident set of this process up to now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)


def table(runs: list[dict[str, Any]], size: tuple[int, int]) -> Table:
    shown = Table(title=f"One image of {size[0]} x {size[1]}, float32, on the CPU")
    shown.add_column("run")
    for column in ("parameters", "forward", "losses", "backward", "peak memory"):
        shown.add_column(column, justify="right")
    for run in runs:
        seconds = [run["seconds"].get(part) for part in ("forward", "losses", "backward")]
        times = ["" if each is None else f"{each:.1f} s" for each in seconds]
        shown.add_row(run["name"], f"{run['parameters']:,}", *times, f"{run['peak_mib'] / 1024:.1f} GiB")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("HEIGHT", "WIDTH"))
    size = tuple(parser.parse_args().size)
    console, runs = Console(), []
    for name in RUNS:
        with (
            console.status(name),
            ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as process,
        ):
            runs.append(process.submit(measure, name, size).result())
    console.print(table(runs, size))
    if size == (800, 1333):
        result = {"image": list(size), "dtype": "float32", "environment": environment(), "runs": runs}
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
        console.print(f"saved: {RESULT.relative_to(RESULT.parents[2])}")


if __name__ == "__main__":
    main()
