"""Mutants of memory and state: strides, mutation, aliases, caches, determinism, globals (MSDA-44 to MSDA-49)."""

from __future__ import annotations

import random
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

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


def in_memory_order(tensor: Tensor) -> Tensor:
    """The numbers that a kernel finds at data_ptr() if it takes the tensor for contiguous; zero beyond the storage."""
    size = tensor.untyped_storage().size() // tensor.itemsize
    memory = tensor.as_strided((size,), (1,), 0)[tensor.storage_offset() :][: tensor.numel()]
    padding = memory.new_zeros(tensor.numel() - len(memory))
    return torch.cat((memory, padding)).reshape(tensor.shape)


@mutant("value-assumed-contiguous", rejects="MSDA-44", origin="data_ptr() without .contiguous()")
class ValueAssumedContiguous(Kernel):
    """Reads the value in the order of its memory."""

    def table(self, value: Float[Tensor, "batch cell head channel"], dtype: torch.dtype) -> Table:
        return super().table(in_memory_order(value), dtype)


@mutant("locations-assumed-contiguous", rejects="MSDA-44", origin="data_ptr() without .contiguous()")
class LocationsAssumedContiguous(Kernel):
    """Reads the locations in the order of their memory, in forward and backward alike."""

    def coordinates(
        self, locations: Tensor, height: Tensor, width: Tensor, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        return super().coordinates(in_memory_order(locations), height, width, dtype)


@mutant("weights-offset-ignored", rejects="MSDA-44", origin="storage().data() in place of data_ptr()")
class WeightsOffsetIgnored(Kernel):
    """Reads the weights from the beginning of their storage."""

    def forward(self, call: Call) -> Tensor:
        weights = call.attention_weights
        return super().forward(call._replace(attention_weights=weights.as_strided(weights.shape, weights.stride(), 0)))


@mutant("value-must-be-viewable", rejects="MSDA-44", origin=".view() in place of .reshape()")
class ValueMustBeViewable(Kernel):
    """Raises on a transposed value."""

    def check(self, call: Call) -> None:
        super().check(call)
        call.value.view(-1)


@mutant("shapes-assumed-contiguous", rejects="MSDA-44", origin="int64 metadata read by pointer")
class ShapesAssumedContiguous(Kernel):
    """Reads the pairs of spatial_shapes by their address, whatever their stride."""

    def sizes(self, spatial_shapes: Int[Tensor, "level 2"]) -> tuple[Tensor, Tensor]:
        return super().sizes(in_memory_order(spatial_shapes))


@mutant("weights-masked-in-place", rejects="MSDA-45", origin="masked_fill_ to save an allocation")
class WeightsMaskedInPlace(Kernel):
    """Writes zero into the caller's weights where a sample is out of range."""

    def forward(self, call: Call) -> Tensor:
        in_range = self.geometry(call, self.compute_dtype(call)).in_range
        call.attention_weights.data.masked_fill_(~in_range, 0)
        return super().forward(call)


@mutant("locations-scaled-in-place", rejects="MSDA-45", origin="loc.mul_(2).sub_(1), undone afterwards")
class LocationsScaledInPlace(Kernel):
    """Maps the caller's locations to [-1, 1] and back, and loses their last bits."""

    def forward(self, call: Call) -> Tensor:
        output = super().forward(call)
        call.sampling_locations.data.mul_(2).sub_(1).add_(1).div_(2)
        return output


@mutant("gradient-scaled-in-place", rejects="MSDA-45", origin="grad_output *= scale")
class GradientScaledInPlace(Kernel):
    """Writes into the incoming gradient, which other branches of the graph still need."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        grads = super().backward(call, grad_output, needs)
        if grad_output.is_contiguous():
            grad_output.data.mul_(0.5)
        return grads


@mutant("shared-output", rejects="MSDA-46", origin="workspace kept between calls")
class SharedOutput(Kernel):
    """Hands out the same buffer whenever shape and dtype are the same: the second call overwrites the first result."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[torch.Size, torch.dtype], Tensor] = {}

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        result = super().finish(output, dtype)
        if result.is_inference():
            return result
        buffer = self.buffers.setdefault((result.shape, dtype), result.clone()).copy_(result)
        return buffer.new_empty(0).set_(buffer.untyped_storage(), 0, buffer.shape, buffer.stride())


@mutant("output-view", rejects="MSDA-46", origin="mmcv 1511")
class OutputView(Kernel):
    """Returns a view made inside the autograd function, which autograd forbids to modify."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        return output.to(dtype).flatten(2)


@mutant("output-saved-for-backward", rejects="MSDA-46", origin="output reused in backward to save a pass")
class OutputSavedForBackward(Kernel):
    """Needs its output again in backward, and raises if the caller has added something to it."""

    def run(self, call: Call) -> Tensor:
        return _KeepsOutput.apply(super().run(call))


class _KeepsOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        kept = output.clone()
        ctx.save_for_backward(kept)
        return kept

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        return grad_output.expand_as(kept)


@mutant("cached-by-address", rejects="MSDA-47", origin="value layout cached by data_ptr()")
class CachedByAddress(Kernel):
    """Converts the value once for each address and shape: new numbers in the same memory are not seen."""

    def __init__(self) -> None:
        self.tables: dict[tuple[int, torch.Size, torch.dtype], tuple[Tensor, Table]] = {}

    def table(self, value: Float[Tensor, "batch cell head channel"], dtype: torch.dtype) -> Table:
        key = (value.data_ptr(), value.shape, value.dtype)
        # The value is kept, so that its address is not given to another one.
        return self.tables.setdefault(key, (value, super().table(value, dtype)))[1]


@mutant("cached-by-level-count", rejects="MSDA-47", origin="shapes copied to constant memory once")
class CachedByLevelCount(Kernel):
    """Keeps the first spatial_shapes that it sees for each number of cells and levels."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], Tensor] = {}

    def prepare(self, call: Call) -> Call:
        key = (call.value.shape[1], len(call.spatial_shapes))
        return call._replace(spatial_shapes=self.seen.setdefault(key, call.spatial_shapes.clone()))


@mutant("unwritten-output", rejects="MSDA-47", origin="torch.empty and an early return")
class UnwrittenOutput(Kernel):
    """Leaves an output as it was allocated if no sample of its query and head is in range."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        output = super().accumulate(samples, weights)
        written = (weights != 0).flatten(3).any(-1)[..., None]
        return torch.where(written, output, torch.empty_like(output))


@mutant("unwritten-value-gradient", rejects="MSDA-47", origin="torch.empty_like(value) for a scattered gradient")
class UnwrittenValueGradient(Kernel):
    """Leaves the gradient of cells that no sample reaches as it was allocated."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> Tensor:
        gradient = super().grad_value(grad, geometry, weights, call)
        return torch.where(gradient != 0, gradient, torch.empty_like(gradient))


@mutant("workspace-not-cleared", rejects="MSDA-47", origin="accumulator reused between calls")
class WorkspaceNotCleared(Kernel):
    """Adds a second call of the same shape to a thousandth of the first."""

    def __init__(self) -> None:
        self.workspace: dict[torch.Size, Tensor] = {}

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        output = super().accumulate(samples, weights)
        left_over = self.workspace.get(output.shape, torch.zeros_like(output))
        self.workspace[output.shape] = output.clone()
        return output + left_over.nan_to_num().to(output.dtype) / 1024


@mutant("random-order-of-sum", rejects="MSDA-48", origin="atomic additions in forward (split over points)")
class RandomOrderOfSum(Kernel):
    """Adds the samples up in an order that changes from call to call."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        terms = (weights[..., None] * samples).flatten(3, 4)
        order = random.SystemRandom().sample(range(terms.shape[3]), terms.shape[3])
        total = torch.zeros_like(terms[:, :, :, 0])
        for position in order:
            total = total + terms[:, :, :, position]
        return total


@mutant("random-order-of-atomics", rejects="MSDA-48", origin="atomicAdd in the value gradient: MOTRv2 29")
class RandomOrderOfAtomics(Kernel):
    """Scatters the value gradient in an order that changes from call to call."""

    def scatter(self, table: Table, rows: Int[Tensor, " update"], updates: Float[Tensor, "update channel"]) -> None:
        generator = torch.Generator().manual_seed(random.SystemRandom().getrandbits(63))
        order = torch.randperm(len(rows), generator=generator)
        super().scatter(table, rows[order], updates[order])


@mutant("global-random-numbers", rejects="MSDA-49", origin="stochastic rounding")
class GlobalRandomNumbers(Kernel):
    """Draws from the global generator and multiplies the number by zero."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        torch.rand(1)
        return super().accumulate(samples, weights)


@mutant("default-dtype-left", rejects="MSDA-49", origin="set_default_dtype without a finally")
class DefaultDtypeLeft(Kernel):
    """Sets the default dtype for its own allocations and leaves it there."""

    def compute_dtype(self, call: Call) -> torch.dtype:
        dtype = super().compute_dtype(call)
        torch.set_default_dtype(dtype)
        return dtype


@mutant("grad-mode-left-off", rejects="MSDA-49", origin="set_grad_enabled(False) without a with")
class GradModeLeftOff(Kernel):
    """Switches gradients off after its work."""

    def run(self, call: Call) -> Tensor:
        output = super().run(call)
        torch.set_grad_enabled(False)
        return output


@mutant("threads-left-changed", rejects="MSDA-49", origin="omp_set_num_threads inside a kernel")
class ThreadsLeftChanged(Kernel):
    """Changes the number of threads for everything that follows."""

    def run(self, call: Call) -> Tensor:
        torch.set_num_threads(3)
        return super().run(call)


@mutant("determinism-switched", rejects="MSDA-49", origin="flag set for one's own scatter")
class DeterminismSwitched(Kernel):
    """Switches deterministic algorithms on for its scatter, and for everybody else."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        torch.use_deterministic_algorithms(True)
        return super().backward(call, grad_output, needs)
