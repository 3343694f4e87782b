"""What a trained model finds on one picture, and how it is told."""

from __future__ import annotations

import os
from typing import Any

import torch
from PIL import Image, ImageOps
from rich.table import Table

from detr_reference.data.batches import collate
from detr_reference.data.categories import Categories
from detr_reference.data.images import read_image, tensor_of
from detr_reference.data.sample import Sample
from detr_reference.training.detection.drawing import Drawn
from detr_reference.training.detection.trained import Trained
from detr_reference.training.learning.objective import detections


def read_upright(path: str | os.PathLike[str]) -> Image.Image:
    """A photograph in RGB as viewers show it: turned as its camera noted.

    Raises:
        ImageError: it cannot be read, or is too large.
    """
    return ImageOps.exif_transpose(read_image(path))


def detect_on(trained: Trained, picture: Image.Image) -> dict[str, Any]:
    """{"image_id", "scores", "labels", "boxes"}, boxes (x1, y1, x2, y2) in pixels of the picture, on the CPU.

    Raises:
        ValueError: a score or a box is not finite.
    """
    sample = Sample(
        image=tensor_of(picture),
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        image_id=0,
        original_size=(picture.height, picture.width),
    )
    device = next(trained.model.parameters()).device
    batch = collate([trained.recipe.data.augmentation.evaluation(sample)]).to(device)
    with torch.inference_mode():
        found = detections(trained.trainable, trained.model, batch)[0]
    on_cpu = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in found.items()}
    if not all(on_cpu[name].isfinite().all() for name in ("scores", "boxes")):
        raise ValueError("the model gives scores or boxes that are not finite: its training diverged")
    return on_cpu


def as_json(drawn: Drawn, categories: Categories) -> list[dict[str, Any]]:
    """[{"category", "category_id", "score", "box": [x1, y1, x2, y2]}, ...]"""
    assert drawn.scores is not None
    rows = zip(drawn.labels.tolist(), drawn.scores.tolist(), drawn.boxes.tolist(), strict=True)
    return [
        {
            "category": categories.names[label],
            "category_id": categories.id_of(label),
            "score": round(score, 4),
            "box": [round(side, 2) for side in box],
        }
        for label, score, box in rows
    ]


def table_of(drawn: Drawn, categories: Categories, title: str) -> Table:
    """A line for each box, in pixels."""
    table = Table(title=title, title_justify="left")
    table.add_column("category")
    for column in ("score", "x1", "y1", "x2", "y2"):
        table.add_column(column, justify="right")
    for each in as_json(drawn, categories):
        table.add_row(each["category"], f"{each['score']:.3f}", *(f"{side:.0f}" for side in each["box"]))
    if not len(drawn.boxes):
        table.add_row("nothing", *[""] * 5)
    return table
