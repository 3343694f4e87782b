"""Cases of `ms_deform_attn_module`: every parameter is random, every level has reference points of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import PARAMETER
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject


@dataclass(frozen=True)
class ModuleStructure:
    """The sizes of a module and of one call; channels are a head's."""

    levels: tuple[tuple[int, int], ...] = ((6, 9), (3, 5))
    batch: int = 2
    queries: int = 5
    heads: int = 3
    channels: int = 4
    points: int = 3
    coordinates: int = 2
    masked: bool = False
    dropout: float = 0.0

    @property
    def embed(self) -> int:
        return self.heads * self.channels

    @property
    def cells(self) -> int:
        return sum(h * w for h, w in self.levels)

    def config(self) -> dict[str, str]:
        """The configuration as a case's options."""
        return {
            "embed_dim": str(self.embed),
            "num_heads": str(self.heads),
            "num_levels": str(len(self.levels)),
            "num_points": str(self.points),
            "dropout": str(self.dropout),
        }


OBLONG = ModuleStructure(levels=((3, 16), (10, 4)), points=4)


@composite
def module_structures(draw: st.DrawFn) -> ModuleStructure:
    """Small modules of every kind, some with one side of 50 or more."""
    side = st.integers(1, 9)
    levels = draw(st.lists(st.tuples(side, side), min_size=1, max_size=4))
    if draw(st.booleans()):
        levels[0] = (draw(st.integers(2, 4)), draw(st.sampled_from((50, 61))))
    return ModuleStructure(
        levels=tuple(levels),
        batch=draw(st.integers(1, 3)),
        queries=draw(st.integers(1, 6)),
        heads=draw(st.integers(1, 4)),
        channels=draw(st.integers(1, 6)),
        points=draw(st.integers(1, 4)),
        coordinates=draw(st.sampled_from((2, 4))),
        masked=draw(st.booleans()),
    )


def module_case(subject: Subject, s: ModuleStructure, *seed: Any, note: str = "", smooth: bool = False) -> Case:
    """A random call of a random module.

    Args:
        smooth: keep, of many random queries, those whose samples are furthest from kinks, so that gradients of
            half-precision modules can be compared at all.
    """
    if subject.variant("reference_points") == "boxes":
        s = replace(s, coordinates=4)
    fill = Filler(subject.dtype, subject.settings.seed, "module", note, s, *seed)
    parameters = _parameters(fill, s)
    drawn = replace(s, queries=s.queries * 60) if smooth else s
    query, query_pos, reference = _queries(fill, drawn)
    if smooth:
        keep = _smoothest(parameters, query, query_pos, reference, s)
        query, query_pos, reference = (
            torch.take_along_dim(t, _like(keep, t), 1) for t in (query, query_pos, reference)
        )
    shapes = torch.tensor(s.levels, dtype=torch.int64)
    sizes = shapes.prod(-1)
    tensors: dict[str, Tensor] = {
        "query": query,
        "value": fill.normal(s.batch, s.cells, s.embed).to(fill.dtype),
        "identity": fill.normal(s.batch, s.queries, s.embed).to(fill.dtype),
        "query_pos": query_pos,
        "reference_points": reference,
        "spatial_shapes": shapes,
        "level_start_index": sizes.cumsum(0) - sizes,
        "grad_output": fill.normal(s.batch, s.queries, s.embed).to(fill.dtype),
    }
    if s.masked and subject.variant("padding") == "mask":
        tensors["key_padding_mask"] = padding(s)
    tensors |= {PARAMETER + name: tensor for name, tensor in parameters.items()}
    return Case(tensors, note=note or "a random module", options=s.config())


def padding(s: ModuleStructure) -> Tensor:
    """(B, S) bool: image b lacks its last b + 1 columns, and the last row too if b is odd; never everything."""
    masks = []
    for height, width in s.levels:
        mask = torch.zeros(s.batch, height, width, dtype=torch.bool)
        for image in range(s.batch):
            mask[image, :, max(1, width - image - 1) :] = True
            if image % 2:
                mask[image, max(1, height - 1) :] = True
        masks.append(mask.flatten(1))
    return torch.cat(masks, 1)


def representative_ms_deform_attn_module(subject: Subject) -> list[Case]:
    """Boxes first, which every target takes, then points. Padding is for chapter 2 alone to judge."""
    return [
        module_case(subject, ModuleStructure(coordinates=4), note="handshake", smooth=True),
        module_case(subject, ModuleStructure(batch=3, coordinates=2), note="points", smooth=True),
    ]


def self_attending(subject: Subject) -> Case:
    """As in an encoder: the queries are the cells, value and identity are left to their defaults."""
    s = ModuleStructure(levels=((4, 6), (2, 3)), queries=30)
    case = module_case(subject, s, note="queries are the cells")
    return case.having(value=None, identity=None)


def drawn_modules(subject: Subject, **options: Any) -> st.SearchStrategy[Case]:
    """Calls of modules of every structure."""

    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        layout = draw(ANY_LAYOUT)
        return module_case(subject, draw(module_structures()), draw(SEEDS), **options).laid_out(layout)

    return draw_case()


def _parameters(fill: Filler, s: ModuleStructure) -> dict[str, Tensor]:
    samples, embed = s.heads * len(s.levels) * s.points, s.embed
    scale = embed**-0.5
    shapes = {
        "sampling_offsets.weight": (1.0 * scale, (samples * 2, embed)),
        "sampling_offsets.bias": (1.5, (samples * 2,)),
        "attention_weights.weight": (1.0 * scale, (samples, embed)),
        "attention_weights.bias": (1.0, (samples,)),
        "value_proj.weight": (scale, (embed, embed)),
        "value_proj.bias": (1.0, (embed,)),
        "output_proj.weight": (scale, (embed, embed)),
        "output_proj.bias": (1.0, (embed,)),
    }
    return {name: (size * fill.normal(*shape)).to(fill.dtype) for name, (size, shape) in shapes.items()}


def _queries(fill: Filler, s: ModuleStructure) -> tuple[Tensor, Tensor, Tensor]:
    """query, query_pos, reference points."""
    centre = fill.uniform(0.05, 0.95, s.batch, s.queries, len(s.levels), 2)
    if s.coordinates == 4:
        centre = torch.cat((centre, fill.uniform(0.1, 0.7, s.batch, s.queries, len(s.levels), 2)), -1)
    query, query_pos = (fill.normal(s.batch, s.queries, s.embed) for _ in range(2))
    return query.to(fill.dtype), query_pos.to(fill.dtype), centre.to(fill.dtype)


def _smoothest(
    parameters: dict[str, Tensor], query: Tensor, query_pos: Tensor, reference: Tensor, s: ModuleStructure
) -> Tensor:
    """(B, Q): the queries of each image whose nearest kink is furthest away."""
    weight, bias = (parameters[f"sampling_offsets.{part}"].double() for part in ("weight", "bias"))
    offset = (query.double() + query_pos.double()) @ weight.T + bias
    offset = offset.view(*query.shape[:2], s.heads, len(s.levels), s.points, 2)
    size = torch.tensor([(w, h) for h, w in s.levels], dtype=torch.float64)[:, None]
    where = reference.double()[:, :, None, :, None]
    if s.coordinates == 2:
        pixels = where * size + offset - 0.5
    else:
        pixels = (where[..., :2] + offset / s.points * where[..., 2:] * 0.5) * size - 0.5
    margin = (pixels - pixels.round()).abs().flatten(2).amin(-1)
    return margin.topk(s.queries, dim=1).indices


def _like(index: Tensor, tensor: Tensor) -> Tensor:
    return index.view(*index.shape, *[1] * (tensor.ndim - 2))
