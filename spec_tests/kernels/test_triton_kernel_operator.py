"""The Triton kernels as operators of torch: opcheck, torch.compile, torch.export, autocast, errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_reference.deformable_attention import core as deformable_attention
from detr_reference.kernels import triton_kernel
from detr_reference.kernels.triton_kernel import ms_deform_attn
from detr_reference.kernels.triton_operator import backward_operator, operator
from helpers.tiny.msda_cases import Case, make_case
from helpers.triton_device import DEVICE, gradients, on_device


def small_case(dtype: torch.dtype = torch.float32, **sizes: int) -> Case:
    return on_device(make_case([(3, 4), (2, 2)], points=1, margin=0.1, seed=1, dtype=dtype, **sizes))


@pytest.mark.parametrize("deterministic", [False, True])
def test_opcheck_of_the_forward_operator(deterministic: bool) -> None:
    """Schema, fake tensors, autograd registration, and AOT autograd with symbolic shapes."""
    torch.library.opcheck(operator, (*small_case().requiring_grad(), deterministic))


@pytest.mark.parametrize("wanted", [[True, True, True], [False, True, False]], ids=str)
def test_opcheck_of_the_backward_operator(wanted: list[bool]) -> None:
    case = small_case()
    grad_output = torch.ones_like(operator(*case, False))
    torch.library.opcheck(backward_operator, (*case, grad_output, wanted, False))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.usefixtures("unchecked_shapes")
def test_compiles_as_one_graph(backend: str) -> None:
    """fullgraph=True allows no break; output and gradients are those of eager mode, also of other sizes."""
    if backend == "inductor" and DEVICE == "cpu":
        pytest.skip("inductor is for GPUs here: on the CPU it would need a C++ compiler")
    torch.compiler.reset()
    compiled = torch.compile(ms_deform_attn, fullgraph=True, backend=backend)
    for case in (small_case().requiring_grad(), small_case(queries=3, batch=1).requiring_grad()):
        output, expected = compiled(*case), ms_deform_attn(*case)
        torch.testing.assert_close(output, expected)
        grad_output = torch.ones_like(expected)
        for got, right in zip(
            gradients(output, case, grad_output), gradients(expected, case, grad_output), strict=True
        ):
            torch.testing.assert_close(got, right)


class Core(nn.Module):
    def forward(self, *arguments: Tensor) -> Tensor:
        return ms_deform_attn(*arguments)


@pytest.mark.usefixtures("unchecked_shapes")
def test_exports_as_one_operator() -> None:
    example, other = small_case(), on_device(make_case([(4, 3), (1, 4)], points=1, seed=2, dtype=torch.float32))
    program = torch.export.export(Core(), tuple(example))
    assert "triton_ms_deform_attn" in str(program.graph)
    torch.testing.assert_close(program.module()(*other), ms_deform_attn(*other))


def test_autocast_rounds_nothing() -> None:
    """float32 arguments are computed in float32, so that locations keep their places."""
    case = small_case().requiring_grad()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        output = ms_deform_attn(*case)
    assert output.dtype == torch.float32
    assert torch.equal(output, ms_deform_attn(*case))
    assert all(gradient.dtype == torch.float32 for gradient in gradients(output, case, torch.ones_like(output)))


def test_without_gradients_nothing_is_remembered() -> None:
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            output = ms_deform_attn(*small_case())
        assert output.grad_fn is None


def test_the_output_is_the_callers() -> None:
    """It may be changed in place before backward."""
    case = small_case(torch.float64).requiring_grad()
    output, again = ms_deform_attn(*case), ms_deform_attn(*case)
    grad_output = torch.randn_like(output)
    expected = gradients(again, case, grad_output)
    output.add_(1)
    for got, right in zip(gradients(output, case, grad_output), expected, strict=True):
        torch.testing.assert_close(got, right)


def test_a_second_derivative_is_refused() -> None:
    case = small_case().requiring_grad()
    (gradient,) = torch.autograd.grad(ms_deform_attn(*case).sum(), case.value, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_are_the_references() -> None:
    """Type and text."""
    case = small_case()
    for wrong in (
        case._replace(value=case.value[:, 1:]),
        case._replace(value=case.value.int()),
        case._replace(level_start_index=case.level_start_index.flip(0)),
        case._replace(sampling_locations=case.sampling_locations[:, :, :, :1]),
        case._replace(attention_weights=case.attention_weights[..., None]),
        case._replace(spatial_shapes=case.spatial_shapes.float()),
    ):
        with pytest.raises((ValueError, TypeError)) as expected:
            deformable_attention.ms_deform_attn(*wrong)
        with pytest.raises(expected.type) as found:
            ms_deform_attn(*wrong)
        assert str(found.value) == str(expected.value)


def test_tensors_on_the_cpu_are_refused_where_nothing_interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernel, "INTERPRETED", False)
    case = Case(*(tensor.cpu() for tensor in small_case()))
    with pytest.raises(ValueError, match=r"takes tensors on one GPU .* got cpu, cpu, cpu, cpu, cpu"):
        ms_deform_attn(*case)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one() -> None:
    last = torch.cuda.device_count() - 1
    case = Case(*(tensor.to(f"cuda:{last}") for tensor in small_case())).requiring_grad()
    output = ms_deform_attn(*case)
    assert output.device.index == last
    torch.testing.assert_close(output.cpu(), deformable_attention.ms_deform_attn(*(t.detach().cpu() for t in case)))
    assert all(gradient.abs().sum() > 0 for gradient in gradients(output, case, torch.ones_like(output)))


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.usefixtures("unchecked_shapes")
def test_captured_in_a_cuda_graph() -> None:
    """After one ordinary call, which compiles the kernel and checks the arguments."""
    case = small_case()
    expected = ms_deform_attn(*case)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = ms_deform_attn(*case)
    output.zero_()
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(output, expected)
