"""Images put together as a batch, and the same images at every worker, in every order and after every resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from detr_reference.data.augmentation import Augmentation
from detr_reference.data.batches import Batch, collate
from detr_reference.data.coco import CocoDetection
from detr_reference.data.loading import EvaluationImages, TrainingImages
from detr_reference.data.sample import Sample
from detr_reference.losses.batch_targets import batch_targets
from detr_reference.losses.boxes import box_cxcywh_to_xyxy
from helpers.tiny.coco_folder import coco_folder

SMALL = Augmentation(scales=(8, 12, 16), max_size=32, crop_scales=(14,), crop_range=(6, 12), evaluation_scale=12)


def sample(height: int, width: int, boxes: list[list[float]], image_id: int = 3) -> Sample:
    labels = torch.arange(len(boxes))
    return Sample(
        torch.rand(3, height, width),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels,
        image_id,
        (70, 90),
    )


def test_padding_is_zero_and_masked_and_boxes_are_relative_to_their_own_image() -> None:
    tall, wide = sample(20, 10, [[0, 0, 10, 20], [5, 5, 10, 10]], 8), sample(5, 40, [[10, 1, 20, 3]], 4)
    batch = collate([tall, sample(4, 4, [], 6), wide])
    assert batch.images.shape == (3, 3, 20, 40)
    assert batch.mask.dtype == torch.bool
    assert not batch.mask[0, :20, :10].any()
    assert batch.mask[0, :, 10:].all()
    assert batch.mask[2, 5:].all()
    assert [int((~each).sum()) for each in batch.mask] == [200, 16, 200]
    assert torch.equal(batch.images[0, :, :20, :10], tall.image)
    assert torch.equal(batch.images[2, :, :5, :40], wide.image)
    assert not batch.images[batch.mask[:, None].expand(-1, 3, -1, -1)].any()
    assert batch.targets.counts.tolist() == [2, 0, 1]
    assert batch.targets.labels.tolist() == [0, 1, 0]
    expected = [[0.5, 0.5, 1, 1], [0.75, 0.375, 0.5, 0.25], [0.375, 0.4, 0.25, 0.4]]
    torch.testing.assert_close(batch.targets.boxes, torch.tensor(expected))
    assert batch.image_ids.tolist() == [8, 6, 4]
    assert batch.original_sizes.tolist() == [[70, 90]] * 3
    assert batch.original_sizes.dtype == batch.image_ids.dtype == torch.int64


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=4))
def test_boxes_come_back_at_their_own_size(shapes: list[tuple[int, int, int]]) -> None:
    samples = [
        sample(height, width, [[0.25, 0.5, width / 2, float(height)]] * boxes) for height, width, boxes in shapes
    ]
    batch = collate(samples)
    batch_targets(*batch.targets, batch=len(samples), num_classes=4)
    for number, each in enumerate(samples):
        height, width = each.size
        _, boxes = batch.targets.of_image(number)
        pixels = box_cxcywh_to_xyxy(boxes) * torch.tensor([width, height, width, height])
        torch.testing.assert_close(pixels, each.boxes)


def test_a_batch_without_any_box_and_one_without_any_image() -> None:
    targets = collate([sample(4, 4, []), sample(6, 4, [])]).targets
    assert (targets.boxes.shape, targets.labels.shape, targets.counts.tolist()) == ((0, 4), (0,), [0, 0])
    assert targets.labels.dtype == torch.int64
    with pytest.raises(ValueError, match="at least one image"):
        collate([])


def test_a_batch_goes_to_a_device_whole() -> None:
    moved = collate([sample(4, 4, [[0, 0, 2, 2]])]).to("meta")
    assert isinstance(moved, Batch)
    assert all(
        each.is_meta for each in (moved.images, moved.mask, *moved.targets, moved.image_ids, moved.original_sizes)
    )


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDetection:
    data = coco_folder(tmp_path)
    return CocoDetection(data.images, data.annotations)


def of_epoch(dataset: CocoDetection, seed: int, epoch: int, order: tuple[int, ...] = (0, 1, 2)) -> dict[int, Sample]:
    images = TrainingImages(dataset, SMALL, seed)
    images.set_epoch(epoch)
    return {index: images[index] for index in order}


def same(one: Sample, other: Sample) -> bool:
    return torch.equal(one.image, other.image) and torch.equal(one.boxes, other.boxes)


def test_an_image_depends_on_seed_epoch_and_index_alone(dataset: CocoDetection) -> None:
    first = of_epoch(dataset, 5, 2)
    torch.manual_seed(99)
    again = of_epoch(dataset, 5, 2, (2, 0, 1))
    assert all(same(first[index], again[index]) for index in range(3))
    for seed, epoch in ((5, 3), (6, 2), (2, 5)):
        other = of_epoch(dataset, seed, epoch)
        assert not all(same(first[index], other[index]) for index in range(3)), (seed, epoch)


def test_images_of_an_epoch_draw_for_themselves(tmp_path: Path) -> None:
    data = coco_folder(tmp_path)
    for entry in data.dataset["images"]:
        entry.update(file_name="4.png", height=20, width=30)
    twins = CocoDetection(data.images, data.save().annotations)
    epochs = [of_epoch(twins, 0, epoch) for epoch in range(8)]
    assert not all(torch.equal(each[0].image, each[1].image) for each in epochs)


def test_every_epoch_brings_another_form(dataset: CocoDetection) -> None:
    """Of 60 about half are cropped, almost each in another way; the others have one of 2 x 3 forms."""
    images = TrainingImages(dataset, SMALL, 0)
    forms = set()
    for epoch in range(60):
        images.set_epoch(epoch)
        forms.add(images[0].image.sum().item())
    assert 20 < len(forms) < 50


def test_random_numbers_of_the_process_are_left_alone(dataset: CocoDetection) -> None:
    state = torch.get_rng_state()
    of_epoch(dataset, 0, 0)
    assert torch.equal(state, torch.get_rng_state())


def test_workers_do_not_change_the_images(dataset: CocoDetection) -> None:
    images = TrainingImages(dataset, SMALL, 1)
    images.set_epoch(4)
    alone = list(DataLoader(images, batch_size=2, collate_fn=collate))
    shared = list(DataLoader(images, batch_size=2, collate_fn=collate, num_workers=2))
    assert len(alone) == len(shared) == 2
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets.boxes, other.targets.boxes)
        assert torch.equal(one.image_ids, other.image_ids)


def test_evaluation_reads_every_image_at_one_size(dataset: CocoDetection) -> None:
    images = EvaluationImages(dataset, SMALL)
    assert len(images) == len(TrainingImages(dataset, SMALL, 0)) == 3
    assert [images[index].size for index in range(3)] == [(12, 18), (18, 12), (12, 12)]
    assert [images[index].original_size for index in range(3)] == [(20, 30), (24, 16), (10, 10)]
