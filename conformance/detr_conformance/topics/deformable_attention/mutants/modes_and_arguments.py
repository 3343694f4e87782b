"""Mutants of modes and errors: no_grad, autocast, compile, export, validation (MSDA-53 to MSDA-57)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import Call, Kernel, Mask, PerLevel, PerSample
from detr_conformance.topics.deformable_attention.twins.plain import CAPTURED, PlainGather


@mutant("half-for-inference", rejects="MSDA-53", origin="fast path of evaluation")
class HalfForInference(Kernel):
    """Computes in bfloat16 when no gradient can be asked for."""

    def prepare(self, call: Call) -> Call:
        if torch.is_grad_enabled():
            return call
        return call._replace(value=call.value.bfloat16().to(call.value.dtype))


@mutant("graph-under-no-grad", rejects="MSDA-53", origin="enable_grad() around a checkpointed kernel")
class GraphUnderNoGrad(Kernel):
    """Builds a graph under no_grad, and keeps the memory of an evaluation run."""

    def run(self, call: Call) -> Tensor:
        with torch.enable_grad():
            return super().run(call)


@mutant("inference-mode-raises", rejects="MSDA-53", origin="save_for_backward with a version counter")
class InferenceModeRaises(Kernel):
    """Asks its inputs for their version, which inference tensors do not have."""

    def check(self, call: Call) -> None:
        super().check(call)
        if torch.is_inference_mode_enabled():
            raise RuntimeError("Inference tensors do not track version counter.")


@mutant("autocast-mixes-dtypes", rejects="MSDA-54", origin="transformers 29011, DINO 59")
class AutocastMixesDtypes(Kernel):
    """Casts the value under autocast and nothing else, and refuses the mixture."""

    def run(self, call: Call) -> Tensor:
        if torch.is_autocast_enabled(call.value.device.type):
            raise RuntimeError("expected scalar type BFloat16 but found Float")
        return super().run(call)


@mutant("autocast-overflows", rejects="MSDA-54", origin="loss scaling inside the operation")
class AutocastOverflows(Kernel):
    """Scales the value by 2^127 under autocast, against underflow, and the numbers overflow."""

    def prepare(self, call: Call) -> Call:
        if not torch.is_autocast_enabled(call.value.device.type):
            return call
        return call._replace(value=call.value * 2.0**127 / 2.0**127)


@mutant("scalar-breaks-graph", rejects="MSDA-55", origin="DD 226: .item() in forward", features=CAPTURED)
class ScalarBreaksGraph(PlainGather):
    """Compares with a Python number read from a tensor, which breaks the graph."""

    def forward(self, call: Call) -> Tensor:
        if call.spatial_shapes.prod(-1).sum().item() != call.value.shape[1]:
            raise ValueError("value does not have as many cells as spatial_shapes asks for")
        return super().forward(call)


@mutant("print-breaks-graph", rejects="MSDA-55", origin="logging left in forward", features=CAPTURED)
class PrintBreaksGraph(PlainGather):
    """Leaves the graph to write a line for the log."""

    def forward(self, call: Call) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(call)


@mutant("compiled-without-gate", rejects="MSDA-55", origin="checks disabled under torch.compile", features=CAPTURED)
class CompiledWithoutGate(PlainGather):
    """Skips the range test while it is compiled, because branches were slow there."""

    def exists(self, i: Tensor, j: Tensor, height: PerLevel, width: PerLevel) -> Mask:
        if torch.compiler.is_compiling():
            return (i >= 0) & (j >= 0)
        return super().exists(i, j, height, width)


@mutant("export-loses-levels", rejects="MSDA-56", origin="rf-detr PR 1229, 1155", features=CAPTURED)
class ExportLosesLevels(PlainGather):
    """Squeezes the level axis while it is traced, and keeps the first level only."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        if torch.compiler.is_compiling():
            weights = torch.where(torch.arange(weights.shape[3])[:, None] == 0, weights, 0)
        return super().weigh(weights, in_range)


@mutant("export-needs-data", rejects="MSDA-56", origin="a Python branch on the contents of a tensor", features=CAPTURED)
class ExportNeedsData(PlainGather):
    """Asks in Python whether any sample is in range, to return early: nothing that can be exported."""

    def gated(self, coordinate: PerSample, in_range: Mask) -> PerSample:
        return super().gated(coordinate, in_range) if in_range.any() else torch.zeros_like(coordinate)


class Unchecked(Kernel):
    """Validates nothing, as a kernel that trusts its caller."""

    def check(self, call: Call) -> None:
        pass


@mutant("cells-unchecked", rejects="MSDA-57", origin="LibreYOLO PR 784: illegal memory access")
class CellsUnchecked(Unchecked):
    """Reads whatever lies there if S is not the sum of H * W."""


@mutant("levels-zipped", rejects="MSDA-57", origin="zip() over levels stops at the shortest")
class LevelsZipped(Kernel):
    """Uses as many levels as the shortest argument has."""

    def check(self, call: Call) -> None:
        if len(call.spatial_shapes) == call.sampling_locations.shape[3]:
            super().check(call)

    def prepare(self, call: Call) -> Call:
        levels = min(len(call.spatial_shapes), call.sampling_locations.shape[3], len(call.level_start_index))
        return Call(
            call.value,
            call.spatial_shapes[:levels],
            call.level_start_index[:levels],
            call.sampling_locations[:, :, :, :levels],
            call.attention_weights[:, :, :, :levels],
        )


@mutant("weights-broadcast", rejects="MSDA-57", origin="broadcasting in PyTorch versions")
class WeightsBroadcast(Kernel):
    """Broadcasts weights that have one point over all points."""

    def check(self, call: Call) -> None:
        super().check(self.prepare(call))

    def prepare(self, call: Call) -> Call:
        return call._replace(attention_weights=call.attention_weights.expand(call.sampling_locations.shape[:-1]))
