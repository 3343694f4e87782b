"""Right implementations of the module, each written in another way than the reference."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.deformable_attention.mutants.module import (
    HandWrittenModule,
    Heads,
    Logits,
    Offsets,
    Padding,
    Tokens,
)
from detr_conformance.topics.deformable_attention.twins.core import GridSample
from detr_reference.deformable_attention.config import MSDeformAttnConfig


@twin("fused-projection", operation="ms_deform_attn_module", origin="one matrix product, as for q, k and v")
class FusedProjection(HandWrittenModule):
    """Computes offsets and logits in one linear layer over concatenated parameters."""

    now = threading.local()

    def offsets(self, looking: Tokens) -> Offsets:
        linears = (self.sampling_offsets, self.attention_weights)
        weight, bias = torch.cat([part.weight for part in linears]), torch.cat([part.bias for part in linears])
        widths = [part.out_features for part in linears]
        offsets, self.now.logits = F.linear(looking, weight, bias).split(widths, -1)
        return offsets.unflatten(-1, (*self.samples, 2))

    def logits(self, looking: Tokens) -> Logits:
        return self.now.logits.unflatten(-1, self.samples)


@twin("reciprocal-normaliser", operation="ms_deform_attn_module", origin="multiplication by 1 / (W, H)")
class ReciprocalNormaliser(HandWrittenModule):
    """Multiplies the offsets by reciprocals, and the box by one factor 0.5 / P."""

    def around_point(self, centre: Tensor, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return centre + offsets * (1 / spatial_shapes.flip(-1).to(offsets.dtype))[:, None]

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return centre + offsets * (size * (0.5 / self.samples[2]))


@twin("exponential-weights", operation="ms_deform_attn_module", origin="softmax written out")
class ExponentialWeights(HandWrittenModule):
    """Writes the softmax as exponentials of what exceeds the maximum, in float32 or better."""

    def weights(self, logits: Logits) -> Logits:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        powers = (wide - wide.detach().amax((3, 4), keepdim=True)).exp()
        return powers / powers.sum((3, 4), keepdim=True)


@twin("mask-by-index", operation="ms_deform_attn_module", origin="scatter of the valid tokens alone")
class MaskByIndex(HandWrittenModule):
    """Projects the valid tokens alone and puts them in their places among zeros."""

    def maps(self, value: Tokens, mask: Padding | None) -> Heads:
        if mask is None:
            return super().maps(value, mask)
        valid = (~mask).flatten().nonzero()[:, 0]
        projected = self.value_proj(value.flatten(0, 1)[valid])
        zeros = projected.new_zeros(mask.numel(), projected.shape[-1])
        return self.split(zeros.index_copy(0, valid, projected).unflatten(0, mask.shape))


@twin("grid-sample-module", operation="ms_deform_attn_module", origin="the CPU path of all public modules")
class GridSampleModule(HandWrittenModule):
    """Has the grid_sample core inside."""

    def __init__(self, config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config, state_dict)
        self.core = GridSample()


@twin("heads-one-by-one", operation="ms_deform_attn_module", origin="per-head modules, joined at the end")
class HeadsOneByOne(HandWrittenModule):
    """Calls the core once for each head and concatenates."""

    def read(self, maps: Heads, shapes: Tensor, starts: Tensor, locations: Offsets, weights: Logits) -> Tokens:
        one_head = [slice(head, head + 1) for head in range(self.samples[0])]
        return torch.cat(
            [self.core(maps[:, :, m], shapes, starts, locations[:, :, m], weights[:, :, m]) for m in one_head], -1
        )


@twin("projection-after-reading", operation="ms_deform_attn_module", origin="value_proj folded behind the sampling")
class ProjectionAfterReading(HandWrittenModule):
    """Reads the unprojected value for each head, and projects what was read: the operation is affine in the value."""

    def maps(self, value: Tokens, mask: Padding | None) -> Heads:
        wide = value.to(torch.promote_types(value.dtype, torch.float32))
        ones = torch.ones_like(wide[..., :1])
        raw = self.masked(torch.cat((wide, ones), -1), mask)  # the last channel carries the bias
        return raw[:, :, None].expand(-1, -1, self.samples[0], -1)

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        read = read.unflatten(-1, (self.samples[0], -1))
        matrix = torch.cat((self.value_proj.weight, self.value_proj.bias[:, None]), 1).to(read.dtype)
        matrix = matrix.unflatten(0, (self.samples[0], -1))
        projected = (read[:, :, :, None] * matrix).sum(-1).flatten(2)
        return super().result(projected.to(identity.dtype), identity)
