"""Gradients of the sampling core: difference quotients, the adjoint, kinks, and exact zeros."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from detr_reference.deformable_attention.core import level_starts, ms_deform_attn
from helpers.tiny.msda_cases import Case, cases, make_case


@pytest.mark.parametrize("reach", [-0.5, 0.9, 30.0])
def test_gradcheck(reach: float) -> None:
    """All three gradients equal difference quotients: in the interior, on the borders, and far outside."""
    case = make_case([(3, 2), (1, 4)], queries=2, channels=2, reach=reach, margin=0.05, seed=1)

    def core(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(value, case.spatial_shapes, case.level_start_index, locations, weights)

    assert torch.autograd.gradcheck(core, case.requiring_grad().leaves(), eps=1e-6, atol=1e-7, rtol=1e-6)


@given(cases())
def test_adjoint(case: Case) -> None:
    """<g, A v> = <A^T g, v>: the gradient of value is the transpose of the sampling, at any location."""
    leaves = case.requiring_grad()
    output = ms_deform_attn(*leaves)
    g = torch.randn_like(output)
    grad_value, _, grad_weights = torch.autograd.grad(output, leaves.leaves(), g)
    inner = (g * output).sum()
    torch.testing.assert_close((grad_value * case.value).sum(), inner)
    torch.testing.assert_close((grad_weights * case.attention_weights).sum(), inner)  # linear in them too


def one_row(pixel: float, values: list[float]) -> tuple[float, float]:
    """Output and derivative by the pixel coordinate x on a map of one row, at y = 0, in a cell's units."""
    width = len(values)
    spatial_shapes = torch.tensor([(1, width)])
    location = torch.tensor([(pixel + 0.5) / width, 0.5], dtype=torch.float64).reshape(1, 1, 1, 1, 1, 2)
    location.requires_grad_()
    value = torch.tensor(values, dtype=torch.float64).reshape(1, width, 1, 1)
    weights = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    output = ms_deform_attn(value, spatial_shapes, level_starts(spatial_shapes), location, weights)
    (grad,) = torch.autograd.grad(output.sum(), location)
    return float(output.detach()), float(grad.flatten()[0]) / width


@pytest.mark.parametrize("pixel", [0, 1, 2, 3])
def test_derivative_at_a_kink_is_the_right_one(pixel: int) -> None:
    """At an integer coordinate the slope jumps; floor() selects the cell to the right."""
    values = [2.0, -1.0, 5.0, 3.0]
    padded = [0.0, *values, 0.0]
    left, right = padded[pixel + 1] - padded[pixel], padded[pixel + 2] - padded[pixel + 1]
    assert left != right
    step = 2.0**-10
    here, slope = one_row(pixel, values)
    assert slope == pytest.approx(right)
    assert (one_row(pixel + step, values)[0] - here) / step == pytest.approx(right)
    assert (here - one_row(pixel - step, values)[0]) / step == pytest.approx(left)
    assert one_row(pixel - step, values)[1] == pytest.approx(left)


def test_derivative_at_the_ends_of_the_range() -> None:
    """Out of range, ends included, the slope is exactly 0; just inside it is the border cell's value."""
    values = [2.0, -1.0, 5.0, 3.0]
    step = 2.0**-10
    for pixel in (-1.0, 4.0, -1 - step, 4 + step, -7.5, 100.0):
        assert one_row(pixel, values) == (0.0, 0.0)
    assert one_row(-1 + step, values)[1] == pytest.approx(2.0)
    assert one_row(4 - step, values)[1] == pytest.approx(-3.0)


@pytest.mark.parametrize("distance", [1e-9, 0.5, 1e4, 1e30])
def test_a_point_outside_gives_exact_zeros(distance: float) -> None:
    """A point beyond any of the four borders, near or at 1e30, contributes 0 to output and gradients."""
    spatial_shapes = torch.tensor([(3, 5), (50, 2)])
    sides = torch.tensor([(5, 3), (2, 50)], dtype=torch.float64)
    centre = sides / 2 - 0.5
    beyond = []
    for axis in (0, 1):
        for low in (True, False):
            pixel = centre.clone()
            pixel[:, axis] = -1 - distance if low else sides[:, axis] + distance
            beyond.append((pixel + 0.5) / sides)
    locations = torch.stack(beyond)[None, :, None, :, None]  # batch 1, query 4, head 1, level 2, point 1
    case = Case(
        torch.randn(1, 115, 1, 3, dtype=torch.float64),
        spatial_shapes,
        level_starts(spatial_shapes),
        locations,
        torch.ones(1, 4, 1, 2, 1, dtype=torch.float64),
    ).requiring_grad()
    output = ms_deform_attn(*case)
    assert torch.count_nonzero(output) == 0
    for grad in torch.autograd.grad(output, case.leaves(), torch.randn_like(output)):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_gradient_of_value_collects_from_many_points() -> None:
    """Thousands of points on one cell: the sum of their weights arrives there, and nowhere else."""
    spatial_shapes = torch.tensor([(2, 4)])
    locations = torch.tensor([2.5 / 4, 1.5 / 2]).double().expand(1, 5000, 1, 1, 2, 2)
    weights = torch.rand(1, 5000, 1, 1, 2, dtype=torch.float64)
    value = torch.randn(1, 8, 1, 3, dtype=torch.float64, requires_grad=True)
    output = ms_deform_attn(value, spatial_shapes, level_starts(spatial_shapes), locations, weights)
    (grad,) = torch.autograd.grad(output.sum(), value)
    expected = torch.zeros_like(value)
    expected[0, 6] = weights.sum()
    torch.testing.assert_close(grad, expected.detach())


def test_gradient_only_where_it_is_asked_for() -> None:
    """Each gradient is the same whether or not the other two arguments need one."""
    case = make_case([(4, 3), (2, 5)], seed=9).requiring_grad()
    together = torch.autograd.grad(ms_deform_attn(*case).square().sum(), case.leaves())
    names = ("value", "sampling_locations", "attention_weights")
    for name, leaf, expected in zip(names, case.leaves(), together, strict=True):
        detached = case._replace(**{other: getattr(case, other).detach() for other in names if other != name})
        torch.testing.assert_close(torch.autograd.grad(ms_deform_attn(*detached).square().sum(), leaf)[0], expected)
