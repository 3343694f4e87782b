"""A tiny published DETR that finds one box, the middle of every image, and images to look for it on.

The middle box has half the sides of its image; the model says "car" (COCO's id 3) with the score `SCORE`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from helpers import published_models as published

RECORD = published.load_record("detr")
CAR = 3
SCORE = 0.8


def recipe_text(**model: Any) -> str:
    """A recipe of the recorded model, but with one query."""
    settings = {**RECORD["config"], "num_queries": 1, **model}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join(
        [
            'name = "tiny"',
            'about = "DETR, very small."',
            "[model]",
            'name = "detr"',
            *lines,
            "[data]",
            'set = "coco"',
            "scales = [48]",
            "max_size = 80",
            "evaluation_scale = 48",
            "[training]",
            "epochs = 1",
            "batch_size = 2",
            "learning_rate = 1e-4",
            "backbone_learning_rate = 1e-5",
            "",
        ]
    )


def middle_state(queries: int) -> dict[str, Tensor]:
    """The recorded parameters under their published names, but fewer queries, and heads that see no image."""
    state = {name: tensor.float() for name, tensor in published.state_dict(RECORD).items()}
    state["query_embed.weight"] = state["query_embed.weight"][:queries]
    box, kind = "bbox_embed.layers.2", "class_embed"
    for name in (f"{box}.weight", f"{kind}.weight"):
        state[name] = torch.zeros_like(state[name])
    state[f"{box}.bias"] = torch.tensor([0.0, 0.0, 0.0, 0.0])  # the logits of (0.5, 0.5, 0.5, 0.5)
    rest = len(state[f"{kind}.bias"]) - 1
    state[f"{kind}.bias"] = torch.zeros(rest + 1)
    state[f"{kind}.bias"][CAR] = math.log(SCORE / (1 - SCORE) * rest)
    return state


def write_published(folder: Path, queries: int = 1) -> tuple[Path, Path]:
    """The file as the official code saves it, and a recipe."""
    weights, recipe = folder / "published.pth", folder / "tiny.toml"
    torch.save({"model": middle_state(queries), "epoch": 3}, weights)
    recipe.write_text(recipe_text(num_queries=queries))
    return weights, recipe


def write_image(path: Path, width: int, height: int, colour: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (colour, 120, 160)).save(path)


def write_coco(folder: Path) -> Path:
    """Four images of other sizes: the first without a box, of the others each has one car in the middle."""
    sizes = [(60, 40), (50, 80), (64, 64), (100, 40)]
    images, annotations = [], []
    for number, (width, height) in enumerate(sizes, start=1):
        name = f"{number:012}.png"
        write_image(folder / "val2017" / name, width, height)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        if number > 1:
            box = [width / 4, height / 4, width / 2, height / 2]
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": CAR,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": "person"}, {"id": CAR, "name": "car"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file = folder / "annotations" / "instances_val2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return folder
