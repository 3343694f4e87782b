"""The generated data set: real COCO files, boxes to the pixel, and the difficulties that it promises."""

from __future__ import annotations

import json
import math
import random
import re
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detr_reference.data import shapes
from detr_reference.data.coco import CocoDetection
from detr_reference.data.coco_problems import problems
from detr_reference.data.shapes import annotation_of, draw_shapes, write_shapes

IMAGES, VALIDATION = 24, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, images=IMAGES, validation_images=VALIDATION, seed=3)
    return folder


@pytest.fixture(scope="module")
def training(folder: Path) -> CocoDetection:
    return CocoDetection(folder / "train2017", folder / "annotations/instances_train2017.json")


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Any, list[tuple[str, Any]]]]:
    rng = random.Random(5)
    return [draw_shapes(rng) for _ in range(100)]


def test_the_files_have_no_problems(folder: Path) -> None:
    for part in ("train2017", "val2017"):
        assert not problems(folder / part, folder / "annotations" / f"instances_{part}.json")


def test_the_loader_reads_every_image_and_maps_ids_with_gaps(training: CocoDetection) -> None:
    assert len(training) == IMAGES
    ids = list(training.categories.ids)
    assert ids == sorted(shapes.CATEGORIES) != list(range(1, len(ids) + 1))
    sample = training[0]
    expected = training.coco.loadAnns(training.coco.getAnnIds(sample.image_id))
    assert [training.categories.id_of(label) for label in sample.labels.tolist()] == [
        each["category_id"] for each in expected
    ]


def test_boxes_areas_and_segmentations_are_those_of_the_painted_pixels(folder: Path, training: CocoDetection) -> None:
    coco = training.coco
    for record in coco.loadImgs(coco.getImgIds()):
        pixels = np.array(Image.open(folder / "train2017" / record["file_name"]), dtype=np.int64)
        assert pixels.shape == (record["height"], record["width"], 3)
        for each in coco.loadAnns(coco.getAnnIds(record["id"])):
            mask = coco.annToMask(each).astype(bool)
            colors = np.unique(pixels[mask], axis=0)
            assert len(colors) == 1, "a shape has one colour"
            x, y, width, height = each["bbox"]
            near = np.zeros_like(mask)
            near[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1] = True
            assert ((pixels == colors[0]).all(-1) & near == mask).all(), "all that is painted is in it, and no more"
            rows, columns = np.nonzero(mask)
            assert each["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert each["area"] == mask.sum()
            assert each["iscrowd"] == 0


@pytest.mark.parametrize("corner", [(0, 0), (0, 2), (3, 0), (3, 2), (1, 1)])
def test_a_segmentation_of_one_pixel_at_each_end(corner: tuple[int, int]) -> None:
    mask = np.zeros((4, 3), dtype=bool)
    mask[corner] = True
    counts = annotation_of(mask)["segmentation"]["counts"]
    filled = np.repeat(np.arange(len(counts)) % 2, counts)
    assert np.array_equal(filled.reshape(3, 4).T, mask)


def test_the_same_seed_gives_the_same_files_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    def content(where: Path) -> dict[str, bytes]:
        return {str(path.relative_to(where)): path.read_bytes() for path in where.rglob("*") if path.is_file()}

    write_shapes(tmp_path / "same", images=IMAGES, validation_images=VALIDATION, seed=3)
    assert content(tmp_path / "same") == content(folder)
    write_shapes(tmp_path / "other", images=2, validation_images=2, seed=4)
    other, first = content(tmp_path / "other"), content(folder)
    assert not set(other.values()) & set(first.values())


def test_training_and_validation_share_no_image(folder: Path) -> None:
    training, validation = (
        {path.read_bytes() for path in (folder / part).iterdir()} for part in ("train2017", "val2017")
    )
    assert (len(training), len(validation)) == (IMAGES, VALIDATION)
    assert not training & validation


def test_more_training_images_leave_the_validation_images_as_they_are(folder: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path, images=1, validation_images=VALIDATION, seed=3)
    name = "annotations/instances_val2017.json"
    assert json.loads((tmp_path / name).read_text()) == json.loads((folder / name).read_text())


def test_colour_says_nothing_of_the_class(drawn: list[tuple[Any, list[tuple[str, Any]]]]) -> None:
    colors = defaultdict(list)
    for pixels, found in drawn:
        for name, mask in found:
            colors[name].append(pixels[mask][0].astype(np.float64))
    assert set(colors) == set(shapes.NAMES)
    everything = np.concatenate(list(colors.values()))
    for name, own in colors.items():
        error = everything.std(0) / math.sqrt(len(own))
        assert (np.abs(np.mean(own, 0) - everything.mean(0)) < 4 * error).all(), name
        assert (np.std(own, 0) > 0.8 * everything.std(0)).all(), name


def test_what_is_promised_of_the_images(drawn: list[tuple[Any, list[tuple[str, Any]]]]) -> None:
    sizes = {pixels.shape for pixels, _ in drawn}
    assert len(sizes) > 80
    assert {side for size in sizes for side in size[:2]} <= set(range(shapes.SIDES[0], shapes.SIDES[1] + 1))
    assert 2 <= sum(not found for _, found in drawn) <= 20, "some images have no shapes"
    assert max(len(found) for _, found in drawn) == shapes.MOST
    boxes = [[annotation_of(mask)["bbox"] for _, mask in found] for _, found in drawn]
    assert sum(overlap(*pair) for each in boxes for pair in combinations(each, 2)) > 30
    lengths = [max(box[2:]) for each in boxes for box in each]
    assert sum(length <= 20 for length in lengths) > 0.15 * len(lengths), "many are small"
    assert sum(length >= 32 for length in lengths) > 0.15 * len(lengths), "many are large"


def test_a_covered_shape_keeps_most_of_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Circles tell how much of them is seen: a whole one fills pi/4 of its box."""

    def filled() -> list[float]:
        rng = random.Random(7)
        found = [each for _ in range(30) for each in draw_shapes(rng)[1] if each[0] == "circle"]
        about = [annotation_of(mask) for _, mask in found]
        return [each["area"] / (each["bbox"][2] * each["bbox"][3]) / (math.pi / 4) for each in about]

    assert 0.6 < min(filled()) < 0.9
    monkeypatch.setattr(shapes, "COVERED", 0.0)
    assert min(filled()) > 0.93


@pytest.mark.parametrize(("name", "share"), [("circle", 0.785), ("triangle", 0.5), ("square", 1.0)])
def test_a_name_is_a_shape(name: str, share: float) -> None:
    mask = shapes._mask(name, (96, 96), 48.0, 48.0, 25.0)
    about = annotation_of(mask)
    assert about["area"] / (about["bbox"][2] * about["bbox"][3]) == pytest.approx(share, abs=0.03)


def test_shapes_grow_with_the_images() -> None:
    def images(sides: tuple[int, int, int]) -> list[tuple[Any, list[tuple[str, Any]]]]:
        rng = random.Random(9)
        return [draw_shapes(rng, sides) for _ in range(60)]

    def mean_length(drawn: list[tuple[Any, list[tuple[str, Any]]]]) -> float:
        return float(np.mean([max(annotation_of(mask)["bbox"][2:]) for _, found in drawn for _, mask in found]))

    large = images((128, 192, 32))
    assert {side for pixels, _ in large for side in pixels.shape[:2]} == {128, 160, 192}
    assert mean_length(large) == pytest.approx(2 * mean_length(images(shapes.SIDES)), rel=0.15)


@pytest.mark.parametrize("sides", [(63, 96, 1), (96, 64, 1), (96, 4097, 1), (64, 96, 0)])
def test_sides_that_cannot_be(tmp_path: Path, sides: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"sides must be the least, the greatest .* got {re.escape(str(sides))}"):
        write_shapes(tmp_path / "x", images=1, validation_images=1, seed=0, sides=sides)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("number", [0, -1, shapes.LARGEST + 1])
def test_a_number_of_images_that_cannot_be(tmp_path: Path, number: int) -> None:
    with pytest.raises(ValueError, match=rf"images must be between 1 and {shapes.LARGEST}, got {number}"):
        write_shapes(tmp_path / "x", images=number, validation_images=1, seed=0)
    assert not (tmp_path / "x").exists()


def overlap(box: list[int], other: list[int]) -> bool:
    return all(box[i] < other[i] + other[i + 2] and other[i] < box[i] + box[i + 2] for i in (0, 1))
