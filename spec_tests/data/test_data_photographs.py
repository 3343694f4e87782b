"""The same on real photographs of COCO 2017, with crowds and images without boxes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detr_reference.data.augmentation import Augmentation
from detr_reference.data.batches import collate
from detr_reference.data.coco import CocoDetection, checked
from detr_reference.data.loading import EvaluationImages, TrainingImages
from detr_reference.losses.batch_targets import batch_targets
from detr_reference.losses.boxes import box_cxcywh_to_xyxy

SMALL = Augmentation(scales=(96, 128), max_size=214, crop_scales=(100, 120), crop_range=(64, 100), evaluation_scale=96)


def photographs(shared_data: Path, part: str, *, decode: bool = False) -> CocoDetection:
    folder = shared_data / "tiny_coco"
    return checked(folder / f"{part}2017", folder / "annotations" / f"instances_{part}2017.json", decode=decode)


@pytest.mark.parametrize(("part", "annotated", "crowds", "without"), [("train", 470, 5, 1), ("val", 382, 5, 2)])
def test_counts(part: str, annotated: int, crowds: int, without: int, shared_data: Path) -> None:
    dataset = photographs(shared_data, part, decode=part == "val")
    boxes = [dataset.boxes_and_labels(index)[0] for index in range(len(dataset))]
    assert len(dataset) == 50
    assert len(dataset.coco.anns) == annotated
    assert sum(map(len, boxes)) == annotated - crowds
    assert sum(len(each) == 0 for each in boxes) == without
    assert len(dataset.categories) == 80
    assert (dataset.categories.ids[0], dataset.categories.names[0]) == (1, "person")
    assert (dataset.categories.id_of(79), dataset.categories.names[79]) == (90, "toothbrush")


def test_a_photograph(shared_data: Path) -> None:
    dataset = photographs(shared_data, "train")
    first = dataset[0]
    assert (first.image_id, first.original_size) == (5802, (479, 640))
    annotated = [each for each in dataset.coco.imgToAnns[5802] if not each["iscrowd"]]
    assert len(first.boxes) == len(annotated)
    x, y, width, height = annotated[0]["bbox"]
    torch.testing.assert_close(first.boxes[0], torch.tensor([x, y, x + width, y + height]))
    assert [dataset.categories.id_of(int(label)) for label in first.labels] == [
        each["category_id"] for each in annotated
    ]


def test_a_batch_to_train_on(shared_data: Path) -> None:
    dataset = photographs(shared_data, "train")
    images = TrainingImages(dataset, SMALL, 0)
    empty = next(index for index in range(50) if not len(dataset.boxes_and_labels(index)[1]))
    batch = collate([images[index] for index in (0, 1, 2, empty)])
    targets = batch_targets(*batch.targets, batch=4, num_classes=80)
    assert targets.counts[3] == 0
    assert int(targets.counts.sum()) > 0
    corners = box_cxcywh_to_xyxy(targets.boxes)
    assert float(corners.min()) >= -1e-6
    assert float(corners.max()) <= 1 + 1e-6
    assert bool((corners[:, 2:] > corners[:, :2]).all())
    assert bool(batch.images.isfinite().all())


def test_evaluation_keeps_what_leads_back_to_the_photograph(shared_data: Path) -> None:
    dataset = photographs(shared_data, "val")
    sample = EvaluationImages(dataset, SMALL)[0]
    truth, _ = dataset.boxes_and_labels(0)
    height, width = sample.original_size
    batch = collate([sample])
    back = box_cxcywh_to_xyxy(batch.targets.boxes) * torch.tensor([width, height, width, height])
    torch.testing.assert_close(back, truth, atol=1e-3, rtol=0)
