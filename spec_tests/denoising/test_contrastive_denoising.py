"""Contrastive denoising: published arithmetic on the same random numbers, the laws of the noise, layout, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch import Tensor

from detr_reference.denoising.contrastive_denoising import (
    LOGIT_EPS,
    contrastive_denoising,
    denoising_groups,
    noised_boxes,
    noised_labels,
)
from detr_reference.denoising.denoising_mask import denoising_attention_mask
from detr_reference.losses.boxes import box_cxcywh_to_xyxy
from detr_reference.queries.box_refinement import inverse_sigmoid
from helpers.places import CHAPTERS

CHAPTER = CHAPTERS / "13-contrastive-denoising.md"


def targets(counts: list[int], classes: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Labels, boxes anywhere in the image, counts, and an embedding."""
    low, high = torch.rand(2, sum(counts), 2, dtype=dtype).sort(0).values
    boxes = torch.cat(((low + high) / 2, high - low), -1)
    labels = torch.randint(classes, (sum(counts),))
    return labels, boxes, torch.tensor(counts), torch.randn(classes, 3, dtype=dtype)


# -- the published arithmetic ---------------------------------------------------------------------------------


def published(
    labels: list[int], boxes: list[list[float]], counts: list[int], draws: dict[str, Tensor], ratio: float, scale: float
) -> dict[tuple[int, int], tuple[int, list[float]]]:
    """Label and logits by (image, query), with Python's floats: list after list, one coordinate after the other."""
    largest = max(counts)
    groups = max(1, 100 // largest)
    found: dict[tuple[int, int], tuple[int, list[float]]] = {}
    starts = [sum(counts[:image]) for image in range(len(counts))]
    for image, count in enumerate(counts):
        for copy in range(2 * groups):
            for box in range(count):
                at = (image, copy // 2, copy % 2, box)
                label = labels[starts[image] + box]
                if draws["chance"][at] < ratio * 0.5:
                    label = int(draws["label"][at])
                x, y, w, h = boxes[starts[image] + box]
                corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                for coordinate, half in enumerate((w / 2, h / 2, w / 2, h / 2)):
                    part = float(draws["part"][(*at, coordinate)]) + copy % 2
                    sign = float(draws["sign"][(*at, coordinate)]) * 2 - 1
                    corners[coordinate] = min(max(corners[coordinate] + part * sign * half * scale, 0.0), 1.0)
                left, top, right, bottom = corners
                noised = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
                inside = [min(max(value, 0.0), 1.0) for value in noised]
                logits = [math.log(max(value, 1e-3) / max(1 - value, 1e-3)) for value in inside]
                found[image, copy * largest + box] = label, logits
    return found


@pytest.mark.parametrize("counts", [[3, 1], [0, 2, 5], [1], [60, 2]])
def test_equals_the_published_arithmetic(counts: list[int]) -> None:
    labels, boxes, number, embedding = targets(counts)
    torch.manual_seed(3)
    output = contrastive_denoising(labels, boxes, number, embedding, num_queries=2, box_noise_scale=0.7)
    torch.manual_seed(3)
    shape = (len(counts), max(1, 100 // max(counts)), 2, max(counts))
    like = torch.empty(*shape, 4, dtype=torch.float64)
    draws = {"label": torch.randint(5, shape), "chance": torch.rand(shape)}
    draws |= {"part": torch.rand_like(like), "sign": torch.randint_like(like, 2)}
    expected = published(labels.tolist(), boxes.tolist(), counts, draws, 0.5, 0.7)
    content, references = torch.zeros_like(output["content"]), torch.zeros_like(output["references"])
    for place, (label, logits) in expected.items():
        content[place], references[place] = embedding[label], torch.tensor(logits, dtype=torch.float64)
    assert torch.equal(output["content"], content)
    torch.testing.assert_close(output["references"], references, rtol=0, atol=1e-11)


# -- layout ---------------------------------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    queries=st.integers(0, 5),
    number=st.integers(1, 40),
    scale=st.sampled_from((0.0, 0.4, 1.0)),
    seed=st.integers(0, 2**16),
)
def test_any_counts(counts: list[int], queries: int, number: int, scale: float, seed: int) -> None:
    """Sizes, empty slots, mask and bounds, whatever the counts; the targets stay as they are."""
    torch.manual_seed(seed)
    given_targets = targets(counts)
    before = [tensor.clone() for tensor in given_targets]
    settings = {"num_queries": queries, "denoising_number": number, "box_noise_scale": scale}
    output = contrastive_denoising(*given_targets, **settings)
    largest = max(counts)
    groups = denoising_groups(given_targets[2], number)
    assert groups == (max(1, number // largest) if largest else 1)
    assert output["content"].shape == (len(counts), groups * 2 * largest, 3)
    assert torch.equal(output["attn_mask"], denoising_attention_mask(groups, 2 * largest, queries))
    assert all(torch.equal(one, other) for one, other in zip(before, given_targets, strict=True))

    content = output["content"].unflatten(1, (groups, 2, largest))
    boxes = output["references"].sigmoid().unflatten(1, (groups, 2, largest))
    assert (output["references"].abs() <= math.log(1 / LOGIT_EPS) + 1e-9).all()
    start = 0
    for image, count in enumerate(counts):
        assert not content[image, :, :, count:].any()
        assert (boxes[image, :, :, count:] == 0.5).all()
        true = given_targets[1][start : start + count]
        centre = (boxes[image, :, 0, :count, :2] - true[:, :2]).abs()
        assert (centre <= true[:, 2:] / 2 * scale + LOGIT_EPS).all()
        start += count


def test_own_boxes_in_own_slots() -> None:
    labels, boxes, counts, embedding = targets([2, 0, 3])
    output = contrastive_denoising(
        labels, boxes, counts, embedding, num_queries=1, denoising_number=6, label_noise_ratio=0.0, box_noise_scale=0.0
    )
    logits = inverse_sigmoid(boxes)
    for copy in range(4):
        for image, own in ((0, slice(0, 2)), (2, slice(2, 5))):
            slots = slice(3 * copy, 3 * copy + own.stop - own.start)
            assert torch.equal(output["content"][image, slots], embedding[labels[own]])
            torch.testing.assert_close(output["references"][image, slots], logits[own], rtol=1e-9, atol=1e-9)


def test_no_boxes_at_all() -> None:
    output = contrastive_denoising(*targets([0, 0]), num_queries=4)
    assert [tuple(tensor.shape) for tensor in output.values()] == [(2, 0, 3), (2, 0, 4), (4, 4)]
    assert not output["attn_mask"].any()


@pytest.mark.parametrize(
    ("number", "counts", "groups"), [(100, [7, 2], 14), (100, [101], 1), (3, [4, 1], 1), (9, [0], 1)]
)
def test_number_of_groups(number: int, counts: list[int], groups: int) -> None:
    assert denoising_groups(torch.tensor(counts), number) == groups


# -- laws -----------------------------------------------------------------------------------------------------


def test_labels_are_drawn_from_all_classes() -> None:
    labels = torch.arange(4).expand(3000, 4)
    noised = noised_labels(labels, 0.25, num_classes=4)
    for true in range(4):
        counts = torch.bincount(noised[:, true], minlength=4).double()
        expected = torch.full((4,), 0.25 / 4, dtype=torch.float64)
        expected[true] += 0.75
        assert chisquare(counts.numpy(), (3000 * expected).numpy()).pvalue > 1e-6


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_moves_are_uniform(scale: float) -> None:
    """Corners away from the border, and below scale 1/2 of negatives too, can be read off the noised box."""
    boxes = torch.tensor([0.5, 0.45, 0.2, 0.3], dtype=torch.float64).expand(2000, 2, 1, 4)
    half_sides = torch.tensor([0.1, 0.15, 0.1, 0.15], dtype=torch.float64)
    moves = (box_cxcywh_to_xyxy(noised_boxes(boxes, scale)) - box_cxcywh_to_xyxy(boxes)) / (half_sides * scale)
    for kind in (0, 1):
        for coordinate in range(4):
            signed = moves[:, kind, 0, coordinate]
            assert kstest(signed.abs() - kind, "uniform").pvalue > 1e-6
            assert kstest(signed[signed > 0] - kind, "uniform").pvalue > 1e-6
            assert abs(float((signed > 0).double().mean()) - 0.5) < 6 * 0.5 / math.sqrt(2000)
    correlations = torch.corrcoef(moves[:, :, 0].flatten(1).T) - torch.eye(8, dtype=torch.float64)
    assert correlations.abs().max() < 6 / math.sqrt(2000)


def test_a_negative_loses_a_side_in_seven_of_sixteen_cases() -> None:
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.3]).expand(20000, 2, 1, 4)
    size = noised_boxes(boxes, 1.0)[..., 2:]
    assert (size[:, 0] > 0).all()
    share = float((size[:, 1] <= 0).any(-1).double().mean())
    assert abs(share - 7 / 16) < 6 * math.sqrt(7 / 16 * 9 / 16 / 20000)
    assert (noised_boxes(boxes, 0.5)[..., 2:] > -1e-6).all()


# -- gradients and dtypes -------------------------------------------------------------------------------------


def test_gradient_counts_the_queries_of_a_class() -> None:
    labels, boxes, counts, embedding = targets([3, 1])
    embedding.requires_grad_()
    output = contrastive_denoising(labels, boxes.requires_grad_(), counts, embedding, num_queries=2)
    assert not output["references"].requires_grad
    (gradient,) = torch.autograd.grad(output["content"].sum(), embedding)
    same = (output["content"][..., None, :] == embedding).all(-1)
    assert torch.equal(gradient, same.sum((0, 1))[:, None].expand(5, 3).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    labels, boxes, counts, embedding = targets([3, 1], dtype=torch.float32)
    results = []
    for given_boxes in (boxes.to(dtype), boxes.to(dtype).float()):
        torch.manual_seed(1)
        results.append(contrastive_denoising(labels, given_boxes, counts, embedding.to(dtype), num_queries=1))
    half, full = results
    assert half["references"].dtype == half["content"].dtype == dtype
    assert torch.equal(half["references"], full["references"].to(dtype))


def test_the_global_generator_decides() -> None:
    given_targets = targets([3, 1])
    torch.manual_seed(5)
    first, second = (contrastive_denoising(*given_targets, num_queries=1)["references"] for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(first, contrastive_denoising(*given_targets, num_queries=1)["references"])
    assert not torch.equal(first, second)


# -- the chapter's examples -----------------------------------------------------------------------------------


def numbers(cell: str) -> list[float]:
    return [float(number) for number in cell.strip(" ()").split(",")]


def test_the_example_of_the_chapter() -> None:
    """Corners, box and logits of the two rows follow from their signs and lengths."""
    rows = [line.split("|")[1:-1] for line in CHAPTER.read_text().splitlines() if line.startswith(("| pos", "| neg"))]
    assert len(rows) == 2
    corners = box_cxcywh_to_xyxy(torch.tensor([0.5, 0.4, 0.2, 0.1]))
    half_sides = torch.tensor([0.1, 0.05, 0.1, 0.05])
    for _, signs, lengths, noised, box, logits in rows:
        sign = torch.tensor([1.0 if mark.strip() == "+" else -1.0 for mark in signs.split(",")])
        moved = corners + sign * torch.tensor(numbers(lengths)) * half_sides
        torch.testing.assert_close(torch.tensor(numbers(noised)), moved, rtol=0, atol=1e-6)
        low, high = moved.split(2)
        converted = torch.cat(((low + high) / 2, high - low))
        torch.testing.assert_close(torch.tensor(numbers(box)), converted, rtol=0, atol=1e-6)
        torch.testing.assert_close(torch.tensor(numbers(logits)), inverse_sigmoid(converted), rtol=0, atol=6e-4)


def test_the_mask_of_the_chapter() -> None:
    lines = [line.split() for line in CHAPTER.read_text().splitlines() if line.startswith(("    . .", "    # #"))]
    assert denoising_groups(torch.tensor([2, 1]), 5) == 2
    mask = denoising_attention_mask(2, 4, 3).tolist()
    assert [["#" if hidden else "." for hidden in row] for row in mask] == lines


# -- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"denoising_number": 0}, "denoising_number must be at least 1, got 0"),
        ({"label_noise_ratio": 1.5}, r"label_noise_ratio must lie between 0 and 1, got 1\.5"),
        ({"box_noise_scale": -0.1}, r"box_noise_scale must not be negative, got -0\.1"),
        ({"box_noise_scale": math.nan}, "box_noise_scale must not be negative, got nan"),
        ({"num_queries": -1}, "num_matching must be at least 0, got -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrastive_denoising(*targets([2, 1]), **{"num_queries": 3, **settings})


def test_targets_that_do_not_fit() -> None:
    labels, boxes, counts, embedding = targets([2, 1])
    with pytest.raises(ValueError, match=r"target_counts \[2, 2\] ask for 4 labels and boxes"):
        contrastive_denoising(labels, boxes, torch.tensor([2, 2]), embedding, num_queries=3)
    with pytest.raises(ValueError, match="but classes are numbered from 0 to 4"):
        contrastive_denoising(labels + 5, boxes, counts, embedding, num_queries=3)
