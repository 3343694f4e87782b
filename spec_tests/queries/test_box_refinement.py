"""Refinement against a scalar oracle, its fixed points and slopes, half precision and errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detr_reference.queries.box_refinement import inverse_sigmoid, refine_boxes
from helpers.oracles.scalar_selection import refined

numbers = st.one_of(st.floats(-0.5, 1.5), st.sampled_from((0.0, 1.0, 1e-3, 1 - 1e-3, 5e-4, 1 - 2e-6)))


@given(
    count=st.integers(0, 4),
    coordinates=st.sampled_from((2, 4)),
    eps=st.sampled_from((1e-3, 1e-5, 0.1)),
    data=st.data(),
)
def test_scalar_oracle(count: int, coordinates: int, eps: float, data: st.DataObject) -> None:
    deltas = [[data.draw(st.floats(-9, 9)) for _ in range(4)] for _ in range(count)]
    references = [[data.draw(numbers) for _ in range(coordinates)] for _ in range(count)]
    delta = torch.tensor(deltas, dtype=torch.float64).reshape(count, 4)
    reference = torch.tensor(references, dtype=torch.float64).reshape(count, coordinates)
    expected = [refined(d, r, eps) for d, r in zip(deltas, references, strict=True)]
    wanted = torch.tensor(expected, dtype=torch.float64).reshape(count, 4)
    torch.testing.assert_close(refine_boxes(delta, reference, eps=eps), wanted, rtol=1e-12, atol=1e-12)


def test_no_correction_keeps_the_reference() -> None:
    """Exactly so between eps and 1 - eps; a reference on the border comes to lie eps / (1 + eps) inside."""
    reference = torch.tensor([[0.0, 1.0, 0.001, 0.7]], dtype=torch.float64)
    box = refine_boxes(torch.zeros(1, 4, dtype=torch.float64), reference)
    border = 1e-3 / (1 + 1e-3)
    expected = torch.tensor([[border, 1 - border, 0.001, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(box, expected, rtol=0, atol=1e-15)


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_corrections_add_up(first: float, second: float) -> None:
    """Two corrections one after another are their sum, as long as no box comes within eps of the border."""
    delta = torch.tensor([first, second, 0.3, -0.2], dtype=torch.float64).clamp(-3, 3)
    reference = torch.tensor([0.4, 0.5, 0.6, 0.3], dtype=torch.float64)
    once = refine_boxes(delta, reference)
    torch.testing.assert_close(refine_boxes(delta, once), refine_boxes(2 * delta, reference))


def test_a_point_is_a_box_of_half_the_image() -> None:
    """The logit of 0.5 is 0: w and h are sigmoids of what is predicted."""
    delta, point = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    box = torch.cat((point, torch.full_like(point, 0.5)), -1)
    torch.testing.assert_close(refine_boxes(delta, point), refine_boxes(delta, box))


@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_largest_logit(eps: float) -> None:
    """log(1 / eps), at 1 and beyond; the negative of it at 0 and below."""
    x = torch.tensor([1.0, 2.0, torch.inf, 0.0, -1.0, -torch.inf], dtype=torch.float64)
    expected = math.log(1 / eps) * torch.tensor([1.0, 1, 1, -1, -1, -1], dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(x, eps), expected)


@pytest.mark.parametrize(
    ("x", "slope"),
    [(0.3, 1 / 0.3 + 1 / 0.7), (4e-4, 1 / (1 - 4e-4)), (1 - 4e-4, 1 / (1 - 4e-4)), (-0.2, 0.0), (1.2, 0.0)],
)
def test_slopes(x: float, slope: float) -> None:
    """Within eps of the border one half goes on changing; outside nothing does."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(inverse_sigmoid(leaf), leaf)
    assert grad.item() == pytest.approx(slope, rel=1e-12)


def test_gradients() -> None:
    delta = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for coordinates in (2, 4):
        reference = (0.1 + 0.8 * torch.rand(3, coordinates, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(refine_boxes, (delta, reference))


@pytest.mark.parametrize("reference", [0.0, 0.3, 1.0])
def test_infinite_corrections(reference: float) -> None:
    """0 or 1, and gradients of zero: no NaN from infinity times zero."""
    delta = torch.tensor([torch.inf, -torch.inf, torch.inf, -torch.inf], requires_grad=True)
    given_box = torch.full((4,), reference, requires_grad=True)
    box = refine_boxes(delta, given_box)
    assert box.tolist() == [1, 0, 1, 0]
    for grad in torch.autograd.grad(box.sum(), (delta, given_box)):
        assert grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    delta, reference = torch.randn(50, 4).to(dtype), torch.rand(50, 4).to(dtype)
    box = refine_boxes(delta, reference)
    assert torch.equal(box, refine_boxes(delta.float(), reference.float()).to(dtype))
    assert refine_boxes(delta, reference.float()).dtype == torch.float32  # references may be kept wider


def test_a_logit_in_bfloat16_moves_a_box_by_a_pixel() -> None:
    """Why everything is float32: the rounding of the logit alone."""
    x = torch.linspace(0.01, 0.99, 20000, dtype=torch.float64)
    moved = (torch.logit(x).bfloat16().double().sigmoid() - x).abs().max().item()
    assert 0.9 / 1300 < moved < 1.2 / 1300


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    delta = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"delta must be \(\.\.\., 4\), got \(2, 3, 5\)"):
        refine_boxes(torch.randn(2, 3, 5), delta)
    with pytest.raises(ValueError, match=r"reference must be \(2, 3, 2\) or \(2, 3, 4\), .* got \(2, 3, 3\)"):
        refine_boxes(delta, torch.rand(2, 3, 3))
    with pytest.raises(ValueError, match=r"reference must be .* got \(3, 4\)"):
        refine_boxes(delta, torch.rand(3, 4))
    with pytest.raises(TypeError, match=r"reference must be floating, got torch.int64"):
        refine_boxes(delta, torch.ones(2, 3, 4, dtype=torch.int64))
    for eps in (0.0, -1e-3, 0.5):
        with pytest.raises(ValueError, match=f"eps must lie between 0 and 0.5, got {eps}"):
            refine_boxes(delta, torch.rand(2, 3, 4), eps=eps)
        with pytest.raises(ValueError, match=f"eps must lie between 0 and 0.5, got {eps}"):
            inverse_sigmoid(torch.rand(3), eps)
