"""Every transform keeps boxes and image in step: a painted rectangle stays where its box says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detr_reference.data.augmentation import Augmentation
from detr_reference.data.crop import crop
from detr_reference.data.flip import flip
from detr_reference.data.images import tensor_of
from detr_reference.data.normalise import DEVIATION, MEAN, normalise
from detr_reference.data.resize import resize, resized_size
from detr_reference.data.sample import Sample


@st.composite
def painted(draw: st.DrawFn, least: int = 8, greatest: int = 48) -> Sample:
    """A black image with one white rectangle, whose box has its edges."""
    height, width = draw(st.integers(least, greatest)), draw(st.integers(least, greatest))
    x1, y1 = draw(st.integers(0, width - 4)), draw(st.integers(0, height - 4))
    x2, y2 = draw(st.integers(x1 + 4, width)), draw(st.integers(y1 + 4, height))
    return with_rectangle(height, width, (x1, y1, x2, y2))


def with_rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> Sample:
    x1, y1, x2, y2 = box
    image = torch.zeros(3, height, width)
    image[:, y1:y2, x1:x2] = 1
    return Sample(image, torch.tensor([box]).float(), torch.tensor([5]), 3, (height, width))


def extent(image: torch.Tensor) -> list[float]:
    """(x1, y1, x2, y2) of what is white, parts of pixels counted by their brightness."""
    bright = image[0]
    across, down = bright.max(0).values, bright.max(1).values
    found = []
    for profile in (across, down):
        profile = profile / profile.max()
        middle = int(profile.argmax())
        found.append((middle - float(profile[:middle].sum()), middle + float(profile[middle:].sum())))
    (x1, x2), (y1, y2) = found
    return [x1, y1, x2, y2]


def in_step(sample: Sample, within: float) -> None:
    torch.testing.assert_close(torch.tensor(extent(sample.image)), sample.boxes[0], atol=within, rtol=0)


@given(painted())
def test_flip_moves_the_box_with_the_image(sample: Sample) -> None:
    flipped = flip(sample)
    in_step(flipped, 0)
    assert flipped.size == sample.size
    again = flip(flipped)
    assert torch.equal(again.image, sample.image)
    assert torch.equal(again.boxes, sample.boxes)


def test_flip_of_a_derived_box() -> None:
    assert flip(with_rectangle(8, 20, (1, 2, 6, 7))).boxes.tolist() == [[14, 2, 19, 7]]


@given(painted(), st.data())
def test_crop_clips_the_box_as_it_clips_the_image(sample: Sample, data: st.DataObject) -> None:
    height, width = (data.draw(st.integers(1, side)) for side in sample.size)
    top = data.draw(st.integers(0, sample.size[0] - height))
    left = data.draw(st.integers(0, sample.size[1] - width))
    part = crop(sample, top, left, height, width)
    assert part.size == (height, width)
    assert part.original_size == sample.original_size
    assert torch.equal(part.image, sample.image[:, top : top + height, left : left + width])
    seen = bool(part.image.any())
    assert (len(part.boxes), len(part.labels)) == (int(seen), int(seen))
    if seen:
        in_step(part, 0)


def test_crop_drops_boxes_with_their_labels() -> None:
    sample = Sample(
        torch.zeros(3, 10, 10),
        torch.tensor([[0.0, 0, 4, 4], [3, 3, 8, 8], [4, 0, 6, 3], [6, 6, 9, 9]]),
        torch.tensor([1, 2, 3, 4]),
        3,
        (10, 10),
    )
    part = crop(sample, 2, 4, 5, 4)
    # The first only touches the part's edge; the third keeps one row, the fourth one of its pixels.
    assert part.boxes.tolist() == [[0, 1, 4, 5], [0, 0, 2, 1], [2, 4, 4, 5]]
    assert part.labels.tolist() == [2, 3, 4]


@pytest.mark.parametrize("part", [(0, 0, 0, 5), (0, 0, 5, 0), (-1, 0, 5, 5), (0, 6, 5, 5), (6, 0, 5, 5), (0, 0, 11, 5)])
def test_crop_refuses_what_is_no_part(part: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"no part of an image of \(height, width\) \(10, 10\)"):
        crop(with_rectangle(10, 10, (1, 1, 5, 5)), *part)


@given(painted(), st.integers(8, 96), st.integers(40, 120))
def test_resize_scales_the_box_with_the_image(sample: Sample, shorter: int, longest: int) -> None:
    resized = resize(sample, shorter, longest)
    assert resized.size == resized_size(sample.size, shorter, longest)
    down, across = (new / old for new, old in zip(resized.size, sample.size, strict=True))
    expected = sample.boxes * torch.tensor([across, down, across, down])
    torch.testing.assert_close(resized.boxes, expected)
    # The edges of a bilinear image are soft; a shift of a pixel of the coarser image would show.
    in_step(resized, 0.8 * max(1.0, down, across))
    assert resized.labels.tolist() == [5]


@pytest.mark.parametrize(
    ("size", "shorter", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),  # 1066.67 rounded down
        ((640, 480), 800, 1333, (1066, 800)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((640, 359), 800, 1333, (1333, 748)),  # 747.7 rounded up, then 748 x 640 / 359 = 1333.5
        ((359, 640), 800, None, (800, 1426)),
        ((333, 500), 800, 1200, (799, 1199)),  # 799.2
        ((200, 401), 100, 100, (50, 100)),  # 49.9
        ((3, 200), 100, 167, (3, 200)),  # 2.505 rounded up to 3: beyond the longest, as published
        ((480, 480), 800, 1333, (800, 800)),
        ((800, 1000), 800, 1333, (800, 1000)),
        ((1, 500), 10, 100, (1, 100)),  # 0.2 would be published as no image
    ],
)
def test_sizes(size: tuple[int, int], shorter: int, longest: int | None, expected: tuple[int, int]) -> None:
    assert resized_size(size, shorter, longest) == expected


def test_resize_to_the_same_size_changes_nothing() -> None:
    sample = with_rectangle(20, 30, (2, 3, 10, 9))
    assert resize(sample, 20, 100) is sample


@pytest.mark.parametrize("shorter", [17, 45, 90])
def test_resize_is_pillows_bilinear(shorter: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 60, 3), dtype=np.uint8)
    sample = Sample(
        tensor_of(Image.fromarray(pixels)), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 3, (45, 60)
    )
    resized = resize(sample, shorter)
    height, width = resized.size
    theirs = tensor_of(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    # Pillow rounds to bytes after each axis.
    torch.testing.assert_close(resized.image, theirs, atol=1.5 / 255, rtol=0)


def test_normalise_is_by_channel() -> None:
    sample = replace(with_rectangle(4, 4, (0, 0, 4, 4)), image=torch.tensor(MEAN)[:, None, None].expand(3, 4, 4))
    assert not normalise(sample).image.any()
    white = normalise(with_rectangle(4, 4, (0, 0, 4, 4)))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(white.image[:, 2, 1], torch.tensor(expected))
    assert white.boxes.tolist() == [[0, 0, 4, 4]]
    assert len(DEVIATION) == 3


SMALL = Augmentation(scales=(24, 32, 40), max_size=64, crop_scales=(30, 36), crop_range=(16, 28), evaluation_scale=40)


def denormalised(sample: Sample) -> Sample:
    mean, deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]
    return replace(sample, image=(sample.image * deviation + mean).clamp(0, 1))


@given(painted(16), st.integers(0, 2**32))
def test_augmentation_keeps_image_and_boxes_in_step(sample: Sample, seed: int) -> None:
    augmented = denormalised(SMALL.training(sample, torch.Generator().manual_seed(seed)))
    height, width = augmented.size
    assert min(height, width) in SMALL.scales or max(height, width) >= 60
    assert len(augmented.boxes) == len(augmented.labels) <= 1
    if len(augmented.boxes) and float((augmented.boxes[:, 2:] - augmented.boxes[:, :2]).min()) > 6:
        assert float(augmented.boxes.min()) >= 0
        assert bool((augmented.boxes[:, 2:] <= torch.tensor([width, height]) + 1e-3).all())
        in_step(augmented, 4)


@given(painted(16))
def test_evaluation_has_one_size_and_draws_nothing(sample: Sample) -> None:
    state = torch.get_rng_state()
    judged = SMALL.evaluation(sample)
    assert judged.size == resized_size(sample.size, 40, 64)
    assert torch.equal(judged.image, SMALL.evaluation(sample).image)
    assert torch.equal(state, torch.get_rng_state())
    in_step(denormalised(judged), 5)


def test_the_published_mixture() -> None:
    """Half of the images are flipped, half of them cropped, every scale is drawn, and all sides of a part too."""
    sample = with_rectangle(40, 50, (0, 0, 50, 40))
    marked = replace(sample, image=torch.linspace(0, 1, 50).expand(3, 40, 50))
    drawn = [SMALL.training(marked, torch.Generator().manual_seed(seed)) for seed in range(400)]
    flipped = sum(bool(each.image[0, 0, 0] > each.image[0, 0, -1]) for each in drawn)
    whole = sum(each.size in [resized_size((40, 50), scale, 64) for scale in SMALL.scales] for each in drawn)
    assert 160 < flipped < 240
    assert 160 < whole < 270  # some parts have the whole image's shape
    assert {min(each.size) for each in drawn} >= set(SMALL.scales)


def test_flip_and_crop_can_be_switched_off() -> None:
    sample = with_rectangle(40, 50, (3, 4, 20, 30))
    plain = Augmentation(scales=(40,), max_size=64, crop_scales=(), flip=0.0)
    for seed in range(20):
        same = plain.training(sample, torch.Generator().manual_seed(seed))
        assert torch.equal(same.boxes, sample.boxes)
        assert torch.equal(same.image, normalise(sample).image)
    flipped = replace(plain, flip=1.0).training(sample, torch.Generator().manual_seed(0))
    assert torch.equal(flipped.boxes, flip(sample).boxes)


def test_images_smaller_than_the_part_are_not_cropped_on_that_side() -> None:
    large = replace(SMALL, crop_range=(100, 200), flip=0.0)
    sample = with_rectangle(20, 20, (3, 4, 15, 16))
    for seed in range(20):
        assert len(large.training(sample, torch.Generator().manual_seed(seed)).boxes) == 1


def test_an_image_without_boxes_stays_one() -> None:
    empty = Sample(torch.rand(3, 20, 30), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 3, (20, 30))
    for seed in range(10):
        augmented = SMALL.training(empty, torch.Generator().manual_seed(seed))
        assert augmented.boxes.shape == (0, 4)
        assert augmented.labels.shape == (0,)
        assert augmented.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scales": ()}, "scales must name at least one"),
        ({"scales": (0,)}, "from 1 up"),
        ({"max_size": 0}, "from 1 up"),
        ({"crop_scales": (-1,)}, "from 1 up"),
        ({"crop_range": (600, 384)}, r"crop_range must be \(least, greatest\)"),
        ({"flip": 1.5}, "flip must be a probability"),
        ({"flip": float("nan")}, "flip must be a probability"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**wrong)  # type: ignore[arg-type]
