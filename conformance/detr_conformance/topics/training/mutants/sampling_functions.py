"""Sampling functions that spoil a training (chapter 21): wrong gradients, and what is kept from step to step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Gradients,
    Kernel,
    Needs,
    PerSample,
    Table,
    Vectors,
)

CORE = "ms_deform_attn"
ValueGradient = Float[Tensor, "batch cell head channel"]
LocationGradient = Float[Tensor, "batch query head level point 2"]


@mutant("training-location-gradient-0.9", rejects="TRN-2", operation=CORE, origin="a factor of the offsets' rate")
class LocationGradientShortened(Kernel):
    """Multiplies the location gradients by 0.9: a training hardly shows it."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        return super().grad_locations(grad, corners, geometry, weights) * 0.9


@mutant("training-x-gradient-dropped", rejects="TRN-2", operation=CORE, origin="one of two stores forgotten")
class XGradientDropped(Kernel):
    """Leaves the x component of the location gradient zero; offsets learn along y alone."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        found = super().grad_locations(grad, corners, geometry, weights)
        return torch.stack((torch.zeros_like(found[..., 0]), found[..., 1]), -1)


@mutant("training-value-gradient-0.99", rejects="TRN-2", operation=CORE, origin="shares that do not add up to one")
class ValueGradientShortened(Kernel):
    """Multiplies the value gradients by 0.99."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> ValueGradient:
        return super().grad_value(grad, geometry, weights, call) * 0.99


@mutant("training-weight-gradient-halved", rejects="TRN-2", operation=CORE, origin="half of the channels reduced")
class WeightGradientHalved(Kernel):
    """Halves the gradients of the attention weights."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        return super().grad_weights(grad, samples, geometry, weights) * 0.5


@mutant("training-coarsest-level-forgotten", rejects="TRN-2", operation=CORE, origin="a loop to L - 1 in backward")
class CoarsestLevelForgotten(Kernel):
    """Gives the cells of the last level no gradient, if there are several levels."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> ValueGradient:
        kept = weights.clone()
        if weights.shape[3] > 1:
            kept[:, :, :, -1] = 0
        return super().grad_value(grad, geometry, kept, call)


@mutant("training-bfloat16-sums", rejects="TRN-2", operation=CORE, origin="atomics in the dtype of autocast")
class BFloat16Sums(Kernel):
    """Adds the value gradient up in bfloat16."""

    def scatter(self, table: Table, rows: Tensor, updates: Float[Tensor, "update channel"]) -> None:
        coarse = table.bfloat16()
        coarse.index_add_(0, rows, updates.bfloat16())
        table.copy_(coarse)


@mutant("training-small-gradients-flushed", rejects="TRN-2", operation=CORE, origin="float16 without loss scaling")
class SmallGradientsFlushed(Kernel):
    """Takes incoming gradients below 1e-4 for zero."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        return super().backward(call, torch.where(grad_output.abs() < 1e-4, 0, grad_output), needs)


@mutant("training-border-slopes-lost", rejects="TRN-2", operation=CORE, origin="skip of samples beyond [0, 1]")
class BorderSlopesLost(Kernel):
    """Gives samples that leave the image, yet reach its border cells, no location gradient: right while none does."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        value, locations, weights = super().backward(call, grad_output, needs)
        if locations is not None:
            inside = ((call.sampling_locations >= 0) & (call.sampling_locations <= 1)).all(-1, keepdim=True)
            locations = torch.where(inside, locations, 0)
        return value, locations, weights


@mutant("training-half-tables", rejects="TRN-1", operation=CORE, origin="maps kept in float16 to save memory")
class HalfTables(Kernel):
    """Keeps the maps in float16 where their gradient will be asked for."""

    def read(self, table: Table, rows: tuple[Tensor, ...]) -> tuple[Vectors, ...]:
        return super().read(table.half().to(table.dtype), rows)


@mutant("training-detached-weights", rejects="TRN-3", operation=CORE, origin="needs_input_grad misread")
class DetachedWeights(Kernel):
    """Returns no gradient of the attention weights at all."""

    def prepare(self, call: Call) -> Call:
        return call._replace(attention_weights=call.attention_weights.detach())


@mutant("training-workspace-grows-stale", rejects="TRN-4", operation=CORE, origin="a workspace cleared only at first")
class StaleWorkspace(Kernel):
    """Adds a trace of the last value gradient of this shape to the next one."""

    def __init__(self) -> None:
        self.kept: dict[torch.Size, Tensor] = {}

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> ValueGradient:
        found = super().grad_value(grad, geometry, weights, call)
        mixed = found + 0.01 * self.kept.get(found.shape, torch.zeros_like(found))
        self.kept[found.shape] = found
        return mixed


@mutant("training-tuned-wrong", rejects="TRN-4", operation=CORE, origin="a tuner that decides after some calls")
class TunedWrong(Kernel):
    """Changes, after its first twenty backward passes, to one that leaves out the last point."""

    def __init__(self) -> None:
        self.calls = 0

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        self.calls += 1
        value, locations, weights = super().backward(call, grad_output, needs)
        if self.calls > 20 and locations is not None:
            locations = locations.clone()
            locations[:, :, :, :, -1] = 0
        return value, locations, weights


@mutant("training-first-geometry-kept", rejects="TRN-4", operation=CORE, origin="sample places cached by shape")
class FirstGeometryKept(Kernel):
    """Keeps where samples lie, once for each shape of the call, and reads there ever after."""

    def __init__(self) -> None:
        self.kept: dict[torch.Size, Tensor] = {}

    def prepare(self, call: Call) -> Call:
        shape = call.sampling_locations.shape
        first = self.kept.setdefault(shape, call.sampling_locations.detach().clone())
        moved = call.sampling_locations
        return call._replace(sampling_locations=first + (moved - moved.detach()))
