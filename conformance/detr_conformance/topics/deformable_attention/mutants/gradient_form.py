"""Mutants of how gradients are asked for and handed out (MSDA-36 to MSDA-39, MSDA-68)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import Call, Gradients, Kernel, Needs
from detr_conformance.topics.deformable_attention.mutants.memory import in_memory_order


@mutant("no-graph", rejects="MSDA-68", origin="@torch.no_grad() on the wrapper, left from a benchmark")
class NoGraph(Kernel):
    """Computes the output without a graph."""

    def run(self, call: Call) -> Tensor:
        return super().run(call).detach()


@mutant("locations-detached", rejects="MSDA-36", origin="locations computed under no_grad for a memory saving")
class LocationsDetached(Kernel):
    """Gives no gradient to the locations: offsets never learn, and nothing else shows it."""

    def prepare(self, call: Call) -> Call:
        return call._replace(sampling_locations=call.sampling_locations.detach())


@mutant("none-for-zero", rejects="MSDA-36", origin="early return where nothing was hit")
class NoneForZero(Kernel):
    """Returns no gradient at all where it would be zero."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        first, second, third = (
            grad if grad is None or grad.count_nonzero() else None
            for grad in super().backward(call, grad_output, needs)
        )
        return first, second, third


@mutant("sparse-value-gradient", rejects="MSDA-36", origin="embedding_bag(sparse=True)")
class SparseValueGradient(Kernel):
    """Returns the gradient of the value as a sparse tensor."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        value, locations, weights = super().backward(call, grad_output, needs)
        return None if value is None else value.to_sparse(), locations, weights


@mutant("frozen-value-freezes-all", rejects="MSDA-37", origin="if (!value.requires_grad()) return {}")
class FrozenValueFreezesAll(Kernel):
    """Gives zero to the locations if the value needs no gradient, as with a frozen backbone."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        value, locations, weights = super().backward(call, grad_output, needs)
        if locations is not None and not needs.value:
            locations = torch.zeros_like(locations)
        return value, locations, weights


@mutant("weight-gradient-needs-locations", rejects="MSDA-37", origin="one kernel for both, launched for locations")
class WeightGradientNeedsLocations(Kernel):
    """Fills the gradient of the weights in the pass over the locations, and leaves it zero without that pass."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        value, locations, weights = super().backward(call, grad_output, needs)
        if weights is not None and not needs.locations:
            weights = torch.zeros_like(weights)
        return value, locations, weights


@mutant("graph-hangs-on-value", rejects="MSDA-37", origin="if value.requires_grad: save_for_backward")
class GraphHangsOnValue(Kernel):
    """Builds a graph only if the value asks for a gradient."""

    def run(self, call: Call) -> Tensor:
        return super().run(call) if call.value.requires_grad else super().run(call).detach()


@mutant("contiguous-gradient-assumed", rejects="MSDA-38", origin="grad_output.data_ptr() without .contiguous()")
class ContiguousGradientAssumed(Kernel):
    """Reads the incoming gradient in the order of its memory."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        return super().backward(call, in_memory_order(grad_output), needs)


@mutant("contiguous-gradient-asserted", rejects="MSDA-38", origin="AT_ASSERTM in Deformable-DETR and detrex")
class ContiguousGradientAsserted(Kernel):
    """Refuses an expanded gradient, so that out.sum().backward() raises."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        if not grad_output.is_contiguous():
            raise RuntimeError("grad_output tensor has to be contiguous")
        return super().backward(call, grad_output, needs)


@mutant("gradient-offset-ignored", rejects="MSDA-38", origin="storage pointer in place of data pointer")
class GradientOffsetIgnored(Kernel):
    """Reads a sliced gradient from the beginning of its storage."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        shifted = grad_output.as_strided(grad_output.shape, grad_output.stride(), 0)
        return super().backward(call, shifted, needs)


@mutant("backward-of-the-last-call", rejects="MSDA-39", origin="tensors kept on the module, not on the context")
class BackwardOfTheLastCall(Kernel):
    """Keeps the weights for backward in one place, which the next call of the same shape overwrites."""

    def forward(self, call: Call) -> Tensor:
        self.last = call.attention_weights
        return super().forward(call)

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        if self.last.shape == call.attention_weights.shape and self.last.dtype == call.attention_weights.dtype:
            call = call._replace(attention_weights=self.last)
        return super().backward(call, grad_output, needs)


@mutant("second-backward-adds", rejects="MSDA-39", origin="value gradient accumulated into a buffer made in forward")
class SecondBackwardAdds(Kernel):
    """Adds to the value gradient of the first backward when the graph is used again."""

    def forward(self, call: Call) -> Tensor:
        self.buffer: Tensor | None = None
        self.buffered = call.value.data_ptr()
        return super().forward(call)

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        value, locations, weights = super().backward(call, grad_output, needs)
        if value is not None and self.buffered == call.value.data_ptr():
            value = value if self.buffer is None else value + self.buffer
            self.buffer = value.clone()
        return value, locations, weights


@mutant("graph-used-once", rejects="MSDA-39", origin="buffers released at the end of backward")
class GraphUsedOnce(Kernel):
    """Releases what it saved after the first backward, whatever retain_graph says."""

    def forward(self, call: Call) -> Tensor:
        self.used = False
        return super().forward(call)

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        if self.used:
            raise RuntimeError("backward buffers were released")
        self.used = True
        return super().backward(call, grad_output, needs)
