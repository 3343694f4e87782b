"""Post-processing against plain Python, its choice among ties, and errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detr_reference.detectors.postprocess import postprocess

Detection = tuple[float, int, list[float]]


def corners(box: list[float], size: list[int]) -> list[float]:
    cx, cy, w, h = box
    height, width = size
    return [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]


def sigmoid_oracle(logits: list[list[float]], boxes: list[list[float]], size: list[int], count: int) -> list[Detection]:
    found = [
        (1 / (1 + math.exp(-logit)), label, corners(box, size))
        for row, box in zip(logits, boxes, strict=True)
        for label, logit in enumerate(row)
    ]
    return sorted(found, key=lambda detection: -detection[0])[:count]


def softmax_oracle(logits: list[list[float]], boxes: list[list[float]], size: list[int]) -> list[Detection]:
    found = []
    for row, box in zip(logits, boxes, strict=True):
        total = sum(math.exp(logit) for logit in row)
        label = max(range(len(row) - 1), key=lambda index: row[index])
        found.append((math.exp(row[label]) / total, label, corners(box, size)))
    return found


@given(
    batch=st.integers(1, 3),
    queries=st.integers(1, 6),
    classes=st.integers(2, 5),
    count=st.integers(1, 40),
    scores=st.sampled_from(("sigmoid", "softmax")),
    seed=st.integers(0, 2**16),
)
def test_scalar_oracle(batch: int, queries: int, classes: int, count: int, scores: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, queries, classes, generator=generator, dtype=torch.float64)
    boxes = torch.rand(batch, queries, 4, generator=generator, dtype=torch.float64)
    sizes = torch.randint(1, 1500, (batch, 2), generator=generator)
    found = postprocess(logits, boxes, sizes, scores=scores, num_select=count)
    for image in range(batch):
        given_numbers = (logits[image].tolist(), boxes[image].tolist(), sizes[image].tolist())
        expected = softmax_oracle(*given_numbers) if scores == "softmax" else sigmoid_oracle(*given_numbers, count)
        score, label, box = zip(*expected, strict=True)
        assert found["labels"][image].tolist() == list(label)
        torch.testing.assert_close(found["scores"][image], torch.tensor(score, dtype=torch.float64))
        torch.testing.assert_close(found["boxes"][image], torch.tensor(box, dtype=torch.float64))


def test_one_query_under_all_its_names() -> None:
    logits = torch.full((1, 3, 4), -5.0)
    logits[0, 1] = torch.tensor([1.0, 3.0, 0.0, 2.0])
    boxes = torch.rand(1, 3, 4)
    found = postprocess(logits, boxes, torch.tensor([[10, 20]]), num_select=4)
    assert found["labels"].tolist() == [[1, 3, 0, 2]]
    assert found["boxes"].unique(dim=1).shape[1] == 1


def test_equal_scores_are_taken_once() -> None:
    found = postprocess(torch.zeros(2, 5, 3), torch.rand(2, 5, 4), torch.tensor([[9, 9]] * 2), num_select=15)
    for image in range(2):
        labels, boxes = (found[name][image].tolist() for name in ("labels", "boxes"))
        assert len({(label, *box) for label, box in zip(labels, boxes, strict=True)}) == 15


def test_order_of_saturated_scores() -> None:
    """Logits are compared, so that scores of 1 in float32 keep their order."""
    logits = torch.tensor([[[20.0], [40.0], [30.0]]])
    boxes = torch.rand(1, 3, 4)
    found = postprocess(logits, boxes, torch.tensor([[1, 1]]), num_select=3)
    assert found["scores"].eq(1).all()
    expected = postprocess(logits / 20, boxes, torch.tensor([[1, 1]]), num_select=3)
    assert torch.equal(found["boxes"], expected["boxes"])


def test_numbers_of_the_image_itself() -> None:
    """The box of the left upper quarter of a photograph of 480 rows and 640 columns."""
    box = torch.tensor([[[0.25, 0.25, 0.5, 0.5]]])
    found = postprocess(torch.zeros(1, 1, 1), box, torch.tensor([[480, 640]]), num_select=1)
    assert found["boxes"].tolist() == [[[0.0, 0.0, 320.0, 240.0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
def test_half_is_the_rounded_float32(dtype: torch.dtype, scores: str) -> None:
    logits, boxes, sizes = torch.randn(2, 6, 3).to(dtype), torch.rand(2, 6, 4).to(dtype), torch.tensor([[37, 1333]] * 2)
    found = postprocess(logits, boxes, sizes, scores=scores, num_select=8)
    wide = postprocess(logits.float(), boxes.float(), sizes, scores=scores, num_select=8)
    for name in ("scores", "boxes"):
        assert torch.equal(found[name], wide[name].to(dtype))
    assert torch.equal(found["labels"], wide["labels"])


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    logits, boxes, sizes = torch.zeros(2, 5, 3), torch.rand(2, 5, 4), torch.tensor([[9, 9]] * 2)
    with pytest.raises(ValueError, match=r"scores must be one of \('sigmoid', 'softmax'\), got 'logits'"):
        postprocess(logits, boxes, sizes, scores="logits")
    with pytest.raises(ValueError, match=r"num_select must be at least 1, got 0"):
        postprocess(logits, boxes, sizes, num_select=0)
    with pytest.raises(ValueError, match=r"softmax needs a class beside no object, got pred_logits \(2, 5, 1\)"):
        postprocess(logits[..., :1], boxes, sizes, scores="softmax")
    with pytest.raises(ValueError, match=r"pred_logits must be \(batch, query, class\), got \(5, 3\)"):
        postprocess(logits[0], boxes, sizes)
    with pytest.raises(ValueError, match=r"pred_boxes must be \(batch, query, 4\) = \(2, 5, 4\), got \(2, 4, 4\)"):
        postprocess(logits, boxes[:, :4], sizes)
    with pytest.raises(
        ValueError, match=r"sizes must be \(batch, 2\) = \(2, 2\), with \(height, width\), got \(1, 2\)"
    ):
        postprocess(logits, boxes, sizes[:1])
    with pytest.raises(TypeError, match=r"sizes must be whole numbers of pixels, got torch.float32"):
        postprocess(logits, boxes, sizes.float())
    with pytest.raises(TypeError, match=r"pred_boxes must be floating, got torch.int64"):
        postprocess(logits, boxes.long(), sizes)
