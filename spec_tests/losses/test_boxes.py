"""Conversions and overlaps against exact arithmetic, properties of GIoU, degenerate boxes, gradients and errors."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.losses.boxes import (
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    paired_generalized_box_iou,
)
from helpers.oracles.exact_overlap import generalized_iou, overlaps

ends = st.integers(-64, 192)  # in 64ths
intervals = st.lists(ends, min_size=2, max_size=2).map(sorted)


@st.composite
def boxes(draw: st.DrawFn) -> list[Fraction]:
    (x1, x2), (y1, y2) = draw(intervals), draw(intervals)
    return [Fraction(end, 64) for end in (x1, y1, x2, y2)]


box_lists = st.lists(boxes(), max_size=4)


def tensor_of(found: list[list[Fraction]]) -> Tensor:
    return torch.tensor([[float(end) for end in box] for box in found], dtype=torch.float64).reshape(-1, 4)


@given(first=box_lists, second=box_lists, eps=st.sampled_from((0.0, 1e-6)))
def test_exact_oracle(first: list[list[Fraction]], second: list[list[Fraction]], eps: float) -> None:
    expected = [[float(generalized_iou(a, b, Fraction(eps))) for b in second] for a in first]
    table = generalized_box_iou(tensor_of(first), tensor_of(second), eps=eps)
    assert table.shape == (len(first), len(second))
    wanted = torch.tensor(expected, dtype=torch.float64).reshape(table.shape)
    torch.testing.assert_close(table, wanted, rtol=0, atol=1e-14)


@given(first=box_lists, second=box_lists)
def test_plain_iou(first: list[list[Fraction]], second: list[list[Fraction]]) -> None:
    areas = [[overlaps(a, b) for b in second] for a in first]
    expected = [[float(both / either) if either else 0.0 for both, either, _ in row] for row in areas]
    table = box_iou(tensor_of(first), tensor_of(second))
    torch.testing.assert_close(
        table, torch.tensor(expected, dtype=torch.float64).reshape(table.shape), rtol=0, atol=1e-14
    )


@given(first=boxes(), second=boxes(), scale=st.sampled_from((0.25, 3.0, 1000.0)), shift=st.integers(-99, 99))
def test_properties(first: list[Fraction], second: list[Fraction], scale: float, shift: int) -> None:
    """Within [-1, 1] and at most IoU; symmetric; the same in another unit, at another place, and mirrored."""
    a, b = tensor_of([first]), tensor_of([second])
    giou, iou = generalized_box_iou(a, b), box_iou(a, b)
    assert -1 <= giou <= iou <= 1
    assert torch.equal(giou, generalized_box_iou(b, a))
    for change in (lambda box: scale * box, lambda box: box + shift, lambda box: -box[:, [2, 3, 0, 1]]):
        torch.testing.assert_close(generalized_box_iou(change(a), change(b)), giou, rtol=0, atol=1e-9)
    transposed = generalized_box_iou(a[:, [1, 0, 3, 2]], b[:, [1, 0, 3, 2]])
    torch.testing.assert_close(transposed, giou, rtol=0, atol=1e-14)
    _, either, every = overlaps(first, second)
    if either == every and every:
        torch.testing.assert_close(giou, iou, rtol=0, atol=1e-14)


@given(box=boxes())
def test_a_box_with_itself(box: list[Fraction]) -> None:
    area = (box[2] - box[0]) * (box[3] - box[1])
    giou = generalized_box_iou(tensor_of([box]), tensor_of([box]))
    assert giou == (1.0 if area else 0.0)


def test_far_apart() -> None:
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    far = unit + torch.tensor([10.0, 1000.0, 100000.0])[:, None]
    giou = generalized_box_iou(unit, far)[0]
    assert giou.diff().lt(0).all()
    assert -1 <= giou[-1] < -0.9999
    assert torch.equal(box_iou(unit, far), torch.zeros(1, 3))


def test_boxes_without_area() -> None:
    point, line, box = [0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.75, 0.5], [0.0, 0.0, 1.0, 1.0]
    above = [0.5, 0.75, 0.625, 0.75]
    table = generalized_box_iou(torch.tensor([point, line]), torch.tensor([point, line, box, above]))
    assert torch.equal(table, torch.tensor([[0.0, 0.0, 0.0, -1.0], [0.0, 0.0, 0.0, -1.0]]))


def test_gradients_are_finite_where_they_are_many() -> None:
    kinks = [[0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.75, 0.5], [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]]
    first, second = (torch.tensor(kinks, requires_grad=True) for _ in range(2))
    generalized_box_iou(first, second).sum().backward()
    for leaf in (first, second):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_gradients() -> None:
    """Random boxes, among which no two ends are equal."""
    centres = torch.rand(7, 4, dtype=torch.float64)
    first, second = box_cxcywh_to_xyxy(centres[:3]), box_cxcywh_to_xyxy(centres[3:])
    leaves = (first.requires_grad_(), second.requires_grad_())
    assert torch.autograd.gradcheck(generalized_box_iou, leaves)
    assert torch.autograd.gradcheck(lambda a, b: paired_generalized_box_iou(a, b[:3], eps=1e-6), leaves)


def test_boxes_apart_attract_each_other() -> None:
    """IoU alone has no gradient there; along GIoU's the boxes grow towards each other."""
    first = torch.tensor([[0.0, 0.0, 1.0, 1.0]], requires_grad=True)
    second = torch.tensor([[3.0, 0.0, 4.0, 1.0]])
    (attracted,) = torch.autograd.grad(generalized_box_iou(first, second).sum(), first)
    assert attracted[0, 2] > 0
    (unmoved,) = torch.autograd.grad(box_iou(first, second).sum(), first)
    assert torch.equal(unmoved, torch.zeros(1, 4))


def test_pairs_are_the_diagonal() -> None:
    first, second = (box_cxcywh_to_xyxy(torch.rand(5, 4)) for _ in range(2))
    for eps in (0.0, 1e-6):
        pairs = paired_generalized_box_iou(first, second, eps=eps)
        assert torch.equal(pairs, generalized_box_iou(first, second, eps=eps).diagonal())


def test_epsilon_halves_a_perfect_small_box() -> None:
    box = torch.tensor([[0.2, 0.4, 0.201, 0.401]], dtype=torch.float64)
    torch.testing.assert_close(generalized_box_iou(box, box, eps=1e-6), torch.tensor([[0.5]]).double())
    assert generalized_box_iou(box, box) == 1


@given(
    numbers=st.lists(st.integers(0, 1024), min_size=4, max_size=4).map(lambda found: [number / 256 for number in found])
)
def test_conversions(numbers: list[float]) -> None:
    """Both ways, exactly in numbers of a few binary digits, and for any leading axes."""
    box = torch.tensor(numbers, dtype=torch.float64)
    cx, cy, w, h = numbers
    corners = box_cxcywh_to_xyxy(box)
    assert corners.tolist() == [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
    assert torch.equal(box_xyxy_to_cxcywh(corners), box)
    assert torch.equal(box_cxcywh_to_xyxy(box.expand(2, 0, 4)), corners.expand(2, 0, 4))


@given(cx=st.floats(0, 1, width=32), w=st.floats(0, 1, width=32))
def test_converted_boxes_are_never_upside_down(cx: float, w: float) -> None:
    """Rounding is monotonous."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        box = box_cxcywh_to_xyxy(torch.tensor([[cx, cx, w, w]], dtype=dtype))
        assert generalized_box_iou(box, box).isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    boxes = (1000 * box_cxcywh_to_xyxy(torch.rand(20, 4))).to(dtype)
    table = generalized_box_iou(boxes[:8], boxes[8:])
    assert table.dtype == dtype
    assert torch.equal(table, generalized_box_iou(boxes[:8].float(), boxes[8:].float()).to(dtype))
    assert generalized_box_iou(boxes, boxes).diagonal().eq(1).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    right = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 1.0, 1.0]])
    wrong = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 1.0, 0.25]])
    with pytest.raises(ValueError, match=r"boxes1\[1\] = \[0\.0, 0\.5, 1\.0, 0\.25\] is not \(x1, y1, x2, y2\)"):
        generalized_box_iou(wrong, right)
    with pytest.raises(ValueError, match=r"boxes2\[0\] = \[nan, 0\.0, 1\.0, 1\.0\]"):
        generalized_box_iou(right, torch.tensor([[torch.nan, 0.0, 1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"boxes1 must be \(\.\.\., 4\), got \(2, 3\)"):
        generalized_box_iou(right[:, :3], right)
    with pytest.raises(ValueError, match=r"boxes2 must be \(box, 4\), got \(1, 2, 4\)"):
        box_iou(right, right[None])
    with pytest.raises(ValueError, match=r"boxes1 \(2, 4\) and boxes2 \(1, 4\) must hold as many boxes"):
        paired_generalized_box_iou(right, right[:1])
    with pytest.raises(TypeError, match=r"boxes must be floating, got torch.int64"):
        box_cxcywh_to_xyxy(right.long())


@pytest.mark.usefixtures("unchecked_shapes")
def test_captured_whole() -> None:
    """The check of upside-down boxes reads numbers, and stands aside."""
    boxes = box_cxcywh_to_xyxy(torch.rand(4, 4))
    captured = torch.compile(generalized_box_iou, fullgraph=True, backend="eager")
    assert torch.equal(captured(boxes, boxes[:2]), generalized_box_iou(boxes, boxes[:2]))
