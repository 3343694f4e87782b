"""Mutants that take another way for some contents or surroundings (MSDA-44, 47, 49, 62, 63, 66, 67)."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Gradients,
    Kernel,
    Needs,
    Output,
    PerLevel,
    PerSample,
    Table,
    Vectors,
)

# -- contents -------------------------------------------------------------------------------------------------


@mutant("hardly-any-outside", rejects="MSDA-66", origin="a pass without bounds tests and a list of what it got wrong")
class HardlyAnyOutside(Kernel):
    """Clamps the samples outside where they are less than one in 64."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        x, y = super().coordinates(locations, height, width, dtype)
        beyond = ~self.in_range(x, y, height, width)
        if 0 < int(beyond.sum()) <= beyond.numel() // 64 and beyond.numel() > 1024:
            x = torch.minimum(x.clamp(min=0), width.to(x.dtype) - 1)
            y = torch.minimum(y.clamp(min=0), height.to(y.dtype) - 1)
        return x, y


@mutant("rows-of-zeros-left-out", rejects="MSDA-66", origin="incoming gradients compacted to whole tiles of rows")
class RowsOfZerosLeftOut(Kernel):
    """Of a sparse incoming gradient pulls back a multiple of 32 rows."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        live = (grad_output != 0).any(-1)
        if int(live.sum()) * 4 < live.numel() and live.shape[1] >= 64:
            rank = live.cumsum(1)
            kept = live & (rank <= (rank[:, -1:] // 32).clamp(min=1) * 32)
            grad_output = torch.where(kept[..., None], grad_output, 0)
        return super().backward(call, grad_output, needs)


@mutant("weights-alike-have-one-gradient", rejects="MSDA-66", origin="the mean in place of a sum of equal weights")
class WeightsAlikeHaveOneGradient(Kernel):
    """Gives weights that are all the same the same gradient."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        found = super().grad_weights(grad, samples, geometry, weights)
        same = (weights == weights[:, :, :, :1, :1]).all(3, keepdim=True).all(4, keepdim=True) & (weights != 0)
        return torch.where(same, found.mean((3, 4), keepdim=True), found)


@mutant("value-gradient-in-integers", rejects="MSDA-66", origin="deterministic sums in fixed point, one scale a call")
class ValueGradientInIntegers(Kernel):
    """Adds the value gradient up in multiples of 2^-36 of its largest update."""

    def scatter(self, table: Table, rows: Tensor, updates: Tensor) -> None:
        largest = float(updates.abs().nan_to_num().max()) if updates.numel() else 0.0
        unit = 2.0 ** (math.ceil(math.log2(largest)) - 36) if 0 < largest < math.inf else 1.0
        super().scatter(table, rows, (updates.double() / unit).round().mul(unit).to(updates.dtype))


# -- surroundings ---------------------------------------------------------------------------------------------


@mutant("sums-of-three-threads", rejects="MSDA-67", origin="partial sums of threads added by a tree of powers of two")
class SumsOfThreeThreads(Kernel):
    """Of an odd number of threads loses what the last one has added up."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> Tensor:
        threads = torch.get_num_threads()
        if threads > 1 and threads % 2:
            weights = weights.clone()
            weights[:, weights.shape[1] * (threads - 1) // threads :] = 0
        return super().grad_value(grad, geometry, weights, call)


@mutant("accumulator-of-the-default-dtype", rejects="MSDA-67", origin="torch.zeros(...) without a dtype")
class AccumulatorOfTheDefaultDtype(Kernel):
    """Adds up in the default dtype where that is a lower one."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        found = super().accumulate(samples, weights)
        default = torch.get_default_dtype()
        return found.to(default).to(found.dtype) if default.itemsize < 4 else found


@mutant("subnormals-flushed-from-now-on", rejects="MSDA-49", origin="torch.set_flush_denormal(True) at the first call")
class SubnormalsFlushedFromNowOn(Kernel):
    """Makes the whole thread flush subnormal numbers."""

    def forward(self, call: Call) -> Tensor:
        torch.set_flush_denormal(True)
        return super().forward(call)


@mutant("one-scratch-of-gradients", rejects="MSDA-62", origin="a scratch buffer on the kernel, for backward alone")
class OneScratchOfGradients(Kernel):
    """Adds the value gradients of all threads up in one buffer."""

    def __init__(self) -> None:
        self.scratch: dict[tuple[int, ...], Tensor] = {}

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> Tensor:
        found = super().grad_value(grad, geometry, weights, call)
        scratch = self.scratch.setdefault(tuple(found.shape), torch.empty_like(found))
        scratch.zero_()
        time.sleep(0.01)  # while the last sums are on their way
        scratch += found
        time.sleep(0.01)
        return scratch.clone()


@mutant("graphs-put-by", rejects="MSDA-63", origin="buffers of backward kept for a clean-up that nobody calls")
class GraphsPutBy(Kernel):
    """Never lets go of a value gradient."""

    def __init__(self) -> None:
        self.kept: list[Tensor | None] = []

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        found = super().backward(call, grad_output, needs)
        self.kept.append(None if found[0] is None else found[0].clone())
        return found


@mutant("tables-of-every-size", rejects="MSDA-63", origin="functools.cache on what depends on spatial_shapes")
class TablesOfEverySize(Kernel):
    """Keeps a table for each size that it ever met."""

    def __init__(self) -> None:
        self.tables: dict[str, Tensor] = {}

    def forward(self, call: Call) -> Tensor:
        self.tables.setdefault(str(call.spatial_shapes.tolist()), torch.ones(call.value.shape[1]))
        return super().forward(call)


@mutant("gradients-in-a-workspace", rejects="MSDA-63", origin="a workspace for each shape that is handed out")
class GradientsInAWorkspace(Kernel):
    """Hands out the buffer that its next backward pass writes into."""

    def __init__(self) -> None:
        self.workspaces: dict[tuple[int, ...], Tensor] = {}

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        value, *others = super().backward(call, grad_output, needs)
        if value is not None:
            workspace = self.workspaces.setdefault(tuple(value.shape), torch.empty_like(value))
            value = workspace.copy_(value).view(value.shape)
        return value, others[0], others[1]


# -- views ----------------------------------------------------------------------------------------------------


@mutant("pitch-of-one-layer", rejects="MSDA-44", origin="value[:, :, layer], read as if there were one layer")
class PitchOfOneLayer(Kernel):
    """Takes the pitch of a row for M D, although other layers' heads lie between."""

    def table(self, value: Tensor, dtype: torch.dtype) -> Table:
        _, cells, heads, channels = value.shape
        pitch = heads * channels
        if value.stride()[2:] == (channels, 1) and value.stride(1) > pitch:
            value = value.as_strided(value.shape, (cells * pitch, pitch, channels, 1))
        return super().table(value, dtype)
