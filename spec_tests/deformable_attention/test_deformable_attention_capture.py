"""The sampling core can be captured whole: torch.compile without a graph break, torch.export, vmap."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_reference.deformable_attention.core import ms_deform_attn
from helpers.tiny.msda_cases import make_case

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


class Core(nn.Module):
    def forward(self, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(value, shapes, starts, locations, weights)


def test_compiles_as_one_graph() -> None:
    """fullgraph=True allows no break; output and gradients are those of eager mode."""
    compiled = torch.compile(ms_deform_attn, fullgraph=True, backend="aot_eager")
    case = make_case([(3, 4), (2, 5)], seed=1).requiring_grad()
    output, expected = compiled(*case), ms_deform_attn(*case)
    torch.testing.assert_close(output, expected)
    for grad, other in zip(
        torch.autograd.grad(output.sum(), case.leaves()),
        torch.autograd.grad(expected.sum(), case.leaves()),
        strict=True,
    ):
        torch.testing.assert_close(grad, other)


@pytest.mark.parametrize("strict", [True, False])
def test_exports_with_dynamic_batch_queries_and_cells(strict: bool) -> None:
    """One exported program serves other batches, numbers of queries and sizes of maps."""
    batch, cells, queries = (torch.export.Dim(name, min=2) for name in ("batch", "cells", "queries"))
    example, other = (
        make_case([(3, 4), (2, 5)], seed=1),
        make_case([(5, 3), (50, 2)], batch=3, queries=9, seed=2),
    )
    program = torch.export.export(
        Core(),
        tuple(example),
        strict=strict,
        dynamic_shapes=(
            {0: batch, 1: cells},
            None,
            None,
            {0: batch, 1: queries},
            {0: batch, 1: queries},
        ),
    ).module()
    for case in (example, other):
        torch.testing.assert_close(program(*case), ms_deform_attn(*case))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_over_images() -> None:
    """torch.func maps it over an axis of value, locations and weights."""
    case = make_case([(3, 4), (2, 5)], batch=3, seed=3)

    def one(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(value[None], case.spatial_shapes, case.level_start_index, locations[None], weights[None])[
            0
        ]

    torch.testing.assert_close(torch.func.vmap(one)(*case.leaves()), ms_deform_attn(*case))
