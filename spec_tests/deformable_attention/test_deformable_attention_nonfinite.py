"""NaN and infinity stay where they are: what a sample does not touch, it does not see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detr_reference.deformable_attention.core import ms_deform_attn
from helpers.oracles import scalar_msda
from helpers.tiny.msda_cases import Case, make_case

BAD = [math.nan, math.inf, -math.inf]


def output_and_gradients(case: Case) -> tuple[Tensor, ...]:
    leaves = case.requiring_grad()
    output = ms_deform_attn(*leaves)
    grad = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return output.detach(), *torch.autograd.grad(output, leaves.leaves(), grad)


def assert_same(case: Case, other: Case) -> None:
    for left, right in zip(output_and_gradients(case), output_and_gradients(other), strict=True):
        assert left.isfinite().all()
        assert torch.equal(left, right)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_untouched_cells_never_show(bad: float, dtype: torch.dtype) -> None:
    """Everything that no sample touches holds NaN: output and gradients stay as they were."""
    case = make_case([(9, 6), (4, 11)], queries=3, points=2, reach=1.5, seed=1, dtype=dtype)
    exact = case.to(torch.float64)
    touched = scalar_msda.touched(exact.value.numpy(), case.shapes(), exact.sampling_locations.numpy())
    assert 0.2 < touched.mean() < 0.8
    assert_same(case._replace(value=case.value.masked_fill(~torch.from_numpy(touched)[..., None], bad)), case)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_location_that_is_not_finite_reads_nothing(bad: float, axis: int) -> None:
    """It contributes exactly 0 to the output and all three gradients; other samples do not notice."""
    case = make_case([(5, 4), (3, 6)], reach=-0.5, seed=2)
    hit = torch.rand(case.attention_weights.shape) < 0.3
    locations, outside = case.sampling_locations.clone(), case.sampling_locations.clone()
    locations[..., axis][hit] = bad
    outside[hit] = 7.0
    assert_same(case._replace(sampling_locations=locations), case._replace(sampling_locations=outside))
    _, _, grad_locations, grad_weights = output_and_gradients(case._replace(sampling_locations=locations))
    assert torch.count_nonzero(grad_locations[hit]) == torch.count_nonzero(grad_weights[hit]) == 0
    assert torch.count_nonzero(grad_weights[~hit]) == (~hit).sum()


@pytest.mark.parametrize("far", [1e5, 1e30, -1e30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_huge_finite_locations_read_nothing(far: float, dtype: torch.dtype) -> None:
    """1e30 cells away does not wrap around an integer, nor turn into NaN by subtraction."""
    case = make_case([(5, 4), (3, 60)], seed=3, dtype=dtype)
    locations = case.sampling_locations.clone()
    locations[:, :, 0, :, 0, 0] = far
    locations[:, :, 1, :, 1, 1] = far
    outside = locations.masked_fill(locations == torch.tensor(far, dtype=dtype), 7.0)
    assert_same(case._replace(sampling_locations=locations), case._replace(sampling_locations=outside))


@pytest.mark.parametrize("bad", BAD)
def test_a_weight_outside_never_shows(bad: float) -> None:
    """The weight of a sample that touches nothing is not looked at."""
    case = make_case([(5, 4)], seed=4)
    locations = case.sampling_locations.clone()
    locations[..., 0, :] = -3.0
    weights, zeros = case.attention_weights.clone(), case.attention_weights.clone()
    weights[..., 0], zeros[..., 0] = bad, 0
    case = case._replace(sampling_locations=locations)
    assert_same(case._replace(attention_weights=weights), case._replace(attention_weights=zeros))


def test_a_touched_nan_shows_in_its_channel_alone() -> None:
    """NaN is not swallowed: a sample between four cells sees it, in that channel of that head and query."""
    case = make_case([(3, 3)], batch=2, queries=2, heads=2, channels=2, points=1)
    locations = torch.full_like(case.sampling_locations, 0.4)
    value = case.value.clone()
    value[1, 4, 1, 0] = math.nan
    output = ms_deform_attn(*case._replace(value=value, sampling_locations=locations))
    expected = torch.zeros(2, 2, 4, dtype=torch.bool)
    expected[1, :, 2] = True
    assert torch.equal(output.isnan(), expected)
