"""A small data set in COCO's format on disk, in order until a test breaks it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = {4: (20, 30), 7: (24, 16), 9: (10, 10)}  # (height, width) by image id


@dataclass
class CocoFolder:
    """Three images (4: two boxes and a crowd, 7: one box, 9: none) with category ids 3 and 5."""

    images: Path
    annotations: Path
    dataset: Any

    def save(self) -> CocoFolder:
        self.annotations.write_text(json.dumps(self.dataset))
        return self

    def file(self, image_id: int) -> Path:
        return self.images / f"{image_id}.png"


def coco_folder(folder: Path) -> CocoFolder:
    images = folder / "images"
    images.mkdir()
    pixels = np.random.default_rng(0)
    for image_id, size in SIZES.items():
        Image.fromarray(pixels.integers(0, 256, (*size, 3), dtype=np.uint8)).save(images / f"{image_id}.png")
    dataset = {
        "images": [
            {"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width}
            for image_id, (height, width) in SIZES.items()
        ],
        "annotations": [
            annotation(1, 4, 5, [2, 3, 10, 8]),
            annotation(2, 4, 3, [25.5, 15, 10, 10]),
            annotation(3, 4, 3, [0, 0, 30, 20], iscrowd=1),
            annotation(4, 7, 5, [1, 1, 5, 6]),
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    return CocoFolder(images, folder / "annotations.json", dataset).save()


def annotation(number: int, image_id: int, category_id: int, bbox: list[float], iscrowd: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": iscrowd,
    }
