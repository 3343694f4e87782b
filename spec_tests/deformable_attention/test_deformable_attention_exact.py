"""Closed forms of the sampling core: inputs whose result is known without computing an interpolation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.deformable_attention.core import level_starts, ms_deform_attn
from helpers.oracles import scalar_msda
from helpers.tiny.msda_cases import Case, Shapes, make_case

MAPS: Shapes = [(5, 8), (51, 3), (1, 2)]


def arguments(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Case:
    spatial_shapes = torch.tensor(shapes)
    return Case(value, spatial_shapes, level_starts(spatial_shapes), locations, weights)


def cell_centres(height: int, width: int) -> Tensor:
    """(cell, 2): ((j + 0.5) / W, (i + 0.5) / H), row by row."""
    x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    y = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)


def read_everywhere(maps: Tensor, shape: tuple[int, int], locations: Tensor) -> Tensor:
    """What one head with one point and weight 1 reads at each of (query, 2) locations of one map (S, D)."""
    locations = locations[None, :, None, None, None]
    case = arguments(maps[None, :, None], [shape], locations, maps.new_ones(locations.shape[:-1]))
    return ms_deform_attn(*case)[0]


@pytest.mark.parametrize("shape", MAPS)
def test_cell_centres_read_the_cells(shape: tuple[int, int]) -> None:
    """loc = ((j + 0.5)/W, (i + 0.5)/H) reads cell (i, j): rows of width W, x before y."""
    maps = torch.randn(shape[0] * shape[1], 3, dtype=torch.float64)
    torch.testing.assert_close(read_everywhere(maps, shape, cell_centres(*shape)), maps, rtol=0, atol=1e-12)


def test_corner_of_the_map_reads_a_quarter() -> None:
    """Outside is zero and the weights are not renormalised: (0, 0) gives v[0, 0] / 4, an edge a half."""
    maps = torch.randn(12, 1, dtype=torch.float64)
    locations = torch.tensor([(0, 0), (1, 1), (0, 1 / 6), (1 / 8, 1)], dtype=torch.float64)
    expected = torch.stack((maps[0] / 4, maps[11] / 4, maps[0] / 2, maps[8] / 2))
    torch.testing.assert_close(read_everywhere(maps, (3, 4), locations), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 2)])
def test_nothing_is_read_at_the_end_of_the_range(shape: tuple[int, int]) -> None:
    """x = -1, x = W, y = -1 and y = H are out of range; a quarter cell inside them still reads."""
    height, width = shape
    maps = torch.ones(height * width, 1, dtype=torch.float64)
    pixel = torch.tensor([(-1, 0), (width, 0), (0, -1), (0, height)], dtype=torch.float64)
    inside = torch.tensor([(0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25)], dtype=torch.float64)
    size = torch.tensor((width, height))
    at, near = ((p + 0.5) / size for p in (pixel, pixel + inside))
    assert read_everywhere(maps, shape, at).abs().max() < 1e-15
    torch.testing.assert_close(read_everywhere(maps, shape, near), torch.full((4, 1), 0.25).double())


def test_affine_field() -> None:
    """On v = c + s_x * x + s_y * y the result is the field at the location, and its slope the gradient."""
    shapes = [(7, 4), (3, 60)]
    constant, slope = 0.3, torch.tensor([1.7, -0.6], dtype=torch.float64)
    value = torch.cat([constant + cell_centres(*shape) @ slope for shape in shapes])[None, :, None, None]
    margin = 0.5 / torch.tensor([(width, height) for height, width in shapes])[:, None]  # interior only
    locations = margin + torch.rand(1, 30, 1, 2, 3, 2, dtype=torch.float64) * (1 - 2 * margin)
    locations.requires_grad_()
    weights = torch.rand(1, 30, 1, 2, 3, dtype=torch.float64) - 0.3
    output = ms_deform_attn(*arguments(value, shapes, locations, weights))
    field = constant + locations.detach() @ slope
    torch.testing.assert_close(output.flatten(), (weights * field).sum((2, 3, 4)).flatten())
    (grad,) = torch.autograd.grad(output.sum(), locations)
    torch.testing.assert_close(grad, weights[..., None] * slope)


def test_constant_map() -> None:
    """In the interior the four shares sum to one: a constant c gives c * sum of the weights."""
    shapes = [(4, 9), (2, 3)]
    value = torch.full((2, 42, 2, 3), 1.25, dtype=torch.float64)
    margin = 0.5 / torch.tensor([(width, height) for height, width in shapes])[:, None]
    locations = margin + torch.rand(2, 11, 2, 2, 4, 2, dtype=torch.float64) * (1 - 2 * margin)
    weights = torch.randn(2, 11, 2, 2, 4, dtype=torch.float64)
    output = ms_deform_attn(*arguments(value, shapes, locations, weights)).unflatten(-1, (2, 3))
    torch.testing.assert_close(output, 1.25 * weights.sum((3, 4))[..., None].expand_as(output))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@given(
    shapes=st.lists(st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 2), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
)
def test_dyadic_inputs_are_exact(dtype: torch.dtype, shapes: Shapes, seed: int) -> None:
    """On eighths of a cell, integers and quarters nothing is rounded but the result: every bit is right.

    Output and gradients of the scalar loop, rounded once to the dtype, must be met exactly.
    """
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor(shapes).flip(-1)[:, None]
    cells = sum(height * width for height, width in shapes)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator).double()

    samples = (2, 5, 2, len(shapes), 3)
    eighths = (torch.rand(*samples, 2, generator=generator).double() * (8 * size + 24)).floor() - 12
    case = arguments(integers(-4, 4, 2, cells, 2, 3), shapes, eighths / (8 * size), integers(-4, 4, *samples) / 4)
    grad_output = integers(-3, 3, 2, 5, 6)
    exact = (case.value.numpy(), shapes, case.sampling_locations.numpy(), case.attention_weights.numpy())
    rounded = case.to(dtype)
    assert all(torch.equal(a.double(), b) for a, b in zip(rounded.leaves(), case.leaves(), strict=True))

    leaves = rounded.requiring_grad()
    output = ms_deform_attn(*leaves)
    assert torch.equal(output, torch.from_numpy(scalar_msda.forward(*exact)).to(dtype))
    grads = torch.autograd.grad(output, leaves.leaves(), grad_output.to(dtype))
    for grad, expected in zip(grads, scalar_msda.gradients(*exact, grad_output.numpy()), strict=True):
        assert torch.equal(grad, torch.from_numpy(expected).to(dtype))


def test_weights_are_used_as_given() -> None:
    """No softmax and no normalisation: scaled weights scale the output, negative ones count negatively."""
    case = make_case([(5, 4)], seed=1)
    output = ms_deform_attn(*case)
    for factor in (-1.0, 0.0, 3.0):
        scaled = ms_deform_attn(*case._replace(attention_weights=factor * case.attention_weights))
        torch.testing.assert_close(scaled, factor * output)
    assert output.abs().max() > 0.1


def test_channels_of_a_head_lie_side_by_side() -> None:
    """Channel m*D + d of the output is channel d of head m."""
    maps = torch.arange(6.0, dtype=torch.float64).reshape(1, 1, 2, 3)
    locations = torch.full((1, 1, 2, 1, 1, 2), 0.5, dtype=torch.float64)
    case = arguments(maps, [(1, 1)], locations, torch.ones(1, 1, 2, 1, 1, dtype=torch.float64))
    assert ms_deform_attn(*case).flatten().tolist() == [0, 1, 2, 3, 4, 5]
