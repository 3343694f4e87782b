"""The fused Triton kernels say what the reference says: output and three gradients, in every dtype, size and layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from detr_reference.deformable_attention import core as deformable_attention
from detr_reference.kernels import triton_backward, triton_forward, triton_gather, triton_operator, triton_sampling
from detr_reference.kernels.triton_kernel import ms_deform_attn, ms_deform_attn_deterministic
from helpers.tiny.msda_cases import Case, Shapes, make_case
from helpers.triton_device import DEVICE, gradients, on_device

Core = Callable[..., Tensor]

SHAPES: Shapes = [(3, 4), (2, 5)]
# Half precision is rounded once, at the end.
CLOSE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2**-11, "atol": 2e-5},
    torch.bfloat16: {"rtol": 2**-8, "atol": 2e-5},
}


@pytest.fixture(params=[ms_deform_attn, ms_deform_attn_deterministic], ids=["atomic", "deterministic"])
def core(request: pytest.FixtureRequest) -> Core:
    return request.param


@pytest.fixture
def tiny_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 elements, so that a small case has many programs and the last one is not full."""
    for module in (triton_sampling, triton_gather):
        monkeypatch.setattr(module, "TILE", 16)


def agree(core: Core, case: Case, dtype: torch.dtype = torch.float64) -> None:
    """Output and gradients are those of the reference on the same numbers in float64."""
    quantised = case.to(dtype)
    exact = quantised.to(torch.float64).requiring_grad()
    expected = deformable_attention.ms_deform_attn(*exact)
    grad_output = torch.randn_like(expected).to(dtype)
    mine = on_device(quantised).requiring_grad()
    output = core(*mine)
    assert output.dtype == dtype
    torch.testing.assert_close(output.cpu().double(), expected, **CLOSE[dtype])
    wanted = torch.autograd.grad(expected, exact.leaves(), grad_output.double())
    for got, right in zip(gradients(output, mine, grad_output), wanted, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), right, **CLOSE[dtype])


# A margin from the kinks, where float32 and float64 may stand on different sides.
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_every_dtype(core: Core, dtype: torch.dtype) -> None:
    agree(core, make_case(SHAPES, queries=7, points=2, margin=0.1, seed=1), dtype)


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch": 3, "queries": 1, "heads": 1, "channels": 1, "points": 1},
        {"batch": 1, "queries": 5, "heads": 3, "channels": 33, "points": 3},
        {"batch": 2, "queries": 2, "heads": 2, "channels": 71, "points": 1},
        {"batch": 1, "queries": 2, "heads": 8, "channels": 4, "points": 2},
    ],
    ids=str,
)
def test_sizes_that_are_no_powers_of_two(core: Core, sizes: dict[str, int]) -> None:
    agree(core, make_case([(1, 6), (5, 1), (3, 3)], margin=0.1, seed=2, **sizes))


@pytest.mark.usefixtures("tiny_tiles")
def test_many_programs(core: Core) -> None:
    """Rows of several images and heads in one tile, and a last tile that is not full."""
    agree(core, make_case(SHAPES, batch=2, queries=3, heads=2, channels=3, points=1, margin=0.1, seed=3))


def test_more_channels_than_a_tile_has_elements(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_sampling, "TILE", 16)
    agree(core, make_case([(2, 3)], batch=1, queries=2, heads=2, channels=40, points=1, margin=0.1, seed=4))


def test_64_bit_offsets(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are chosen by the number of elements, and give the same numbers."""
    small, large = (torch.empty(size, device="meta") for size in (2**20, 2**31))
    assert triton_sampling.index_type(small, small) == triton_sampling.tl.int32
    assert triton_sampling.index_type(small, large) == triton_sampling.tl.int64
    for module in (triton_forward, triton_backward):
        monkeypatch.setattr(module, "index_type", lambda *tensors: triton_sampling.tl.int64)
    agree(core, make_case(SHAPES, queries=3, points=1, margin=0.1, seed=5))


def test_any_strides(core: Core) -> None:
    """Transposed, sliced, expanded and reversed arguments, and an incoming gradient without strides."""
    case = on_device(make_case(SHAPES, queries=4, points=2, margin=0.1, seed=6))
    odd = Case(
        case.value.transpose(1, 3).contiguous().transpose(1, 3),
        case.spatial_shapes.int().flip(0).flip(0),
        torch.stack((case.level_start_index, case.level_start_index), -1)[:, 1],
        torch.stack((torch.full_like(case.sampling_locations, torch.nan), case.sampling_locations), -1)[..., 1],
        case.attention_weights[:, :1].expand_as(case.attention_weights),
    )
    plain = Case(*(tensor.contiguous() for tensor in odd))
    results = []
    for each in (odd, plain):
        leaves = [tensor.detach().requires_grad_() for tensor in each.leaves()]
        output = core(leaves[0], each.spatial_shapes, each.level_start_index, *leaves[1:])
        results.append((output, *torch.autograd.grad(output.sum(), leaves)))
    for got, right in zip(*results, strict=True):
        torch.testing.assert_close(got, right, rtol=0, atol=1e-14)


def test_float32_locations_beside_bfloat16_values(core: Core) -> None:
    """As a module under autocast calls it: nothing is rounded but what the arguments have been, and the output."""
    case = make_case(SHAPES, queries=3, points=2, margin=0.1, seed=7, dtype=torch.float32)
    mixed = on_device(case._replace(value=case.value.bfloat16())).requiring_grad()
    expected = deformable_attention.ms_deform_attn(*(tensor.detach().cpu() for tensor in mixed))
    output = core(*mixed)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.cpu(), expected, rtol=2**-7, atol=0)
    assert [g.dtype for g in gradients(output, mixed, torch.ones_like(output))] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]


@pytest.mark.parametrize("empty", ["batch", "queries", "levels", "points", "cells", "channels"])
def test_nothing_to_do(core: Core, empty: str) -> None:
    sizes = {empty: 0} if empty in ("batch", "queries", "points", "channels") else {}
    shapes = {"levels": [], "cells": [(0, 3), (2, 0)]}.get(empty, SHAPES)
    agree(core, make_case(shapes, **sizes))


def test_a_level_without_cells_reads_as_zero(core: Core) -> None:
    agree(core, make_case([(0, 5), (3, 4), (2, 0)], queries=3, points=2, margin=0.1, seed=8))


def test_far_outside_is_exactly_zero(core: Core) -> None:
    """Up to the ends of float32, and at locations that are no numbers."""
    far = [-1e30, -1e9, -1.5, 2.5, 1e9, 1e30, torch.nan, torch.inf, -torch.inf]
    case = make_case(SHAPES, queries=len(far) * 2, heads=1, points=1, dtype=torch.float32, seed=9)
    locations = torch.full_like(case.sampling_locations, 0.5)
    for query, (number, axis) in enumerate(product(far, (0, 1))):
        locations[:, query, ..., axis] = number
    weights = case.attention_weights.clone()
    weights[:, -1] = torch.nan  # nor does a weight matter where nothing is read
    mine = on_device(case._replace(sampling_locations=locations, attention_weights=weights)).requiring_grad()
    output = core(*mine)
    assert not output.any()
    grad_output = torch.full_like(output, torch.inf)
    assert not any(gradient.any() for gradient in gradients(output, mine, grad_output))


def one_nan(case: Case, bad: int) -> Case:
    """The case with NaN in one cell."""
    value = case.value.clone()
    value[:, bad] = torch.nan
    return case._replace(value=value)


def touched(case: Case, bad: int) -> Tensor:
    """(batch, query, head): where the reference reads a cell, by the gradient that reaches it."""
    ones = case._replace(attention_weights=torch.ones_like(case.attention_weights)).requiring_grad()
    output = deformable_attention.ms_deform_attn(*ones).unflatten(-1, case.value.shape[2:])
    rows = output.flatten(0, 2)
    reads = [torch.autograd.grad(row.sum(), ones.value, retain_graph=True)[0][:, bad].any() for row in rows]
    return torch.stack(reads).view(output.shape[:3])


def test_nan_in_a_cell_stays_with_those_who_touch_it(core: Core) -> None:
    case = make_case(SHAPES, batch=1, queries=16, heads=2, points=2, reach=0.5, margin=0.1, seed=10)
    for bad in (0, 5, 11, 12, 21):
        reads = touched(case, bad)
        assert reads.any()
        assert not reads.all()
        output = core(*on_device(one_nan(case, bad))).unflatten(-1, case.value.shape[2:]).cpu()
        assert torch.equal(output.isnan().all(-1), reads)
        assert torch.equal(output.isnan().any(-1), reads)


def test_nan_in_the_gradient_of_one_query_stays_with_its_cells(core: Core) -> None:
    case = on_device(make_case(SHAPES, batch=1, queries=4, heads=1, points=1, margin=0.1, seed=11)).requiring_grad()
    output = core(*case)
    grad_output = torch.ones_like(output)
    grad_output[:, 1] = torch.nan
    grad_value, grad_locations, grad_weights = gradients(output, case, grad_output)
    reached = torch.zeros_like(grad_output)
    reached[:, 1] = 1
    of_one = gradients(core(*case), case, reached)[0] != 0
    assert torch.equal(grad_value.isnan(), of_one)
    assert not grad_locations[:, [0, 2, 3]].isnan().any()
    assert not grad_weights[:, [0, 2, 3]].isnan().any()


def test_the_derivative_at_a_kink_is_the_right_one(core: Core) -> None:
    """At whole pixel coordinates, -1 and W - 1 among them, floor() selects the cell to the right."""
    case = make_case([(4, 4)], batch=1, queries=25, heads=1, points=1, seed=12)
    y, x = torch.meshgrid(*[torch.arange(-1.0, 4.0, dtype=torch.float64)] * 2, indexing="ij")
    locations = ((torch.stack((x, y), -1) + 0.5) / 4).view_as(case.sampling_locations)
    agree(core, case._replace(sampling_locations=locations))


def test_only_what_is_asked_for(core: Core) -> None:
    case = on_device(make_case(SHAPES, queries=3, points=1, margin=0.1, seed=13))
    full = case.requiring_grad()
    expected = torch.autograd.grad(core(*full).sum(), full.leaves())
    for wanted in range(3):
        leaves = [tensor.clone().requires_grad_(index == wanted) for index, tensor in enumerate(case.leaves())]
        output = core(leaves[0], case.spatial_shapes, case.level_start_index, *leaves[1:])
        (gradient,) = torch.autograd.grad(output.sum(), leaves[wanted])
        torch.testing.assert_close(gradient, expected[wanted])


@pytest.fixture
def deterministic_algorithms() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic_algorithms")
def test_torchs_switch_selects_the_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    case = on_device(make_case(SHAPES, queries=3, points=1, margin=0.1, seed=14)).requiring_grad()
    output = ms_deform_attn(*case)
    marked = torch.full_like(case.value, 7.0)
    monkeypatch.setattr(triton_operator, "gather_value_gradient", lambda *arguments: marked)
    assert torch.equal(torch.autograd.grad(output.sum(), case.value, retain_graph=True)[0], marked)
    torch.use_deterministic_algorithms(False)
    assert not torch.equal(torch.autograd.grad(output.sum(), case.value)[0], marked)


def test_the_fixed_order_does_not_depend_on_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many samples on few cells: however cells are dealt to programs, each adds up in the order of its samples."""
    case = make_case([(2, 2)], batch=1, queries=12, heads=1, channels=3, points=2, seed=15, dtype=torch.float32)
    grad_output, found = torch.randn(1, 12, 3), []
    for tile in (8, 1024):
        for module in (triton_sampling, triton_gather):
            monkeypatch.setattr(module, "TILE", tile)
        mine = on_device(case).requiring_grad()
        found.append(gradients(ms_deform_attn_deterministic(*mine), mine, grad_output)[0])
    assert torch.equal(*found)


def test_levels_beyond_the_cells_are_not_read(core: Core) -> None:
    """Where the contents of spatial_shapes cannot be checked: no address outside value is computed."""
    case = on_device(make_case(SHAPES, queries=3, points=2, seed=16)).requiring_grad()
    for shapes, starts in (([(3, 4), (2, 50)], [0, 12]), ([(3, 4), (-2, -5)], [0, 12]), ([(3, 4), (2, 5)], [0, -1])):
        tensors = (torch.tensor(shapes, device=DEVICE), torch.tensor(starts, device=DEVICE))
        deterministic = core is ms_deform_attn_deterministic
        output = triton_operator.operator(case.value, *tensors, *case.leaves()[1:], deterministic)
        first = case._replace(sampling_locations=case.sampling_locations.clone())
        first.sampling_locations.data[:, :, :, 1] = torch.nan
        torch.testing.assert_close(output, core(*first))
        grad_value = torch.autograd.grad(output.sum(), case.value)[0]
        torch.testing.assert_close(grad_value, torch.autograd.grad(core(*first).sum(), case.value)[0])
