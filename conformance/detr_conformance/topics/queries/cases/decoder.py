"""Cases of `dino_decoder`: every parameter is random, levels have unequal sides and paddings of their own.

What a target does not offer (separate or shared heads, looking forward once or twice, the boxes that are embedded) is
taken out of the structure by `offered`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import LAYOUTS, Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.topics.feed_forward.cases import random_parameters

Sides = tuple[tuple[int, int], ...]  # (rows, columns) of each level


@dataclass(frozen=True)
class DecoderStructure:
    """The sizes of a decoder and of one call; channels are a head's.

    Attributes:
        levels: (H, W) of each map.
        valid: for each image the rows and columns of each map that it fills.
        masked, forbidding: whether the call has a key_padding_mask, an attn_mask.
    """

    levels: Sides = ((4, 7), (5, 3))
    valid: tuple[Sides, ...] = (((3, 5), (5, 2)), ((2, 7), (3, 3)))
    queries: int = 4
    heads: int = 2
    channels: int = 4
    points: int = 2
    layers: int = 2
    hidden: int = 5
    classes: int = 3
    activation: str = "relu"
    dropout: float = 0.0
    twice: bool = True
    shared: bool = False
    scaled: bool = True
    eps: float = 1e-3
    masked: bool = True
    forbidding: bool = True

    @property
    def embed(self) -> int:
        return self.heads * self.channels

    @property
    def batch(self) -> int:
        return len(self.valid)

    def settings(self) -> dict[str, Any]:
        return {
            "embed_dim": self.embed,
            "num_heads": self.heads,
            "feedforward_dim": self.hidden,
            "num_layers": self.layers,
            "num_levels": len(self.levels),
            "num_points": self.points,
            "num_classes": self.classes,
            "dropout": self.dropout,
            "activation": self.activation,
            "look_forward_twice": self.twice,
            "shared_heads": self.shared,
            "embed_scaled_references": self.scaled,
            "eps": self.eps,
        }


PLAIN = DecoderStructure()
ONE_LAYER = replace(PLAIN, layers=1)
# Where a level is longer than 50 cells, coordinates are rounded by more than a sample weighs.
LONG = DecoderStructure(
    levels=((2, 61), (3, 4)), valid=(((2, 50), (3, 4)), ((1, 61), (2, 3))), queries=2, points=1, layers=1
)

# -- what a target offers -------------------------------------------------------------------------------------

ALTERNATIVES: dict[str, tuple[str, dict[str, bool]]] = {
    "heads": ("shared", {"separate": False, "shared": True}),
    "look_forward": ("twice", {"twice": True, "once": False}),
    "embedded_references": ("scaled", {"scaled": True, "plain": False}),
}


def offered(subject: Subject, s: DecoderStructure) -> DecoderStructure:
    """The structure with the only alternatives that the target has."""
    for variant, (field, values) in ALTERNATIVES.items():
        only = subject.variant(variant)
        s = s if only == "any" else having(s, {field: values[only]})
    return s


def having(s: DecoderStructure, alternatives: dict[str, Any]) -> DecoderStructure:
    return replace(s, **alternatives)


def asking(subject: Subject, s: DecoderStructure, **alternatives: bool) -> DecoderStructure:
    """The structure with these alternatives.

    Raises:
        NotProvided: the target does not have one of them.
    """
    wanted = having(offered(subject, s), alternatives)
    if offered(subject, wanted) != wanted:
        given = ", ".join(f"{name} {subject.variant(name)}" for name in ALTERNATIVES)
        raise NotProvided(f"the target has {given} only")
    return wanted


# Making a case takes longer than judging a call of it, and tests share them.
REMEMBERED = 300
_cases: dict[tuple[Any, ...], Case] = {}

# -- calls ----------------------------------------------------------------------------------------------------


def decoder_case(subject: Subject, s: DecoderStructure, *seed: Any, note: str = "", smooth: bool = False) -> Case:
    """A random call of a random decoder.

    Args:
        smooth: maps that are affine in row and column, looked at well inside, and hidden channels far from the kink of
            a ReLU: no rounding changes a gradient by leaps.
    """
    key = (subject.dtype, subject.settings.seed, offered(subject, s), seed, note, smooth)
    if key not in _cases:
        if len(_cases) >= REMEMBERED:
            _cases.clear()
        _cases[key] = _made(subject, *key[2:])
    return _cases[key]


def _made(subject: Subject, s: DecoderStructure, seed: tuple[Any, ...], note: str, smooth: bool) -> Case:
    fill = Filler(subject.dtype, subject.settings.seed, "dino_decoder", note, s, *seed)
    parameters = _parameters(fill, s, smooth)
    shapes = torch.tensor(s.levels, dtype=torch.int64)
    sizes = shapes.prod(-1)
    inputs = {
        "query": fill.normal(s.batch, s.queries, s.embed),
        "memory": torch.cat([_map(fill, s, level, smooth) for level in range(len(s.levels))], 1),
        "reference_points": _boxes(fill, s, smooth),
        "spatial_shapes": shapes,
        "level_start_index": sizes.cumsum(0) - sizes,
        "valid_ratios": valid_ratios(s),
    }
    if s.forbidding:
        inputs["attn_mask"] = forbidden(s.queries)
    if s.masked:
        inputs["key_padding_mask"] = torch.cat([padding(s, level).flatten(1) for level in range(len(s.levels))], 1)
    return block_case(subject, inputs, parameters, s.settings(), note or "a random decoder")


def forbidden(queries: int) -> Tensor:
    """(Q, Q), not symmetric: a query may not attend to those after the next one, and the last not to the first."""
    mask = torch.ones(queries, queries, dtype=torch.bool).triu(2)
    mask[-1, 0] = queries > 1
    return mask


def padding(s: DecoderStructure, level: int) -> Tensor:
    """(B, H, W): True outside the image."""
    mask = torch.ones(s.batch, *s.levels[level], dtype=torch.bool)
    for image in range(s.batch):
        rows, columns = s.valid[image][level]
        mask[image, :rows, :columns] = False
    return mask


def valid_ratios(s: DecoderStructure) -> Tensor:
    """(B, L, 2): the share of each map's width and height that an image fills."""
    ratios = [
        [(columns / width, rows / height) for (rows, columns), (height, width) in zip(image, s.levels, strict=True)]
        for image in s.valid
    ]
    return torch.tensor(ratios, dtype=torch.float64)


def _map(fill: Filler, s: DecoderStructure, level: int, smooth: bool) -> Tensor:
    height, width = s.levels[level]
    if not smooth:
        return fill.normal(s.batch, height * width, s.embed)
    start, across, down = (fill.integers(-2, 2, s.batch, 1, 1, s.embed) for _ in range(3))
    y, x = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    return ((4 * start + y[:, None, None] * down + x[:, None] * across) / 8).flatten(1, 2)  # exact in any dtype


def _boxes(fill: Filler, s: DecoderStructure, smooth: bool) -> Tensor:
    middle, size = ((0.4, 0.6), (0.1, 0.2)) if smooth else ((0.1, 0.9), (0.1, 0.7))
    return torch.cat([fill.uniform(*bounds, s.batch, s.queries, 2) for bounds in (middle, size)], -1)


def _parameters(fill: Filler, s: DecoderStructure, smooth: bool) -> dict[str, Tensor]:
    parameters = random_parameters("dino_decoder", s.settings(), fill)
    for name, tensor in parameters.items():
        before_relu = name.startswith(("bbox_embed", "ref_point_head")) and ".layers.2." not in name
        if ".layers.2." in name:  # boxes move by a part of their size
            parameters[name] = tensor * (0.05 if smooth else 0.5)
        elif smooth and before_relu and name.endswith("layers.0.bias"):
            parameters[name] = _far_from_zero(tensor)
        elif smooth and name.startswith("bbox_embed") and name.endswith("layers.1.bias"):
            parameters[name] = 3 * _far_from_zero(tensor)
        elif smooth and name == "ref_point_head.layers.1.weight":
            parameters[name] = tensor * 0.3
    return parameters


def _far_from_zero(bias: Tensor) -> Tensor:
    return 6.0 * (2 * (torch.arange(len(bias)) % 2) - 1) + 0.2 * bias


SMOOTH = DecoderStructure(
    levels=((5, 8), (7, 6)),
    valid=(((5, 6), (7, 5)), ((4, 8), (5, 6))),
    queries=3,
    points=2,
    activation="gelu",
)


def one_layer(subject: Subject) -> list[Case]:
    return [decoder_case(subject, ONE_LAYER)]


def two_layers(subject: Subject) -> list[Case]:
    return [decoder_case(subject, PLAIN)]


def representative_dino_decoder(subject: Subject) -> list[Case]:
    full = (*SMOOTH.valid, ((5, 8), (7, 6)))
    bare = replace(SMOOTH, valid=full, points=1, twice=False, shared=True, scaled=False, masked=False, forbidding=False)
    return [
        decoder_case(subject, replace(SMOOTH, layers=1), note="everything given", smooth=True),
        decoder_case(subject, bare, note="no masks, the other alternatives", smooth=True),
    ]


def smooth_decoders(subject: Subject) -> Iterator[Case]:
    """Gradients of every alternative, in every layout."""
    several = (SMOOTH, replace(SMOOTH, shared=True), replace(SMOOTH, twice=False, scaled=False, layers=1))
    for number, s in enumerate(several):
        yield decoder_case(subject, s, note="gradients", smooth=True).laid_out(LAYOUTS[number + 1])


def drawn_decoders(subject: Subject) -> st.SearchStrategy[Case]:
    """Calls of decoders of every structure."""

    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        levels = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3))
        valid = [
            tuple((draw(st.integers(1, height)), draw(st.integers(1, width))) for height, width in levels)
            for _ in range(draw(st.integers(1, 2)))
        ]
        s = DecoderStructure(
            tuple(levels),
            tuple(valid),
            queries=draw(st.integers(1, 4)),
            heads=draw(st.sampled_from((1, 2))),
            points=draw(st.integers(1, 3)),
            layers=draw(st.integers(1, 2)),
            hidden=draw(st.integers(1, 6)),
            classes=draw(st.integers(1, 4)),
            activation=draw(st.sampled_from(("relu", "gelu"))),
            shared=draw(st.booleans()),
            scaled=draw(st.booleans()),
            masked=draw(st.booleans()),
            forbidding=draw(st.booleans()),
        )
        case = decoder_case(subject, s, draw(SEEDS), note="drawn")
        return case.laid_out(draw(ANY_LAYOUT))

    return draw_case()
