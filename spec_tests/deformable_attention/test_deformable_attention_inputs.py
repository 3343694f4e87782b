"""Inputs as they come: empty, strided, mixed in dtype, shared, under autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detr_reference.deformable_attention.core import level_starts, ms_deform_attn
from helpers.tiny.msda_cases import Case, Shapes, make_case

NORMAL = {"batch": 2, "queries": 3, "heads": 2, "channels": 4, "points": 2}


@pytest.mark.parametrize("empty", NORMAL)
def test_a_size_of_zero(empty: str) -> None:
    """No image, query, head, channel or point: the right shape, zeros, and gradients of zeros."""
    case = make_case([(3, 4), (2, 2)], **{**NORMAL, empty: 0}).requiring_grad()
    batch, _, heads, channels = case.value.shape
    output = ms_deform_attn(*case)
    assert output.shape == (batch, case.sampling_locations.shape[1], heads * channels)
    assert torch.count_nonzero(output) == 0
    for grad, leaf in zip(torch.autograd.grad(output.sum(), case.leaves()), case.leaves(), strict=True):
        assert torch.equal(grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("shapes", [[], [(0, 3)], [(4, 0), (0, 0)]])
def test_no_cells_at_all(shapes: Shapes) -> None:
    """No level, or only levels without cells: zeros."""
    case = make_case(shapes).requiring_grad()
    output = ms_deform_attn(*case)
    assert torch.equal(output, torch.zeros(2, 5, 6, dtype=torch.float64))
    for grad, leaf in zip(torch.autograd.grad(output.sum(), case.leaves()), case.leaves(), strict=True):
        assert torch.equal(grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_an_empty_level_contributes_zero(shape: tuple[int, int]) -> None:
    """An empty level between two others is as if it were not there, and its gradients are exactly zero."""
    with_it = make_case([(3, 4), shape, (2, 5)], seed=1).requiring_grad()
    kept = [0, 2]
    spatial_shapes = with_it.spatial_shapes[kept]
    without = Case(
        with_it.value,
        spatial_shapes,
        level_starts(spatial_shapes),
        with_it.sampling_locations[:, :, :, kept],
        with_it.attention_weights[:, :, :, kept],
    )
    output = ms_deform_attn(*with_it)
    assert torch.equal(output, ms_deform_attn(*without))
    grads = torch.autograd.grad(output.sum(), with_it.leaves())
    others = torch.autograd.grad(ms_deform_attn(*without).sum(), with_it.leaves())
    for grad, other in zip(grads, others, strict=True):
        torch.testing.assert_close(grad, other)
    for grad in grads[1:]:
        assert torch.count_nonzero(grad[:, :, :, 1]) == 0


def scattered(tensor: Tensor) -> Tensor:
    """The same numbers at odd strides and with a storage offset, NaN between them."""
    storage = tensor.new_full((*(2 * size + 1 for size in tensor.shape), 3), torch.nan)
    view = storage[(*(slice(1, None, 2) for _ in tensor.shape), 1)].copy_(tensor)
    assert not view.is_contiguous()
    assert view.storage_offset() > 0
    return view


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_strides_and_offsets_do_not_matter(dtype: torch.dtype) -> None:
    """Views with any strides and offset, integers included, give what contiguous copies give."""
    case = make_case([(3, 4), (2, 50)], seed=2, dtype=dtype)
    integers = torch.empty(7, 4, dtype=torch.int64).fill_(-99)
    integers[1:5:2, 1:3] = case.spatial_shapes
    starts = torch.full((5,), -99)
    starts[1:4:2] = case.level_start_index
    views = Case(
        scattered(case.value),
        integers[1:5:2, 1:3],
        starts[1:4:2],
        scattered(case.sampling_locations),
        scattered(case.attention_weights),
    )
    assert torch.equal(ms_deform_attn(*views), ms_deform_attn(*case))
    permuted = case._replace(value=case.value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0))
    assert torch.equal(ms_deform_attn(*permuted), ms_deform_attn(*case))


def test_expanded_gradient() -> None:
    """out.sum().backward() sends a gradient of stride 0; it equals a gradient of ones."""
    case = make_case([(3, 4), (2, 5)], seed=3).requiring_grad()
    output = ms_deform_attn(*case)
    expanded = torch.autograd.grad(output.sum(), case.leaves(), retain_graph=True)
    strided = torch.ones(6, 5, 2, dtype=torch.float64).permute(2, 1, 0)
    for grad in (torch.ones_like(output), strided):
        for ours, theirs in zip(
            torch.autograd.grad(output, case.leaves(), grad, retain_graph=True), expanded, strict=True
        ):
            assert torch.equal(ours, theirs)


def test_int32_metadata() -> None:
    """spatial_shapes and level_start_index may be int32."""
    case = make_case([(3, 4), (2, 5)], seed=4)
    narrow = case._replace(spatial_shapes=case.spatial_shapes.int(), level_start_index=case.level_start_index.int())
    assert torch.equal(ms_deform_attn(*narrow), ms_deform_attn(*case))


def test_arguments_are_left_alone_and_not_returned() -> None:
    """Forward and backward change no argument; the output shares no memory, and may be edited in place."""
    case = make_case([(1, 1)], batch=1, queries=1, heads=1, points=1, dtype=torch.float32).requiring_grad()
    copies = [tensor.detach().clone() for tensor in case]
    output = ms_deform_attn(*case)
    storages = {tensor.untyped_storage().data_ptr() for tensor in case}
    assert output.untyped_storage().data_ptr() not in storages
    expected = torch.autograd.grad(output.sum(), case.leaves(), retain_graph=True)
    output.add_(1.0)
    for grad, other in zip(torch.autograd.grad(output.sum(), case.leaves()), expected, strict=True):
        assert torch.equal(grad, other)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(case, copies, strict=True))


def test_repeated_calls_are_bitwise_equal() -> None:
    """On a CPU, forward and backward are deterministic, contention on a cell included."""
    case = make_case([(2, 3), (1, 2)], queries=400, seed=5, dtype=torch.float32).requiring_grad()
    runs = []
    for _ in range(3):
        output = ms_deform_attn(*case)
        runs.append((output, *torch.autograd.grad(output.square().sum(), case.leaves())))
    for run in runs[1:]:
        assert all(torch.equal(first, again) for first, again in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    """Same half inputs: the output and the gradients are the float32 ones, rounded."""
    case = make_case([(30, 41), (5, 52)], queries=50, points=4, seed=6).to(dtype)
    half, single = case.requiring_grad(), case.to(torch.float32).requiring_grad()
    outputs = ms_deform_attn(*half), ms_deform_attn(*single)
    assert outputs[0].dtype == dtype
    assert torch.equal(outputs[0], outputs[1].to(dtype))
    grad = torch.randn(outputs[0].shape).to(dtype)
    grads = torch.autograd.grad(outputs[0], half.leaves(), grad)
    for ours, theirs in zip(grads, torch.autograd.grad(outputs[1], single.leaves(), grad.float()), strict=True):
        assert torch.equal(ours, theirs.to(dtype))


def test_wider_locations_are_not_rounded_to_the_dtype_of_value() -> None:
    """Half values with float32 locations: a half location on a map of 300 is up to a cell away."""
    case = make_case([(2, 300)], queries=50, seed=7, dtype=torch.float32)
    mixed = case._replace(value=case.value.bfloat16(), attention_weights=case.attention_weights.bfloat16())
    rounded = mixed._replace(sampling_locations=case.sampling_locations.bfloat16())
    expected = ms_deform_attn(*mixed._replace(value=mixed.value.float()))
    output = ms_deform_attn(*mixed)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=2**-8, atol=1e-6)
    assert (ms_deform_attn(*rounded).float() - expected).abs().max() > 0.1


def test_autocast_changes_nothing() -> None:
    """Under autocast float32 arguments are still computed in float32."""
    case = make_case([(30, 41)], seed=8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = ms_deform_attn(*case)
    assert torch.equal(output, ms_deform_attn(*case))


def test_level_starts() -> None:
    """start_l = sum of H * W of the levels before; an empty level starts where the next one does."""
    assert level_starts(torch.tensor([(3, 4), (0, 7), (2, 5), (1, 1)])).tolist() == [0, 12, 12, 22]
    assert level_starts(torch.empty(0, 2, dtype=torch.int64)).tolist() == []
