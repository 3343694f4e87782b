"""Predictions beside the ground truth: which images, where on the sheet, and what is drawn on each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detr_reference.data.coco import CocoDetection
from detr_reference.training.detection.drawing import Drawn, colour_of
from detr_reference.training.detection.prediction_grid import GAP, HEADER, draw_grid, draw_predictions
from helpers.tiny.trained_cases import write_coco

NAMES = ["cat", "dog"]
NOTHING = Drawn(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def coloured(picture: Image.Image, label: int) -> np.ndarray:
    return (np.asarray(picture) == colour_of(label)).all(-1)


def test_ground_truth_stands_on_the_left_and_predictions_on_the_right() -> None:
    image = Image.new("RGB", (240, 120))
    truth = Drawn(torch.tensor([[24.0, 60.0, 120.0, 96.0]]), torch.tensor([0]))
    found = Drawn(torch.tensor([[24.0, 60.0, 120.0, 96.0]]), torch.tensor([1]), torch.tensor([0.5]))
    sheet = draw_grid([(image, truth, found)], NAMES)
    assert sheet.size == (2 * 480 + 3 * GAP, HEADER + 240 + GAP)
    left, right = GAP + 48, GAP + 480 + GAP + 48
    assert coloured(sheet, 0)[HEADER + 120 : HEADER + 192, left].all()
    assert coloured(sheet, 1)[HEADER + 120 : HEADER + 192, right].all()
    assert not coloured(sheet, 0)[:, GAP + 480 :].any()
    assert not coloured(sheet, 1)[:, : GAP + 480].any()


def test_rows_have_two_images_and_the_height_of_the_taller() -> None:
    sizes = [(480, 100), (480, 300), (240, 120)]
    sheet = draw_grid([(Image.new("RGB", size), NOTHING, NOTHING) for size in sizes], NAMES)
    assert sheet.height == HEADER + 300 + GAP + 240 + GAP
    assert sheet.getpixel((GAP, HEADER + 300 + GAP)) == (0, 0, 0)
    assert sheet.getpixel((sheet.width - GAP - 1, sheet.height - GAP - 1)) == (255, 255, 255)


def test_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="no image"):
        draw_grid([], NAMES)


def test_images_of_a_dataset_are_drawn_with_what_was_found_on_them(tmp_path: Path) -> None:
    """Of four images the first and the last; the last has a car in its middle, and a person was found there."""
    folder = write_coco(tmp_path)
    dataset = CocoDetection(folder / "val2017", folder / "annotations" / "instances_val2017.json")
    found = {
        "image_id": 4,
        "scores": torch.tensor([0.9, 0.1]),
        "labels": torch.tensor([0, 0]),
        "boxes": torch.tensor([[25.0, 10.0, 75.0, 30.0], [0.0, 0.0, 99.0, 39.0]]),
    }
    draw_predictions(dataset, [found], tmp_path / "sheet.png", images=2)
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (4 * 480 + 6 * GAP, HEADER + 320 + GAP)
    car, person = coloured(sheet, 1), coloured(sheet, 0)
    columns = [GAP + column * (480 + GAP) + column // 2 * GAP for column in range(4)]
    on = [[mask[HEADER:, left : left + 480].any() for left in columns] for mask in (car, person)]
    assert on == [[False, False, True, False], [False, False, False, True]]
    assert person[HEADER + 60 : HEADER + 140, columns[3] + 120].all()
    assert not person[HEADER : HEADER + 30, columns[3]].any()
