"""A data set of coloured shapes, made here and written as COCO's files are: for a first training that needs nothing.

Small, but no toy: images of different sizes, so that batches are padded; a class is a shape, and colour says nothing of
it; some shapes are small, they cover each other and lie on gradients with noise; some images have none. Category ids
have gaps, as COCO's have.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from detr_reference.data.shape_sides import SIDES, check_sides

Color = tuple[int, int, int]
Mask = Bool[np.ndarray, "height width"]
Pixels = UInt8[np.ndarray, "height width 3"]

CATEGORIES = {1: "circle", 2: "square", 5: "triangle"}  # by id
NAMES = tuple(CATEGORIES.values())
OUTLINES = {  # corners on a circle of radius 1, y down
    "square": [(u * math.sqrt(0.5), v * math.sqrt(0.5)) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))],
    "triangle": [(0.0, -1.0), (math.sqrt(0.75), 0.5), (-math.sqrt(0.75), 0.5)],
}
RADII = (
    (6.5, 10.0),
    (10.0, 17.0),
    (14.0, 20.0),
    (16.0, 27.0),
)  # a quarter each, in images of SIDES
MOST = 5  # shapes on an image
EMPTY = 0.08  # share of images without any
COVERED = 0.25  # at most this share of a shape's pixels is hidden by others
CONTRAST = 180  # least sum of the differences in red, green and blue between a shape and what it is drawn on
ATTEMPTS = 40  # to find a place for a shape
LARGEST = 100_000  # images of a set


def write_shapes(
    folder: Path, *, images: int, validation_images: int, seed: int, sides: tuple[int, int, int] = SIDES
) -> None:
    """Writes train2017/, val2017/ and annotations/instances_{train,val}2017.json, as COCO is laid out.

    The same numbers and seed give the same files. The validation images are others than the training images of this or
    any other number.

    Args:
        folder: made if it is not there.
        images, validation_images: how many.
        seed: of all that is drawn.
        sides: the least and the greatest width and height of an image and the step between them, in pixels; the
            shapes grow with the least.

    Raises:
        ValueError: a number is below 1 or above `LARGEST`, or sides are refused by `check_sides`.
    """
    check_sides(sides)
    for name, count in (("images", images), ("validation_images", validation_images)):
        if not 1 <= count <= LARGEST:
            raise ValueError(f"{name} must be between 1 and {LARGEST}, got {count}")
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for part, count in (("train2017", images), ("val2017", validation_images)):
        (folder / part).mkdir(exist_ok=True)
        dataset = _write_part(folder / part, count, random.Random(f"{seed} {part}"), sides)
        path = folder / "annotations" / f"instances_{part}.json"
        path.write_text(json.dumps(dataset), encoding="utf-8")


def draw_shapes(rng: random.Random, sides: tuple[int, int, int] = SIDES) -> tuple[Pixels, list[tuple[str, Mask]]]:
    """An image, and the name and the visible pixels of each shape, those behind first."""
    least, greatest, step = sides
    width, height = (rng.randrange(least, greatest + 1, step) for _ in range(2))
    pixels = _background(width, height, rng)
    wanted = 0 if rng.random() < EMPTY else rng.randint(1, MOST)
    shapes: list[tuple[str, Mask]] = []  # whole ones
    visible: list[Mask] = []
    for _ in range(wanted):
        found = _free_place(pixels, [mask for _, mask in shapes], visible, least / SIDES[0], rng)
        if found is not None:
            name, mask, color = found
            pixels[mask] = color
            visible = [*(other & ~mask for other in visible), mask]
            shapes.append((name, mask))
    return pixels, [(name, mask) for (name, _), mask in zip(shapes, visible, strict=True)]


def _write_part(folder: Path, count: int, rng: random.Random, sides: tuple[int, int, int]) -> dict[str, Any]:
    ids = {name: number for number, name in CATEGORIES.items()}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        pixels, shapes = draw_shapes(rng, sides)
        file_name = f"{number:06}.png"
        Image.fromarray(pixels).save(folder / file_name, compress_level=1)  # noise hardly compresses
        height, width, _ = pixels.shape
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        for name, mask in shapes:
            about = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[name], "iscrowd": 0}
            annotations.append(about | annotation_of(mask))
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def annotation_of(mask: Mask) -> dict[str, Any]:
    """Box, area and segmentation of some pixels, of which there is at least one, as COCO has them.

    The box is (x, y, width, height) and holds the pixels whole; the segmentation is the lengths of the runs of pixels
    that are out and in by turns, out first, column after column.
    """
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    flat = np.concatenate(([False], mask.T.ravel(), [not mask[-1, -1]]))  # both ends are made changes
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {
        "bbox": [int(each) for each in box],
        "area": int(mask.sum()),
        "segmentation": {"size": list(mask.shape), "counts": np.diff(changes, prepend=0).tolist()},
    }


def _background(width: int, height: int, rng: random.Random) -> Pixels:
    """From one colour to another across the image, with noise."""
    first, second = (np.array(_color(rng), dtype=np.float64) for _ in range(2))
    along = np.linspace(0, 1, width)[None, :, None] if rng.random() < 0.5 else np.linspace(0, 1, height)[:, None, None]
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 6, (height, width, 3))
    return (first + (second - first) * along + noise).clip(0, 255).astype(np.uint8)


def _free_place(
    pixels: Pixels, whole: Sequence[Mask], visible: Sequence[Mask], scale: float, rng: random.Random
) -> tuple[str, Mask, Color] | None:
    """Name, pixels and colour of a shape that can be seen and leaves the others visible; None if none is found."""
    height, width, _ = pixels.shape
    for _ in range(ATTEMPTS):
        name, radius, color = rng.choice(NAMES), scale * rng.uniform(*rng.choice(RADII)), _color(rng)
        x, y = (rng.uniform(radius, side - radius) for side in (width, height))
        mask = _mask(name, (width, height), x, y, radius)
        shown = ((seen & ~mask).sum() / one.sum() for one, seen in zip(whole, visible, strict=True))
        if _stands_out(color, pixels[mask]) and all(share >= 1 - COVERED for share in shown):
            return name, mask, color
    return None


def _stands_out(color: Color, pixels: UInt8[np.ndarray, "pixel 3"]) -> bool:
    """Whether it differs enough from all but a twentieth of the pixels."""
    difference = np.abs(pixels.astype(np.int64) - color).sum(-1)
    return bool((difference < CONTRAST).mean() <= 0.05)


def _mask(name: str, size: tuple[int, int], x: float, y: float, radius: float) -> Mask:
    """Where the shape is."""
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    if name == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    else:
        draw.polygon([(x + radius * u, y + radius * v) for u, v in OUTLINES[name]], fill=1)
    return np.array(mask)


def _color(rng: random.Random) -> Color:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)
