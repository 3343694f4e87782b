"""The CPU kernel computes what the reference does: outputs, gradients, what is not finite, and what it refuses."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from torch import Tensor

from detr_reference.deformable_attention.core import ms_deform_attn as reference
from detr_reference.kernels import cpu_passes
from detr_reference.kernels.cpu import ms_deform_attn
from helpers.tiny.msda_cases import Case, cases, make_case

BAD = [math.nan, math.inf, -math.inf]


def output_and_gradients(core: Callable[..., Tensor], case: Case) -> tuple[Tensor, ...]:
    leaves = case.requiring_grad()
    output = core(*leaves)
    grad = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return output.detach(), *torch.autograd.grad(output, leaves.leaves(), grad)


def assert_agrees(case: Case, tolerance: float = 1e-12) -> None:
    """With the reference, in the output and all gradients, NaN where it has NaN."""
    for found, right in zip(output_and_gradients(ms_deform_attn, case), output_and_gradients(reference, case)):  # noqa: B905
        assert found.dtype == right.dtype
        torch.testing.assert_close(found, right, rtol=tolerance, atol=tolerance, equal_nan=True)


@given(case=cases())
def test_agrees_with_the_reference(case: Case) -> None:
    assert_agrees(case)


@pytest.mark.parametrize("samples", [1, 20, 70, 200])
def test_parts_and_pieces(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads, images or queries at a time, with a rest: 5 queries of 6 samples, 3 heads, 4 images."""
    monkeypatch.setattr(cpu_passes, "SAMPLES", samples)
    case = make_case([(5, 4), (3, 6)], batch=4, queries=5, heads=3, points=3)
    weights = case.attention_weights
    indices = [part for part, _ in cpu_passes._parts(case.spatial_shapes, weights, torch.float64)]
    met = torch.zeros(weights.shape)
    for part in indices:
        met[part] += 1
    assert len(indices) == {1: 12, 20: 12, 70: 8, 200: 2}[samples]
    assert (met == 1).all()
    assert_agrees(case)


def test_a_head_is_cut_along_its_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_passes, "SAMPLES", 20)
    weights = torch.rand(1, 8, 1, 6)
    pieces = [weights.shape[1] for weights, _ in cpu_passes._pieces(weights, weights)]
    assert pieces == [3, 3, 2]
    assert_agrees(make_case([(5, 4), (3, 6)], batch=1, queries=8, heads=1, points=3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_whole_numbers_are_exact(dtype: torch.dtype) -> None:
    """On dyadic inputs no rounding hides a wrong index: every corner of every cell, inside and beyond the border."""
    case = make_case([(4, 8), (2, 2)], batch=2, queries=40, heads=2, points=3, seed=5)
    size = case.spatial_shapes.flip(-1)[:, None]
    quarters = ((case.sampling_locations * size - 0.5) * 4).floor() / 4
    whole = case._replace(
        value=(case.value * 4).round(),
        sampling_locations=(quarters + 0.5) / size,
        attention_weights=torch.where(torch.rand(case.attention_weights.shape) < 0.1, 1.0, 0.0).double(),
    )
    given_dtype = whole.to(dtype)
    assert torch.equal(given_dtype.sampling_locations.double(), whole.sampling_locations)
    assert torch.equal(ms_deform_attn(*given_dtype).double(), reference(*whole).to(dtype).double())


def test_mixed_dtypes() -> None:
    """Under autocast a module hands over bfloat16 values and float32 locations; each gradient has its own dtype."""
    case = make_case([(5, 4), (3, 6)], dtype=torch.float32)
    mixed = case._replace(value=case.value.bfloat16(), attention_weights=case.attention_weights.bfloat16())
    assert ms_deform_attn(*mixed).dtype == torch.bfloat16
    assert_agrees(mixed, tolerance=1e-2)
    assert_agrees(case._replace(value=case.value.double()))


@pytest.mark.parametrize("shapes", [[(0, 5), (4, 3)], [(4, 3), (3, 0)], [(0, 0)]])
def test_maps_without_cells(shapes: list[tuple[int, int]]) -> None:
    assert_agrees(make_case(shapes))


@pytest.mark.parametrize("empty", ["batch", "queries", "points", "channels"])
def test_nothing_to_do(empty: str) -> None:
    assert_agrees(make_case([(4, 3)], **{empty: 0}))  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bad", [*BAD, 1e30, -1e30])
def test_a_location_that_reads_nothing(bad: float, axis: int) -> None:
    case = make_case([(5, 4), (3, 6)])
    case.sampling_locations[..., 0, axis] = bad
    assert_agrees(case)


@pytest.mark.parametrize("pixel", [-1.0, -1.0 + 1e-9, 4.0, 4.0 - 1e-9, 0.0, 3.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_ends_of_the_range(pixel: float, axis: int) -> None:
    """Kinks too: the derivative is the one to the right, as the reference's."""
    case = make_case([(4, 4)])
    case.sampling_locations[..., axis] = (pixel + 0.5) / 4
    assert_agrees(case)


@pytest.mark.parametrize("bad", BAD)
def test_untouched_cells_never_show(bad: float) -> None:
    """Also at -1 and at W, where a corner inside the map would have a share of zero."""
    case = make_case([(4, 4)], points=4)
    pixels = torch.tensor([[-1.0, 1.0], [1.0, -1.0], [4.0, 1.5], [0.5, 4.0]], dtype=torch.float64)
    case.sampling_locations[:] = (pixels + 0.5) / 4
    case = case._replace(value=torch.full_like(case.value, bad))
    for found in output_and_gradients(ms_deform_attn, case):
        assert torch.count_nonzero(found) == 0


@pytest.mark.parametrize("bad", BAD)
def test_what_is_not_finite_stays_where_it_is(bad: float) -> None:
    """In weights, inside and outside; in the value; and in the gradient of the output."""
    case = make_case([(5, 4), (3, 6)], reach=3, seed=6)
    hit = torch.rand(case.attention_weights.shape) < 0.3
    agreeing_finiteness(case._replace(attention_weights=case.attention_weights.masked_fill(hit, bad)))
    value = case.value.clone()
    value[1, 7] = bad
    agreeing_finiteness(case._replace(value=value))

    leaves, others = case.requiring_grad(), case.requiring_grad()
    output = ms_deform_attn(*leaves)
    grad = torch.ones_like(output)
    grad[0, 0] = bad
    found = torch.autograd.grad(output, leaves.leaves(), grad)
    right = torch.autograd.grad(reference(*others), others.leaves(), grad)
    for ours, theirs in zip(found, right, strict=True):
        assert torch.equal(ours.isfinite(), theirs.isfinite())
        assert torch.count_nonzero(ours) == torch.count_nonzero(theirs)


def agreeing_finiteness(case: Case) -> None:
    """In the output and the gradients, the same numbers are finite, and equal."""
    assert not all(tensor.isfinite().all() for tensor in case.leaves())
    for found, right in zip(  # noqa: B905
        output_and_gradients(ms_deform_attn, case), output_and_gradients(reference, case)
    ):
        ordinary = right.isfinite()
        assert torch.equal(found.isfinite(), ordinary)
        assert ordinary.any()
        torch.testing.assert_close(found[ordinary], right[ordinary])


def test_gradients_of_those_that_ask() -> None:
    case = make_case([(5, 4), (3, 6)])
    right = output_and_gradients(reference, case)[1:]
    grad = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(2, 5, 6)
    for count in (1, 2):
        for asking in itertools.combinations(range(3), count):
            leaves = [tensor.clone().requires_grad_(index in asking) for index, tensor in enumerate(case.leaves())]
            output = ms_deform_attn(leaves[0], *case[1:3], *leaves[1:])
            output.backward(grad)
            for index, leaf in enumerate(leaves):
                if index in asking:
                    torch.testing.assert_close(leaf.grad, right[index])
                else:
                    assert leaf.grad is None


def test_a_retained_graph_gives_the_same_again() -> None:
    leaves = make_case([(5, 4), (3, 6)]).requiring_grad()
    output = ms_deform_attn(*leaves)
    first = torch.autograd.grad(output.sum(), leaves.leaves(), retain_graph=True)
    again = torch.autograd.grad(output.sum(), leaves.leaves())
    assert all(torch.equal(ours, others) for ours, others in zip(first, again, strict=True))


def test_gradients_of_gradients_are_refused() -> None:
    leaves = make_case([(3, 3)]).requiring_grad()
    gradients = torch.autograd.grad(ms_deform_attn(*leaves).sum(), leaves.leaves(), create_graph=True)
    for gradient in gradients:
        with pytest.raises(NotImplementedError, match="has no gradients of its gradients"):
            gradient.sum().backward()


def test_more_samples_than_cells() -> None:
    """A row of the matrix then has more entries than it has columns, with the zeros around the maps."""
    assert_agrees(make_case([(1, 1)], batch=1, heads=1, points=33))


def test_checked_sparse_tensors() -> None:
    """torch can be told to check the invariants of all sparse tensors."""
    with torch.sparse.check_sparse_tensor_invariants():
        assert_agrees(make_case([(3, 4), (2, 5)]))


def test_a_tensor_elsewhere_is_refused() -> None:
    case = make_case([(3, 3)])
    with pytest.raises(ValueError, match="this kernel takes tensors on the CPU, got one on meta"):
        ms_deform_attn(*case._replace(value=case.value.to("meta")))


def test_errors_are_the_references(unchecked_shapes: None) -> None:
    case = make_case([(3, 3)])
    for wrong in (
        case._replace(value=case.value[:, :8]),
        case._replace(attention_weights=case.attention_weights[..., :1]),
        case._replace(level_start_index=case.level_start_index + 1),
        case._replace(value=case.value.long()),
    ):
        with pytest.raises((ValueError, TypeError)) as theirs:
            reference(*wrong)
        with pytest.raises((ValueError, TypeError)) as ours:
            ms_deform_attn(*wrong)
        assert (type(ours.value), str(ours.value)) == (type(theirs.value), str(theirs.value))


def test_no_warnings() -> None:
    """In a process of its own: torch says once that its sparse matrices may change."""
    program = (
        "import torch\n"
        "from detr_reference.kernels.cpu import ms_deform_attn\n"
        "shapes, starts = torch.tensor([[3, 3]]), torch.tensor([0])\n"
        "floating = [torch.rand(*size, requires_grad=True) for size in ((1, 9, 1, 2), (1, 1, 1, 1, 1, 2), (1,) * 5)]\n"
        "ms_deform_attn(floating[0], shapes, starts, *floating[1:]).sum().backward()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
