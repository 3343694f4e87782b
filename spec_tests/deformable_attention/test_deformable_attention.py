"""The sampling core equals two independent computations: a scalar loop, and torch's grid_sample."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.deformable_attention.core import ms_deform_attn
from helpers.oracles import scalar_msda
from helpers.tiny.msda_cases import Case, cases, make_case


def oracle_arguments(case: Case) -> tuple:
    return case.value.numpy(), case.shapes(), case.sampling_locations.numpy(), case.attention_weights.numpy()


def scalar_loop(case: Case) -> Tensor:
    return torch.from_numpy(scalar_msda.forward(*oracle_arguments(case)))


def grid_sample_form(case: Case) -> Tensor:
    """sum of a * grid_sample(2 * loc - 1), zeros outside, corners not aligned."""
    batch, _, heads, channels = case.value.shape
    queries, points = case.sampling_locations.shape[1], case.sampling_locations.shape[4]
    output = case.value.new_zeros(batch, queries, heads * channels)
    for level, ((height, width), start) in enumerate(zip(case.shapes(), case.level_start_index.tolist(), strict=True)):
        cells = case.value[:, start : start + height * width]
        maps = cells.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = case.sampling_locations[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2)
        sampled = F.grid_sample(maps, 2 * grid - 1, "bilinear", "zeros", align_corners=False)
        sampled = sampled.reshape(batch, heads, channels, queries, points)
        read = torch.einsum("bmdqp,bqmp->bqmd", sampled, case.attention_weights[:, :, :, level])
        output = output + read.reshape(output.shape)
    return output


@given(cases())
def test_equals_scalar_loop(case: Case) -> None:
    """Every rule of layout, coordinates, range and border, on many small structures."""
    torch.testing.assert_close(ms_deform_attn(*case), scalar_loop(case), rtol=1e-12, atol=1e-13)


@given(cases(), st.integers(0, 2**16))
def test_gradients_equal_scalar_loop(case: Case, seed: int) -> None:
    """The three gradients equal the explicit formulas, for a gradient of the output that is not constant."""
    leaves = case.requiring_grad()
    output = ms_deform_attn(*leaves)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=output.dtype)
    expected = scalar_msda.gradients(*oracle_arguments(case), grad.numpy())
    for ours, theirs in zip(torch.autograd.grad(output, leaves.leaves(), grad), expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-11, atol=1e-12)


@given(cases(margin=1e-3))
def test_equals_grid_sample(case: Case) -> None:
    """grid_sample, where it is a valid oracle: finite locations; gradients away from integer coordinates."""
    ours, theirs = case.requiring_grad(), case.requiring_grad()
    output, expected = ms_deform_attn(*ours), grid_sample_form(theirs)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-11)
    grads = torch.autograd.grad(output.square().sum(), ours.leaves())
    for grad, other in zip(grads, torch.autograd.grad(expected.square().sum(), theirs.leaves()), strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shapes", [[(52, 67), (26, 34), (13, 17)], [(1, 80)], [(75, 1), (3, 50)]])
def test_large_maps_equal_scalar_loop(shapes: list[tuple[int, int]]) -> None:
    """Sides of 50 cells and more, where a wrong stride or level start lands far away."""
    case = make_case(shapes, queries=9, points=2, seed=3)
    torch.testing.assert_close(ms_deform_attn(*case), scalar_loop(case), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 20000), (20000, 1), (2, 17001)])
def test_very_wide_maps_equal_scalar_loop(shape: tuple[int, int]) -> None:
    """A side above 16384: coordinates do not fit fixed point with 16 bits, nor a half."""
    case = make_case([shape], batch=1, queries=40, seed=4)
    torch.testing.assert_close(ms_deform_attn(*case), scalar_loop(case), rtol=1e-8, atol=1e-9)


def test_float32_on_a_wide_map() -> None:
    """In float32 the error is that of rounding a coordinate near 20000 (2e-3 cells), and no worse."""
    case = make_case([(2, 20000)], batch=1, queries=200, points=1, seed=5)
    output = ms_deform_attn(*case.to(torch.float32)).double()
    expected = ms_deform_attn(*case)
    assert (output - expected).abs().max() < 2 * 4e-3
    assert expected.abs().max() > 0.5


def test_cell_index_beyond_float_precision() -> None:
    """The flattened index is exact above 2**24, where a float32 index skips odd cells."""
    height, width = 4100, 4100
    cells = torch.arange(height * width, dtype=torch.int32)
    value = (cells % 1021).float()[None, :, None, None]
    rows = torch.tensor([0, 4098, 4099, 4099, 4099])
    columns = torch.tensor([1, 4099, 0, 4097, 4099])
    locations = torch.stack(((columns + 0.5) / width, (rows + 0.5) / height), dim=-1).double()
    output = ms_deform_attn(
        value,
        torch.tensor([(height, width)]),
        torch.tensor([0]),
        locations.reshape(1, -1, 1, 1, 1, 2),
        torch.ones(1, 5, 1, 1, 1),
    )
    expected = (rows * width + columns) % 1021
    torch.testing.assert_close(output.flatten(), expected.float(), rtol=0, atol=0.1)


def test_more_queries_than_cells_and_fewer() -> None:
    """Query and cell are different axes: neither a long query nor a long map is read as the other."""
    for queries in (1, 50):
        case = make_case([(3, 4), (2, 2)], queries=queries, seed=queries)
        torch.testing.assert_close(ms_deform_attn(*case), scalar_loop(case), rtol=1e-12, atol=1e-13)
