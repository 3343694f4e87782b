"""Boxes on images: where they are drawn, in which colour, and names that stay readable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from detr_reference.training.detection import drawing
from detr_reference.training.detection.drawing import Drawn, above, colour_of, draw_boxes

NAMES = ["cat", "dog", "a name " * 13]
SIZE = (600, 500)
GREY = (120, 120, 120)


def drawn(*boxes: tuple[float, float, float, float], labels: list[int] | None = None, score: float = 0.9) -> Drawn:
    count = len(boxes)
    return Drawn(
        torch.tensor(boxes, dtype=torch.float64).reshape(count, 4),
        torch.tensor(labels or [0] * count, dtype=torch.int64),
        torch.full((count,), score),
    )


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def has_colour(picture: np.ndarray, label: int) -> np.ndarray:
    return (picture == np.array(colour_of(label))).all(-1)


def test_lines_run_along_the_box_and_the_rest_stays() -> None:
    image = Image.new("RGB", SIZE, GREY)
    picture = pixels(draw_boxes(image, drawn((100, 200, 300, 400)), NAMES))
    red = has_colour(picture, 0)
    assert red[200, 100:301].all()
    assert red[400, 100:301].all()
    assert red[200:401, 100].all()
    assert red[200:401, 300].all()
    inside_and_below = np.r_[picture[205:396, 105:296].reshape(-1, 3), picture[402:].reshape(-1, 3)]
    assert (inside_and_below == GREY).all()
    assert (pixels(image) == GREY).all()


def test_a_box_beyond_the_image_is_drawn_along_its_border() -> None:
    picture = pixels(draw_boxes(Image.new("RGB", SIZE, GREY), drawn((-50, 200, 900, 1e9)), NAMES))
    assert has_colour(picture, 0)[250:, 0].all()
    assert has_colour(picture, 0)[250:, -2:].all()
    assert has_colour(picture, 0)[-2:].all()


def test_the_best_lies_on_top() -> None:
    both = drawn((100, 200, 300, 400), (100, 200, 350, 400), labels=[0, 1])
    picture = pixels(draw_boxes(Image.new("RGB", SIZE, GREY), both, NAMES))
    assert has_colour(picture, 0)[250:390, 100].all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_other_modes(mode: str) -> None:
    assert has_colour(pixels(draw_boxes(Image.new(mode, SIZE), drawn((10, 200, 30, 400)), NAMES)), 0)[300, 10]


def test_nothing_is_drawn_without_boxes() -> None:
    assert (pixels(draw_boxes(Image.new("RGB", SIZE, GREY), drawn(), NAMES)) == GREY).all()


def test_a_small_image_is_enlarged_with_its_boxes() -> None:
    picture = draw_boxes(Image.new("RGB", (100, 64), GREY), drawn((20, 30, 60, 50)), NAMES)
    assert picture.size == (500, 320)
    assert has_colour(pixels(picture), 0)[200, 100]
    assert has_colour(pixels(picture), 0)[250, 300]


@pytest.mark.parametrize("label", [0, 2])
def test_names_stay_within_the_image(label: int) -> None:
    """Of boxes in all corners, beyond them, and over everything."""
    width, height = SIZE
    sides = ((-20, 15), (0, 8), (250, 300), (width - 8, width), (width - 4, width + 60))
    boxes = [
        (x1, y1 * height / width, x2, y2 * height / width) for (x1, x2), (y1, y2) in itertools.product(sides, sides)
    ]
    texts = drawing._texts(drawn(*boxes, labels=[label] * len(boxes)), NAMES)
    inside = [drawing._inside(box, SIZE) for box in drawn(*boxes).boxes.tolist()]
    for placed in drawing._placed(texts, inside, SIZE):
        assert 0 <= placed.x <= placed.x + placed.across <= width
        assert 0 <= placed.y <= placed.y + placed.down <= height
        assert placed.text.startswith(NAMES[label][:3])
        assert placed.text.endswith("..." if label == 2 else "cat 0.90")


def test_names_of_neighbours_do_not_hide_each_other() -> None:
    boxes = [(100.0, 100.0, 300.0, 300.0), (104.0, 101.0, 305.0, 300.0), (102.0, 98.0, 299.0, 300.0)]
    placed = drawing._placed(["cat 0.90"] * 3, boxes, SIZE)
    for first, second in itertools.combinations(placed, 2):
        apart = (
            first.x + first.across <= second.x
            or second.x + second.across <= first.x
            or first.y + first.down <= second.y
            or second.y + second.down <= first.y
        )
        assert apart


def test_the_ground_truth_has_no_scores() -> None:
    given = drawn((0, 0, 9, 9), labels=[1])
    assert drawing._texts(given, NAMES) == ["dog 0.90"]
    assert drawing._texts(given._replace(scores=None), NAMES) == ["dog"]


def test_text_is_written_in_a_colour_that_shows() -> None:
    """Black or white, whichever differs more from the background, for each of the first labels."""
    for label in range(12):
        picture = pixels(draw_boxes(Image.new("RGB", SIZE, GREY), drawn((9, 99, 300, 400), labels=[label]), NAMES * 4))
        black, white = ((picture == ink).all(-1).any() for ink in (0, 255))
        assert black != white
        brightness = np.dot(colour_of(label), (0.299, 0.587, 0.114))
        assert abs(brightness - (0 if black else 255)) > 100


def test_colours_of_labels_differ() -> None:
    """Any two of the first six by a lot; all of COCO's by something."""
    colours = np.array([colour_of(label) for label in range(91)])
    apart = np.abs(colours[:, None] - colours).sum(-1) + 1000 * np.eye(91)
    assert apart[:6, :6].min() > 100
    assert apart.min() > 0


def test_detections_are_chosen_by_score_best_first() -> None:
    found = {
        "image_id": 1,
        "scores": torch.tensor([0.2, 0.9, 0.3, 0.5], dtype=torch.float32),
        "labels": torch.tensor([0, 1, 2, 3]),
        "boxes": torch.arange(16.0).reshape(4, 4),
    }
    assert above(found, 0.25).labels.tolist() == [1, 3, 2]
    assert above(found, 0.25, top=2).labels.tolist() == [1, 3]
    assert above(found, 0.25).boxes[0].tolist() == [4, 5, 6, 7]
    assert len(above(found, 0.95).boxes) == 0
