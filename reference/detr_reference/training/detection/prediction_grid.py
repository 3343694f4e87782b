"""Predictions beside the ground truth, on several images of a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detr_reference.data.coco import CocoDetection
from detr_reference.training.detection.drawing import Drawn, above, draw_boxes

GAP, HEADER = 12, 34  # pixels between pictures, and of the line above them
PAIRS_A_ROW = 2
NOTHING = {"scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}


def draw_predictions(
    dataset: CocoDetection,
    detections: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    images: int = 6,
    threshold: float = 0.3,
) -> None:
    """Writes a PNG of some images, evenly chosen from the dataset, with ground truth and detections.

    Args:
        detections: {"image_id", "scores", "labels", "boxes"} of each image, see `coco_results`.
        images: how many; all where there are fewer.
        threshold: the least score that is drawn.
    """
    found = {int(detection["image_id"]): detection for detection in detections}
    chosen = torch.linspace(0, len(dataset) - 1, min(images, len(dataset))).round().long().tolist()
    triples = []
    for index in chosen:
        sample = dataset[index]
        truth = Drawn(sample.boxes, sample.labels)
        triples.append((picture_of(sample.image), truth, above(found.get(sample.image_id, NOTHING), threshold)))
    draw_grid(triples, dataset.categories.names).save(path)


def picture_of(image: Float[Tensor, "3 height width"]) -> Image.Image:
    """RGB of values in [0, 1]."""
    return Image.fromarray((255 * image.cpu()).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def draw_grid(
    triples: Sequence[tuple[Image.Image, Drawn, Drawn]], names: Sequence[str], *, side: int = 480
) -> Image.Image:
    """Two columns of pairs: an image with its ground truth on the left and with the detections on the right.

    Args:
        triples: (image, ground truth, detections).
        names: of the labels.
        side: the longer side of every picture, in pixels.

    Raises:
        ValueError: there is no image.
    """
    if not triples:
        raise ValueError("there is no image to draw predictions on")
    pairs = [[_fitted(image, drawn, names, side) for drawn in both] for image, *both in triples]
    rows = [pairs[start : start + PAIRS_A_ROW] for start in range(0, len(pairs), PAIRS_A_ROW)]
    heights = [max(picture.height for pair in row for picture in pair) for row in rows]
    pairs_a_row = min(PAIRS_A_ROW, len(pairs))
    places = [GAP + column * (side + GAP) + column // 2 * GAP for column in range(2 * pairs_a_row)]
    sheet = Image.new("RGB", (places[-1] + side + GAP, HEADER + sum(heights) + GAP * len(rows)), "white")
    _header(sheet, places)
    top = HEADER
    for row, height in zip(rows, heights, strict=True):
        for left, picture in zip(places, (picture for pair in row for picture in pair), strict=False):
            sheet.paste(picture, (left, top))
        top += height + GAP
    return sheet


def _header(sheet: Image.Image, places: Sequence[int]) -> None:
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for column, left in enumerate(places):
        canvas.text((left, 8), ("ground truth", "predictions")[column % 2], fill="black", font=font)


def _fitted(image: Image.Image, drawn: Drawn, names: Sequence[str], side: int) -> Image.Image:
    """The picture at its size on the sheet, with lines and text of that size."""
    share = side / max(image.size)
    size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    return draw_boxes(image.resize(size, Image.Resampling.BICUBIC), drawn._replace(boxes=drawn.boxes * share), names)
