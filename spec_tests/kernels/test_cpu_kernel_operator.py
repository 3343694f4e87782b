"""The CPU kernel under torch.compile and torch.export, where it is one operator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_reference.kernels import cpu_operator
from detr_reference.kernels.cpu import ms_deform_attn
from helpers.tiny.msda_cases import make_case

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


class Core(nn.Module):
    def forward(self, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(value, shapes, starts, locations, weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_are_well_formed(dtype: torch.dtype) -> None:
    """Schema, shapes without data, autograd registration and tracing, as torch examines them."""
    case = make_case([(3, 4), (2, 5)], dtype=dtype).requiring_grad()
    arguments = case.value, case.spatial_shapes, case.sampling_locations, case.attention_weights
    torch.library.opcheck(cpu_operator.forward, arguments)
    grad_output = torch.ones(2, 5, 6, dtype=dtype)
    torch.library.opcheck(cpu_operator.backward, (grad_output, *(tensor.detach() for tensor in arguments)))


def test_compiles_as_one_graph() -> None:
    """fullgraph=True allows no break; output and gradients are those of eager mode, with maps of another shape too."""
    torch.compiler.reset()
    compiled = torch.compile(ms_deform_attn, fullgraph=True, backend="aot_eager")
    for shapes in ([(3, 4), (2, 5)], [(4, 3), (5, 2)]):
        case = make_case(shapes, seed=1).requiring_grad()
        output, expected = compiled(*case), ms_deform_attn(*case)
        assert torch.equal(output, expected)
        grad_output = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape)
        for grad, other in zip(
            torch.autograd.grad(output, case.leaves(), grad_output),
            torch.autograd.grad(expected, case.leaves(), grad_output),
            strict=True,
        ):
            assert torch.equal(grad, other)


@pytest.mark.parametrize("strict", [True, False])
def test_exports_with_dynamic_batch_queries_and_cells(strict: bool) -> None:
    """One exported program serves other batches, numbers of queries and sizes of maps."""
    batch, cells, queries = (torch.export.Dim(name, min=2) for name in ("batch", "cells", "queries"))
    example, other = make_case([(3, 4), (2, 5)], seed=1), make_case([(5, 3), (50, 2)], batch=3, queries=9, seed=2)
    dynamic = {0: batch, 1: cells}, None, None, {0: batch, 1: queries}, {0: batch, 1: queries}
    program = torch.export.export(Core(), tuple(example), strict=strict, dynamic_shapes=dynamic).module()
    for case in (example, other):
        assert torch.equal(program(*case), ms_deform_attn(*case))
