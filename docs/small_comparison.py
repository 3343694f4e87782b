"""DETR, Deformable DETR and DINO at one small budget, and DINO without each of its improvements, over several seeds.

python docs/small_comparison.py              every run; about half an hour on two cores
python docs/small_comparison.py --jobs 4     four runs at a time, a core each
python docs/small_comparison.py --table      what the saved runs say, again

A run that is finished is not made again, and one that was stopped goes on: the runs lie in runs/small-comparison, their
figures in docs/runs/small-comparison.json, and what they share in docs/small_comparison.toml. All see the same images
in the same number of steps, at one learning rate, which was chosen for DINO; nothing else was chosen for any. What
the table shows is what so small a budget shows: the papers' order is that of 12 to 500 epochs on COCO.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from filling.saved import make_small
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from detr_reference.data.coco import CocoDetection
from detr_reference.data.shapes import write_shapes
from detr_reference.training.loop import train
from detr_reference.training.recipes.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "runs" / "small-comparison"
RESULT = ROOT / "docs" / "runs" / "small-comparison.json"
PICTURE = RESULT.with_suffix(".png")
SEEDS = (0, 1, 2)
BASE = Path(__file__).with_suffix(".toml")

SHARED = ("num_classes", "num_queries", "embed_dim", "num_heads", "feedforward_dim")
SHARED += ("num_encoder_layers", "num_decoder_layers", "backbone_blocks", "backbone_width", "backbone_frozen_stages")
LEVELS = ("num_levels", "num_points", "neck_groups", "backbone_stages")
SETTINGS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    # name -> model, which fields of the base recipe's model it shares, what is different
    "DETR": ("detr", SHARED, {"dropout": 0.0, "backbone_dilation": True}),
    "Deformable DETR": ("deformable_detr", SHARED + LEVELS, {"dropout": 0.0}),
    "DINO": ("dino", (), {}),
    "DINO, pure query selection": ("dino", (), {"query_selection": "pure"}),
    "DINO, looking forward once": ("dino", (), {"look_forward_twice": False}),
    "DINO, denoising without negatives": ("dino", (), {"denoising": "plain"}),
    "DINO, no denoising": ("dino", (), {"denoising": "none"}),
}


def recipe_of(name: str, seed: int) -> Recipe:
    """The base recipe with another model and seed."""
    model, shared, other = SETTINGS[name]
    values = Recipe.read(BASE).to_dict()
    settings = values["model"]
    kept = {field: settings[field] for field in shared} if shared else settings
    values["name"], values["about"] = f"{_slug(name)}-{seed}", f"{name}, of the small comparison"
    values["model"] = {**kept, "name": model, **other}
    values["training"] |= {"seed": seed}
    return Recipe.from_dict(values)


def run(name: str, seed: int, data: Path) -> dict[str, Any]:
    """One training, in a process of its own."""
    torch.set_num_threads(1)
    recipe = recipe_of(name, seed)
    parts = ("train2017", "val2017")
    images = [CocoDetection(data / part, data / "annotations" / f"instances_{part}.json") for part in parts]
    output = FOLDER / recipe.name
    result = train(recipe, *images, output, resume=(output / "checkpoint.pt").exists(), log_steps=25)
    parameters = sum(each.numel() for each in result.model.parameters())
    return {
        "name": name,
        "seed": seed,
        "parameters": parameters,
        "figures": result.figures.named(),
    }


def make_runs(jobs: int, console: Console) -> None:
    """All that are not in the saved file yet; each is saved as it ends."""
    data = FOLDER / "data"
    if not (data / "annotations" / "instances_val2017.json").exists():
        about = Recipe.read(BASE).data
        write_shapes(data, images=about.images, validation_images=about.validation_images, seed=about.seed)
    found = saved()
    done = {(each["name"], each["seed"]) for each in found}
    wanted = [(name, seed) for seed in SEEDS for name in SETTINGS if (name, seed) not in done]
    with (
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
        Progress(console=console) as progress,
    ):
        bar = progress.add_task("runs", total=len(wanted))
        left: set[Future[dict[str, Any]]] = {pool.submit(run, name, seed, data) for name, seed in wanted}
        while left:
            ended, left = wait(left, return_when=FIRST_COMPLETED)
            for each in ended:
                found.append(each.result())
                save(found)
                progress.console.print(
                    f"{found[-1]['name']}, seed {found[-1]['seed']}: {found[-1]['figures']['AP']:.3f}"
                )
                progress.advance(bar)


def saved() -> list[dict[str, Any]]:
    return json.loads(RESULT.read_text(encoding="utf-8"))["runs"] if RESULT.exists() else []


def save(runs: list[dict[str, Any]]) -> None:
    order = list(SETTINGS)
    content = {
        "environment": {"torch": torch.__version__, "machine": platform.machine(), "threads": 1},
        "recipe": recipe_of("DINO", 0).to_dict(),
        "runs": sorted(runs, key=lambda each: (order.index(each["name"]), each["seed"])),
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def by_name(runs: list[dict[str, Any]], figure: str = "AP") -> dict[str, list[float]]:
    """A figure of each run of a name, in the order of SETTINGS."""
    return {name: [each["figures"][figure] for each in runs if each["name"] == name] for name in SETTINGS}


def table(runs: list[dict[str, Any]]) -> Table:
    shown = Table("model", title="AP on the validation images of the shapes", title_justify="left")
    for column in ("mean", "lowest", "highest", "runs", "AP50", "AP75"):
        shown.add_column(column, justify="right")
    fifty, seventy_five = by_name(runs, "AP50"), by_name(runs, "AP75")
    for name, values in by_name(runs).items():
        if values:
            others = (f"{statistics.mean(each[name]):.3f}" for each in (fifty, seventy_five))
            cells = (f"{each:.3f}" for each in (statistics.mean(values), min(values), max(values)))
            shown.add_row(name, *cells, str(len(values)), *others)
    return shown


def draw(runs: list[dict[str, Any]]) -> None:
    """A point for each run, a line at the mean."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    values = {name: each for name, each in by_name(runs).items() if each}
    base = Recipe.read(BASE)
    steps = base.data.images // base.training.batch_size * base.training.epochs
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(values) + 1), layout="constrained")
    for row, each in enumerate(values.values()):
        axes.plot(each, [row] * len(each), "o", color="#3b78b5", alpha=0.7)
        axes.plot([statistics.mean(each)] * 2, [row - 0.3, row + 0.3], color="#c0392b")
    axes.set(yticks=range(len(values)), yticklabels=list(values), xlabel="AP", xlim=(0, None))
    axes.invert_yaxis()
    axes.grid(axis="x", color="#dddddd")
    axes.set_title(f"Each point a run, red the mean; {steps} steps on generated shapes", loc="left", fontsize=10)
    figure.savefig(PICTURE, dpi=120)
    make_small(PICTURE)


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a core each (2)")
    parser.add_argument("--table", action="store_true", help="show what is saved; run nothing")
    options = parser.parse_args()
    console = Console()
    if not options.table:
        make_runs(options.jobs, console)
    runs = saved()
    if not runs:
        sys.exit(f"no runs in {RESULT.relative_to(ROOT)}")
    console.print(table(runs))
    draw(runs)


if __name__ == "__main__":
    main()
