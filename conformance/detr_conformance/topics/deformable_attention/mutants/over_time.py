"""Mutants that show with computed arguments, at other scales, in threads, after many calls (MSDA-60 to 63, MSDA-65)."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Gradients,
    Kernel,
    Needs,
    Output,
    PerSample,
    Table,
    Vectors,
)
from detr_conformance.topics.deformable_attention.twins.plain import PlainGather


@mutant("weights-kept-in-the-context", rejects="MSDA-60", origin="ctx.weights = weights in place of save_for_backward")
class WeightsKeptInTheContext(Kernel):
    """Pulls back with what the weights have become."""

    def run(self, call: Call) -> Tensor:
        return _KeptInTheContext.apply(self, *call)


class _KeptInTheContext(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, *arguments: Tensor) -> Tensor:
        ctx.kernel, ctx.arguments = kernel, arguments
        return kernel.forward(Call(*arguments))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        _, value, _, _, locations, weights = ctx.needs_input_grad
        grads = ctx.kernel.backward(Call(*ctx.arguments), grad_output, Needs(value, locations, weights))
        return None, grads[0], None, None, grads[1], grads[2]


@mutant("computed-values-detached", rejects="MSDA-60", origin="a cast that is skipped for leaves and detaches the rest")
class ComputedValuesDetached(Kernel):
    """Gives no gradient to a value that is no leaf."""

    def prepare(self, call: Call) -> Call:
        return call if call.value.is_leaf else call._replace(value=call.value.detach() + 0 * call.value)


class _SampledOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shares: PerSample, corners: Vectors) -> Vectors:
        ctx.shares, ctx.corners = shares.detach(), corners.detach()
        return shares[..., None] * corners

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return (grads[0] * ctx.corners).sum(-1), grads[0] * ctx.shares[..., None]


@mutant(
    "interpolation-differentiated-once", rejects="MSDA-65", origin="a fused interpolation between torch's operators"
)
class InterpolationDifferentiatedOnce(PlainGather):
    """Takes corners and shares for constants when gradients are differentiated."""

    def forward(self, call: Call) -> Tensor:
        dtype = self.compute_dtype(call)
        geometry = self.geometry(call, dtype)
        weights = self.weigh(call.attention_weights.to(dtype), geometry.in_range)
        rows, shares = torch.stack(geometry.rows, -1), torch.stack(geometry.shares, -1)
        corners = self.read(self.table(call.value, dtype), (rows,))[0]
        samples = _SampledOnce.apply(shares, corners).sum(-2)
        return self.finish((weights[..., None] * samples).sum((3, 4)), call.value.dtype)


@mutant("values-saturate", rejects="MSDA-61", origin="a fixed-point table with 21 bits before the point")
class ValuesSaturate(Kernel):
    """Clamps the table of cells at 2^21."""

    def table(self, value: Tensor, dtype: torch.dtype) -> Table:
        return super().table(value, dtype).clamp(-(2.0**21), 2.0**21)


@mutant(
    "small-incoming-gradients-skipped",
    rejects="MSDA-61",
    origin="a sparse backward with a threshold",
)
class SmallIncomingGradientsSkipped(Kernel):
    """Takes incoming gradients below 2^-20 for zero."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        return super().backward(call, torch.where(grad_output.abs() < 2**-20, 0, grad_output), needs)


@mutant("damaged-gradients-cleaned", rejects="MSDA-61", origin="nan_to_num, so that the loss scaler sees nothing")
class DamagedGradientsCleaned(Kernel):
    """Replaces what is not finite in the incoming gradient by zero."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        return super().backward(call, grad_output.nan_to_num(0, 0, 0), needs)


@mutant("damaged-gradients-spread", rejects="MSDA-61", origin="heads reduced in one block, by a product with a mask")
class DamagedGradientsSpread(Kernel):
    """Lets NaN in one head's gradient into the weights of all heads."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        own = super().grad_weights(grad, samples, geometry, weights)
        return own + 0 * own.sum(2, keepdim=True)


@mutant("scratch-on-the-kernel", rejects="MSDA-62", origin="self.workspace = ... in a functor that is shared")
class ScratchOnTheKernel(Kernel):
    """Keeps its weights on itself while it reads the maps."""

    def weigh(self, weights: PerSample, in_range: Tensor) -> PerSample:
        self.workspace = super().weigh(weights, in_range)
        time.sleep(1e-3)  # as while a kernel runs
        return self.workspace


@mutant("handles-run-out", rejects="MSDA-63", origin="a pool of 6,000 texture handles, never given back")
class HandlesRunOut(Kernel):
    """Gives zeros from its 6,000th call on."""

    calls = 0

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        self.calls += 1
        return super().finish(output, dtype) * (self.calls < 6_000)


@mutant("outputs-never-freed", rejects="MSDA-63", origin="a list of outputs for a later release")
class OutputsNeverFreed(Kernel):
    """Keeps every output."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        finished = super().finish(output, dtype)
        self.kept.append(finished.detach().clone())
        return finished
