"""Proposals against a scalar oracle in fractions, their consequences, padding, gradients, half precision, errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.queries.box_refinement import refine_boxes
from detr_reference.queries.two_stage_proposals import cell_places, encoder_proposals
from helpers.oracles.scalar_selection import proposal

Size = tuple[int, int]


def padding(shapes: list[Size], extents: list[list[Size]]) -> list[Tensor]:
    """A mask (batch, H, W) of each level; extents[image][level]."""
    masks = [torch.ones(len(extents), *shape, dtype=torch.bool) for shape in shapes]
    for image, sizes in enumerate(extents):
        for mask, (rows, columns) in zip(masks, sizes, strict=True):
            mask[image, :rows, :columns] = False
    return masks


def proposals_of(shapes: list[Size], extents: list[list[Size]], dtype: torch.dtype = torch.float64) -> Tensor:
    mask = torch.cat([level.flatten(1) for level in padding(shapes, extents)], 1)
    memory = torch.randn(*mask.shape, 2, dtype=dtype)
    return encoder_proposals(memory, mask, torch.tensor(shapes))["proposals"]


sides = st.tuples(st.integers(1, 5), st.integers(1, 60)).flatmap(st.permutations).map(tuple)


@given(st.lists(sides, min_size=1, max_size=6), st.integers(1, 2), st.data())
def test_scalar_oracle(shapes: list[Size], batch: int, data: st.DataObject) -> None:
    extents = [[(data.draw(st.integers(0, h)), data.draw(st.integers(0, w))) for h, w in shapes] for _ in range(batch)]
    masks = padding(shapes, extents)
    mask = torch.cat([level.flatten(1) for level in masks], 1)
    memory = torch.randn(*mask.shape, 3, dtype=torch.float64)
    out = encoder_proposals(memory, mask, torch.tensor(shapes))
    for image in range(batch):
        cell = 0
        for level, (height, width) in enumerate(shapes):
            told = masks[level][image].tolist()
            for row in range(height):
                for column in range(width):
                    expected = proposal(told, row, column, level)
                    got, kept = out["proposals"][image, cell].tolist(), out["memory"][image, cell]
                    if expected is None:
                        assert got == [math.inf] * 4
                        assert not kept.any()
                    else:
                        assert got == pytest.approx(expected, rel=1e-12, abs=1e-13)
                        assert torch.equal(kept, memory[image, cell])
                    cell += 1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4))
def test_places_of_cells(shapes: list[Size]) -> None:
    """Level, row and column, also behind levels without cells."""
    expected = [(level, row, column) for level, (h, w) in enumerate(shapes) for row in range(h) for column in range(w)]
    places = cell_places(torch.tensor(shapes), len(expected))
    assert list(zip(*(place.tolist() for place in places), strict=True)) == expected


@pytest.mark.parametrize(("side", "border"), [(48, 0), (49, 0), (50, 1), (51, 1), (149, 1), (150, 2), (151, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_border_cells_are_dropped_from_a_side_of_50_on(side: int, border: int, dtype: torch.dtype) -> None:
    """(j + 0.5) / w > 0.01: the first cell of 50 lies on the bound, that of 49 inside."""
    for shape in ((1, side), (side, 1)):
        invalid = proposals_of([shape], [[shape]], dtype)[0].isinf().all(-1)
        assert invalid.tolist() == [True] * border + [False] * (side - 2 * border) + [True] * border


def test_sixth_level_is_invalid() -> None:
    """Its size, 0.05 * 2 ** 5 = 1.6, is larger than the image; that of the fifth, 0.8, is not."""
    shapes = [(2, 3)] * 6
    invalid = proposals_of(shapes, [shapes])[0].isinf().all(-1)
    assert invalid.tolist() == [False] * 30 + [True] * 6


def test_an_invalid_proposal_absorbs_corrections() -> None:
    """It decodes to the box (1, 1, 1, 1) with a gradient of zero, and refinement of that box is finite."""
    proposals = proposals_of([(2, 3)], [[(1, 2)]])
    delta = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    boxes = (delta + proposals).sigmoid()
    invalid = proposals.isinf()
    assert invalid.sum() == 16
    assert (boxes[invalid] == 1).all()
    (grad,) = torch.autograd.grad(boxes.sum(), delta)
    assert (grad[invalid] == 0).all()
    assert (grad[~invalid] > 0).all()
    refined = refine_boxes(torch.zeros_like(delta), boxes)
    torch.testing.assert_close(refined[invalid], torch.full((16,), 1 / 1.001, dtype=torch.float64))


def test_invalid_cells_look_alike() -> None:
    """Zero memory: whatever a head computes of it is one number for all of them."""
    mask = torch.tensor([[False, False, True, False, False, True]])
    memory = torch.randn(1, 6, 4)
    out = encoder_proposals(memory, mask, torch.tensor([(2, 3)]))["memory"]
    scores = torch.nn.Linear(4, 1)(out)[0, :, 0]
    assert scores[2] == scores[5]
    assert len(set(scores.tolist())) == 5


@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 3), st.integers(0, 9), st.integers(0, 2**16))
def test_independent_of_padding(rows: int, columns: int, below: int, beside: int, seed: int) -> None:
    """An image has bit for bit the proposals and memory that it has alone, and NaN in padding leaves no trace."""
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(1, rows, columns, 2, generator=generator)
    alone = encoder_proposals(
        memory.flatten(1, 2), torch.zeros(1, rows * columns, dtype=torch.bool), torch.tensor([(rows, columns)])
    )
    shape = (rows + below, columns + beside)
    padded = torch.full((1, *shape, 2), torch.nan)
    padded[:, :rows, :columns] = memory
    mask = padding([shape], [[(rows, columns)]])[0].flatten(1)
    out = encoder_proposals(padded.flatten(1, 2), mask, torch.tensor([shape]))
    for name, tensor in out.items():
        assert torch.equal(tensor[:, ~mask[0]], alone[name])
        assert (tensor[:, mask[0]] == (torch.inf if name == "proposals" else 0)).all()


def test_gradient_of_memory() -> None:
    """One where valid, zero elsewhere, whatever arrives there; the proposals have none."""
    mask = torch.tensor([[False, False, True, False, False, True]])
    memory = torch.randn(1, 6, 2, requires_grad=True)
    out = encoder_proposals(memory, mask, torch.tensor([(2, 3)]))
    assert not out["proposals"].requires_grad
    incoming = torch.ones(1, 6, 2).masked_fill(mask[..., None], torch.nan)
    (grad,) = torch.autograd.grad(out["memory"], memory, incoming)
    assert torch.equal(grad, (~mask)[..., None].expand(1, 6, 2).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    """Also in what is valid."""
    shapes, extents = [(3, 160), (57, 4)], [[(2, 151), (57, 3)], [(3, 149), (50, 4)]]
    half, full = (proposals_of(shapes, extents, each) for each in (dtype, torch.float32))
    assert torch.equal(half, full.to(dtype))


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    memory, mask, shapes = torch.randn(2, 6, 3), torch.zeros(2, 6, dtype=torch.bool), torch.tensor([(2, 3)])
    with pytest.raises(ValueError, match=r"memory must be \(batch, cell, embed\), got \(6, 3\)"):
        encoder_proposals(memory[0], mask[0], shapes)
    with pytest.raises(TypeError, match=r"memory_key_padding_mask must be bool .* got torch.uint8"):
        encoder_proposals(memory, mask.byte(), shapes)
    with pytest.raises(ValueError, match=r"memory_key_padding_mask \(2, 5\) .* \(2, 6\)"):
        encoder_proposals(memory, mask[:, :5], shapes)
    with pytest.raises(ValueError, match=r"memory \(2, 6, 3\) has 6 cells, but .*\[\[2, 4\]\].* = 8"):
        encoder_proposals(memory, mask, torch.tensor([(2, 4)]))
    with pytest.raises(ValueError, match=r"spatial_shapes must be \(level, 2\) .* got \(2,\)"):
        encoder_proposals(memory, mask, shapes[0])
