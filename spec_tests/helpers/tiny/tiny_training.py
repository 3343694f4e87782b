"""A tiny recipe and a handful of images in COCO's format, so that a whole training takes a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detr_reference.data.coco import CocoDetection
from detr_reference.training.recipes.recipe import Recipe

TINY_DINO = {
    "name": "dino",
    "num_classes": 2,
    "num_queries": 4,
    "embed_dim": 8,
    "num_heads": 2,
    "feedforward_dim": 8,
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "num_levels": 2,
    "num_points": 1,
    "neck_groups": 2,
    "denoising_number": 4,
    "dropout": 0.1,
    "backbone_blocks": [1, 1, 1, 1],
    "backbone_width": 4,
    "backbone_stages": [3, 4],
}
SECTIONS: dict[str, dict[str, Any]] = {
    "model": TINY_DINO,
    "data": {"set": "coco", "scales": [48, 56], "max_size": 96, "evaluation_scale": 48},
    "training": {
        "epochs": 2,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "backbone_learning_rate": 1e-4,
        "drops": [1],
        "warmup_steps": 2,
        "ema_decay": 0.9,
        "checkpoint_steps": 2,
    },
}

# Of the run that is killed again and again: a step has two batches.
KILLED = {"epochs": 3, "accumulation": 2, "checkpoint_steps": 3}


def tiny_recipe(model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **training: Any) -> Recipe:
    """With these values in its sections."""
    changes = {"model": model or {}, "data": data or {}, "training": training}
    sections = {name: {**section, **changes[name]} for name, section in SECTIONS.items()}
    return Recipe.from_dict({"name": "tiny", "about": "for tests", **sections})


def write_images(folder: Path, sizes: list[tuple[int, int]], boxes: list[int], seed: int = 0) -> tuple[Path, Path]:
    """PNGs of noise of these (height, width) with so many boxes each; the folder, and the file of annotations."""
    drawn = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number, ((height, width), count) in enumerate(zip(sizes, boxes, strict=True), start=1):
        pixels = drawn.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for _ in range(count):
            x, y = int(drawn.integers(0, width // 2)), int(drawn.integers(0, height // 2))
            box = {"bbox": [x, y, width // 3, height // 3], "area": (width // 3) * (height // 3), "iscrowd": 0}
            category = int(drawn.integers(1, 3))
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, **box})
    file = folder.parent / f"{folder.name}.json"
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return folder, file


def write_tiny_images(folder: Path) -> None:
    """Nine to train on, of two sizes, some without boxes; three to evaluate on."""
    sizes = [(48, 64), (56, 48), (48, 64)] * 3
    write_images(folder / "train", sizes, [1, 2, 0, 3, 1, 1, 2, 0, 1])
    write_images(folder / "val", sizes[:3], [1, 0, 2], seed=1)


def tiny_images(folder: Path) -> tuple[CocoDetection, CocoDetection]:
    """What `write_tiny_images` wrote there."""
    return CocoDetection(folder / "train", folder / "train.json"), CocoDetection(folder / "val", folder / "val.json")
