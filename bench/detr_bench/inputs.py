"""Configuration and tensors of each measured operation, from a workload's sizes.

Numbers are random, the places of samples are not quite: a cell of an encoder looks around itself, a query of a decoder
around a place of its own, both about two cells far on every map, for where a core reads decides how well it caches.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from detr_bench.workloads import Images, Tokens, Workload
from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.core import level_starts
from detr_reference.detectors.config import DECODER_ORDER, ENCODER_ORDER, DeformableDETRConfig, DETRConfig, DINOConfig
from detr_reference.queries.config import DINODecoderConfig
from detr_reference.queries.reference_points import reference_points_of_cells
from detr_reference.transformer.config import DeformableLayerConfig, TransformerLayerConfig

CELLS_AWAY = 2.0  # the standard deviation of a sample's distance
FEEDFORWARD = 2048
POOL = 2_000_003  # a prime: repeated, it puts no row of a tensor onto another


@dataclass(frozen=True)
class Given:
    """What a call is given.

    Attributes:
        inputs: by the names of the signature; what is left out is not given.
        config: of a module.
    """

    inputs: dict[str, Tensor]
    config: Any = None


@dataclass
class Draw:
    """Random float32 numbers, the same on every machine."""

    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)


class Unforeseen(Draw):
    """Numbers that no target has seen, on a device: each timed round gets others.

    Drawing millions of numbers takes longer than many calls that are timed, so that a pool is drawn once, and a tensor
    is a stretch of it from an arbitrary place. Both come from the system's entropy: no seed foretells them.
    """

    def __init__(self, device: str) -> None:
        super().__init__(torch.Generator().manual_seed(secrets.randbits(63)))
        self.normals = super().normal(POOL).to(device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        count, start = math.prod(shape), secrets.randbelow(POOL)
        if start + count <= POOL:
            return self.normals[start : start + count].clone().view(shape)
        pieces = [self.normals[start:], *[self.normals] * (count // POOL + 1)]
        return torch.cat(pieces)[:count].view(shape)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1): the distribution function of the normal ones."""
        return torch.special.ndtr(self.normal(*shape)).clamp_(max=1 - 2**-24)


def ms_deform_attn(w: Workload, draw: Draw) -> Given:
    samples = (w.batch, w.queries, w.heads, len(w.levels), w.points)
    sizes = torch.tensor([(width, height) for height, width in w.levels])[:, None]
    away = CELLS_AWAY * draw.normal(*samples, 2) / sizes
    weights = draw.normal(*samples[:3], len(w.levels) * w.points).softmax(-1)
    inputs = {
        "value": draw.normal(w.batch, w.cells, w.heads, w.channels),
        **_maps(w),
        "sampling_locations": places(w, draw)[:, None, None, None] + away,
        "attention_weights": weights.view(samples),
    }
    return Given(inputs)


def ms_deform_attn_module(w: Workload, draw: Draw) -> Given:
    embed = w.heads * w.channels
    sides = 0.1 * torch.ones(w.queries, 2)
    boxes = torch.cat((places(w, draw), sides), -1)[None, :, None].expand(w.batch, -1, len(w.levels), -1)
    inputs = {
        "query": draw.normal(w.batch, w.queries, embed),
        "value": draw.normal(w.batch, w.cells, embed),
        "query_pos": draw.normal(w.batch, w.queries, embed),
        "reference_points": boxes.contiguous(),
        **_maps(w),
    }
    return Given(inputs, MSDeformAttnConfig(embed, w.heads, len(w.levels), w.points, dropout=0.0))


def encoder_layer_around_core(w: Workload, draw: Draw) -> Given:
    embed = w.heads * w.channels
    points = places(w, draw)[None, :, None].expand(w.batch, -1, len(w.levels), -1)
    inputs = {
        "query": draw.normal(w.batch, w.cells, embed),
        "query_pos": draw.normal(w.batch, w.cells, embed),
        "reference_points": points.contiguous(),
        **_maps(w),
    }
    return Given(inputs, DeformableLayerConfig(embed, w.heads, FEEDFORWARD, len(w.levels), w.points, dropout=0.0))


def dino_decoder(w: Workload, draw: Draw) -> Given:
    embed = w.heads * w.channels
    centres, sides = draw.uniform(w.batch, w.queries, 2), 0.05 + 0.2 * draw.uniform(w.batch, w.queries, 2)
    inputs = {
        "query": draw.normal(w.batch, w.queries, embed),
        "memory": draw.normal(w.batch, w.cells, embed),
        "reference_points": torch.cat((centres, sides), -1),
        **_maps(w),
        "valid_ratios": torch.ones(w.batch, len(w.levels), 2),
    }
    config = DINODecoderConfig(embed, w.heads, FEEDFORWARD, num_levels=len(w.levels), num_points=w.points)
    return Given(inputs, config)


def multihead_attention(t: Tokens, draw: Draw) -> Given:
    return Given(_tokens(t, draw), MultiheadAttentionConfig(t.heads * t.channels, t.heads))


def encoder_layer(t: Tokens, draw: Draw) -> Given:
    inputs = {name: tensor for name, tensor in _tokens(t, draw).items() if name.startswith("query")}
    return Given(
        inputs, TransformerLayerConfig(t.heads * t.channels, t.heads, FEEDFORWARD, operation_order=ENCODER_ORDER)
    )


def decoder_layer(t: Tokens, draw: Draw) -> Given:
    config = TransformerLayerConfig(t.heads * t.channels, t.heads, FEEDFORWARD, operation_order=DECODER_ORDER)
    return Given(_tokens(t, draw), config)


def model(config: Callable[..., Any]) -> Callable[[Images, Draw], Given]:
    """Of one of the whole models, without dropout."""

    def given(images: Images, draw: Draw) -> Given:
        size = (images.batch, images.height, images.width)
        pixels, mask = draw.normal(size[0], 3, *size[1:]), torch.zeros(size, dtype=torch.bool)
        return Given({"images": pixels, "mask": mask}, config(dropout=0.0))

    return given


GIVEN: dict[str, Callable[[Any, Draw], Given]] = {
    "ms_deform_attn": ms_deform_attn,
    "ms_deform_attn_module": ms_deform_attn_module,
    "multihead_attention": multihead_attention,
    "encoder_layer": encoder_layer,
    "decoder_layer": decoder_layer,
    "dino_decoder": dino_decoder,
    "detr": model(DETRConfig),
    "deformable_detr": model(DeformableDETRConfig),
    "dino": model(DINOConfig),
    "encoder-layer": encoder_layer_around_core,
}


def places(w: Workload, draw: Draw) -> Float[Tensor, "query 2"]:
    """Where each query looks from, (x, y) as a share of the maps: the cells' own centres, or anywhere."""
    if w.queries != w.cells:
        return draw.uniform(w.queries, 2)
    return reference_points_of_cells(w.levels, torch.ones(1, len(w.levels), 2))[0, :, 0]


def _maps(w: Workload) -> dict[str, Tensor]:
    shapes = torch.tensor(w.levels)
    return {"spatial_shapes": shapes, "level_start_index": level_starts(shapes)}


def _tokens(t: Tokens, draw: Draw) -> dict[str, Tensor]:
    embed = t.heads * t.channels
    query, query_pos = (draw.normal(t.batch, t.queries, embed) for _ in range(2))
    key, key_pos = (draw.normal(t.batch, t.keys, embed) for _ in range(2))
    return {"query": query, "key": key, "query_pos": query_pos, "key_pos": key_pos}
