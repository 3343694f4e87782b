"""The smallest models that the notes' claims (spec chapter 10) speak of, a few lanes wide.

`fed` is the reference that a layer looks from, `returned` the one that its prediction is added to.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.core import level_starts, ms_deform_attn
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from detr_reference.feed_forward.config import MLPConfig
from detr_reference.feed_forward.mlp import MLP
from detr_reference.positions.box_position_embedding import box_position_embedding

EMBED, HEADS, LEVELS, POINTS, LAYERS = 12, 3, 2, 4, 4
SHAPES = [(4, 6), (2, 11)]

Module = TypeVar("Module", bound=nn.Module)
LookForward = Literal["once", "twice", "nothing detached"]


class Memory(NamedTuple):
    """Two feature maps of two images, flattened: the last arguments of a deformable attention."""

    value: Tensor
    spatial_shapes: Tensor
    level_start_index: Tensor


def memory(shapes: list[tuple[int, int]] = SHAPES) -> Memory:
    spatial_shapes = torch.tensor(shapes)
    cells = int(spatial_shapes.prod(-1).sum())
    return Memory(torch.randn(2, cells, EMBED, dtype=torch.float64), spatial_shapes, level_starts(spatial_shapes))


def perturbed(module: Module, std: float = 0.4) -> Module:
    """In float64 and evaluation mode, no parameter as it was initialised: initial ones hide most differences."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * std)
    return module.double().eval()


class Recorder:
    """A deformable core that remembers where it was told to read, and with which weights."""

    def __init__(self) -> None:
        self.locations: list[Tensor] = []
        self.weights: list[Tensor] = []

    def __call__(self, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        self.locations.append(locations)
        self.weights.append(weights)
        return ms_deform_attn(value, shapes, starts, locations, weights)


def deformable_attention(
    *, levels: int = LEVELS, points: int = POINTS, recorder: Recorder | None = None
) -> MultiScaleDeformableAttention:
    """As it is initialised; see `perturbed`."""
    config = MSDeformAttnConfig(EMBED, HEADS, levels, points, dropout=0.0)
    return MultiScaleDeformableAttention(config, core=recorder or ms_deform_attn).double().eval()


class BoxPosition(nn.Module):
    """query_pos = MLP_2(sine(box)) (DINO), times MLP_2(content) from the second layer on (DAB-Deformable-DETR)"""

    def __init__(self, scaled_by_content: bool = False) -> None:
        super().__init__()
        self.ref_point_head = MLP(MLPConfig(2 * EMBED, EMBED, EMBED, num_layers=2))
        self.query_scale = MLP(MLPConfig(EMBED, EMBED, EMBED, num_layers=2)) if scaled_by_content else None

    def forward(self, boxes: Tensor, content: Tensor, layer: int) -> Tensor:
        position = self.ref_point_head(box_position_embedding(boxes, num_pos_feats=EMBED // 2))
        if self.query_scale is None or layer == 0:
            return position
        return position * self.query_scale(content)


class Decoded(NamedTuple):
    """What each layer of a decoder predicted, looked from, and was given as query_pos."""

    predictions: list[Tensor]
    fed: list[Tensor]
    query_pos: list[Tensor | None]


class RefiningDecoder(nn.Module):
    """out_i = layer_i(out_{i-1}, fed_i), new_i = sigmoid(box_i(out_i) + logit(fed_i)), fed_{i+1} = new_i detached

    pred_i = sigmoid(box_i(norm(out_i)) + logit(returned_i)); returned_0 = fed_0, and returned_{i+1} is new_i detached
    (look forward once, Deformable DETR) or not detached (twice, DINO). "nothing detached" feeds new_i undetached too.
    """

    def __init__(
        self,
        look_forward: LookForward = "twice",
        *,
        shared_heads: bool = False,
        position: BoxPosition | None = None,
    ) -> None:
        super().__init__()
        self.look_forward = look_forward
        self.position = position
        self.layers = nn.ModuleList(deformable_attention() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(EMBED)
        heads = [MLP(MLPConfig(EMBED, EMBED, 4, num_layers=3)) for _ in range(1 if shared_heads else LAYERS)]
        self.box_heads = nn.ModuleList(heads * LAYERS if shared_heads else heads)

    def forward(self, content: Tensor, boxes: Tensor, memory: Memory) -> Decoded:
        decoded = Decoded([], [], [])
        fed = returned = boxes.detach()
        for i, (layer, box_head) in enumerate(zip(self.layers, self.box_heads, strict=True)):
            query_pos = None if self.position is None else self.position(fed, content, i)
            content = layer(
                content,
                memory.value,
                query_pos=query_pos,
                reference_points=fed[:, :, None].expand(-1, -1, LEVELS, 4),
                spatial_shapes=memory.spatial_shapes,
                level_start_index=memory.level_start_index,
            )
            prediction = (box_head(self.norm(content)) + logit(returned)).sigmoid()
            decoded.predictions.append(prediction)
            decoded.fed.append(fed)
            decoded.query_pos.append(query_pos)
            refined = (box_head(content) + logit(fed)).sigmoid()
            fed = refined if self.look_forward == "nothing detached" else refined.detach()
            returned = refined.detach() if self.look_forward == "once" else refined
        return decoded


def logit(boxes: Tensor) -> Tensor:
    """The inverse of sigmoid, with DINO's epsilon."""
    return torch.logit(boxes, eps=1e-3)


def decoder_inputs(queries: int = 5) -> tuple[Tensor, Tensor, Memory]:
    """Content, boxes well inside (0, 1), and two feature maps, for two images."""
    content = torch.randn(2, queries, EMBED, dtype=torch.float64)
    boxes = 0.2 + 0.6 * torch.rand(2, queries, 4, dtype=torch.float64)
    return content, boxes, memory()
