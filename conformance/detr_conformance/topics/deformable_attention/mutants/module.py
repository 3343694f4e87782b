"""The deformable attention module, one overridable step after another, around the hand-written kernel.

It shares only parameter names and configuration with the reference. The unchanged module is a twin; the mutants
and the other twins of the module override one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.deformable_attention.mutants.kernel import Kernel
from detr_reference.deformable_attention.config import MSDeformAttnConfig

MODULE = "ms_deform_attn_module"

Tokens = Float[Tensor, "batch token embed"]
Padding = Bool[Tensor, "batch cell"]
Heads = Float[Tensor, "batch cell head channel"]
Offsets = Float[Tensor, "batch query head level point 2"]
Logits = Float[Tensor, "batch query head level point"]
References = Float[Tensor, "batch query level coordinate"]


class Inputs(NamedTuple):
    """What the parts of the module see."""

    looking: Tokens  # decides where to look, and how much it counts
    value: Tokens
    identity: Tokens


@twin("module-by-hand", operation="ms_deform_attn_module", origin="detrex, layers/multi_scale_deform_attn.py")
class HandWrittenModule(nn.Module):
    """Two linear layers, a softmax and the hand-written kernel between two projections."""

    def __init__(self, config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        self.samples = (config.num_heads, config.num_levels, config.num_points)
        count = math.prod(self.samples)
        self.sampling_offsets = nn.Linear(config.embed_dim, count * 2)
        self.attention_weights = nn.Linear(config.embed_dim, count)
        self.value_proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.output_proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.core = Kernel()
        with torch.no_grad():
            self.initialise()
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    # Initialisation.

    def initialise(self) -> None:
        _, levels, points = self.samples
        steps = self.radii(points)[None, None, :, None] * self.directions()[:, None, None]
        self.sampling_offsets.bias.copy_(steps.expand(-1, levels, -1, -1).flatten())
        for empty in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            empty.zero_()
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            projection.bias.zero_()

    def angles(self) -> Float[Tensor, " head"]:
        return 2 * math.pi * torch.arange(self.samples[0], dtype=torch.float64) / self.samples[0]

    def directions(self) -> Float[Tensor, "head 2"]:
        direction = torch.stack((self.angles().cos(), self.angles().sin()), -1)
        return direction / direction.abs().amax(-1, keepdim=True)

    def radii(self, points: int) -> Float[Tensor, " point"]:
        return torch.arange(1, points + 1, dtype=torch.float64)

    # The call, step by step.

    def forward(
        self,
        query: Tokens,
        value: Tokens | None = None,
        identity: Tokens | None = None,
        query_pos: Tokens | None = None,
        key_padding_mask: Padding | None = None,
        *,
        reference_points: References,
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
    ) -> Tokens:
        inputs = self.inputs(query, value, identity, query_pos)
        maps = self.maps(inputs.value, key_padding_mask)
        locations = self.locations(reference_points, self.offsets(inputs.looking), spatial_shapes)
        weights = self.weights(self.logits(inputs.looking))
        read = self.read(maps, spatial_shapes, level_start_index, locations, weights)
        return self.result(read, inputs.identity)

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        return Inputs(
            looking=query if query_pos is None else query + query_pos,
            value=query if value is None else value,
            identity=query if identity is None else identity,
        )

    def maps(self, value: Tokens, mask: Padding | None) -> Heads:
        return self.split(self.masked(self.value_proj(value), mask))

    def masked(self, projected: Tokens, mask: Padding | None) -> Tokens:
        return projected if mask is None else torch.where(mask[..., None], 0, projected)

    def split(self, projected: Tokens) -> Heads:
        return projected.unflatten(-1, (self.samples[0], -1))

    def offsets(self, looking: Tokens) -> Offsets:
        return self.sampling_offsets(looking).unflatten(-1, (*self.samples, 2))

    def locations(
        self, reference: References, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]
    ) -> Float[Tensor, "batch query head level point 2"]:
        wide = torch.promote_types(offsets.dtype, torch.float32)
        reference, offsets = self.per_level(reference.to(wide)), offsets.to(wide)
        if reference.shape[-1] == 2:
            return self.around_point(reference, offsets, spatial_shapes)
        return self.within_box(reference[..., :2], reference[..., 2:], offsets)

    def per_level(self, reference: References) -> Float[Tensor, "batch query 1 level 1 coordinate"]:
        return reference[:, :, None, :, None]

    def around_point(self, centre: Tensor, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return centre + offsets / spatial_shapes.flip(-1)[:, None]

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return centre + offsets / self.samples[2] * size * 0.5

    def logits(self, looking: Tokens) -> Logits:
        return self.attention_weights(looking).unflatten(-1, self.samples)

    def weights(self, logits: Logits) -> Logits:
        return logits.flatten(3).softmax(-1).reshape(logits.shape)

    def read(self, maps: Heads, shapes: Tensor, starts: Tensor, locations: Offsets, weights: Logits) -> Tokens:
        return self.core(maps, shapes, starts, locations, weights)

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return identity + F.dropout(self.output_proj(read), self.config.dropout, self.training)
