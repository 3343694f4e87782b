"""Trains a small DINO on six photographs until it finds what is on them, and saves COCO's figures.

python docs/overfit.py FOLDER              a folder in COCO's layout; about 10 minutes of one core
python docs/overfit.py FOLDER --keep RUN   the run's files and a picture of what was found, in RUN

The recipe is the published one of DINO with four scales, with the changes below: smaller images and a smaller model,
all of which learns, from random parameters. That it finds what is on the photographs it has learnt shows that data,
losses, steps and evaluation belong together, and no more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from run_environment import environment

from detr_reference.data.categories import Categories
from detr_reference.data.coco import CocoDetection, checked
from detr_reference.training.detection.evaluation import table_of
from detr_reference.training.detection.prediction_grid import draw_predictions
from detr_reference.training.loop import train
from detr_reference.training.recipes.recipe import Recipe

RESULT = Path(__file__).resolve().parent / "runs" / "overfit.json"
RECIPE = "dino-r50-4scale-12"
PHOTOGRAPHS = 6
BOXES = range(1, 9)  # of a photograph that is chosen
CHANGES = {
    "model.num_queries": "100",
    "model.denoising_number": "20",
    "model.embed_dim": "96",
    "model.feedforward_dim": "384",
    "model.num_encoder_layers": "2",
    "model.num_decoder_layers": "3",
    "model.backbone_blocks": "[1, 1, 1, 1]",
    "model.backbone_width": "16",
    "model.backbone_frozen_stages": "0",  # nothing is pretrained
    "data.scales": "[192]",
    "data.max_size": "320",
    "data.crop_scales": "[]",
    "data.flip": "0",
    "data.evaluation_scale": "192",
    "training.batch_size": "2",
    "training.learning_rate": "1e-3",
    "training.backbone_learning_rate": "1e-3",
    "training.epochs": "250",
    "training.drops": "[210]",
    "training.warmup_steps": "50",
    "training.evaluate_every": "25",
}


def chosen(annotations: dict[str, Any]) -> dict[str, Any]:
    """The annotations of the first photographs, by id, with a few boxes and no crowd."""
    objects: dict[int, list[dict[str, Any]]] = {}
    for each in annotations["annotations"]:
        objects.setdefault(each["image_id"], []).append(each)
    suitable = [
        image
        for image in sorted(annotations["images"], key=lambda image: image["id"])
        if len(own := objects.get(image["id"], [])) in BOXES and not any(each["iscrowd"] for each in own)
    ]
    images = suitable[:PHOTOGRAPHS]
    own = [each for image in images for each in objects[image["id"]]]
    return {"images": images, "annotations": own, "categories": annotations["categories"]}


def photographs(coco: Path, recipe: Recipe, folder: Path) -> CocoDetection:
    """A data set of them; their annotations are written into `folder`."""
    everything = json.loads((coco / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    file = folder / "photographs.json"
    file.write_text(json.dumps(chosen(everything)), encoding="utf-8")
    categories = Categories.of(everything["categories"]).by_id(recipe.model.settings["num_classes"])
    return checked(coco / "train2017", file, categories)


def run(coco: Path, folder: Path, console: Console) -> dict[str, Any]:
    """Train, draw, and tell what came of it."""
    recipe = Recipe.read(RECIPE).with_values(CHANGES)
    data = photographs(coco, recipe, folder)
    start, computing = time.perf_counter(), time.process_time()
    result = train(recipe, data, data, folder, console=console)
    seconds, computed = time.perf_counter() - start, time.process_time() - computing
    console.print(table_of(result.figures, f"{len(data)} photographs, the same in training"))
    draw_predictions(data, result.detections, folder / "predictions.png", images=PHOTOGRAPHS)
    return {
        "recipe": RECIPE,
        "changes": CHANGES,
        "parameters": sum(parameter.numel() for parameter in result.model.parameters()),
        "image_ids": list(data.image_ids),
        "boxes": sum(len(data.boxes_and_labels(index)[1]) for index in range(len(data))),
        "steps": recipe.training.epochs * len(data) // recipe.training.batch_size,
        "seconds": round(seconds),
        "cpu_seconds": round(computed),
        "figures": result.figures.named(),
        "environment": environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("coco", type=Path, help="folder with train2017/ and annotations/instances_train2017.json")
    parser.add_argument("--keep", type=Path, help="an empty folder for the run's files")
    arguments, console = parser.parse_args(), Console()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = run(arguments.coco, folder, console)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"saved: {RESULT.relative_to(RESULT.parents[2])}")


if __name__ == "__main__":
    main()
