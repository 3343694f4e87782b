"""Calls of the sizes that published models have, and of many images, levels, cells, classes: beyond any fixed table.

The gradients of those that have no kink are asked for too; hidden channels of large networks are always near one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.attention.cases.multihead_attention import Attention, attention_case
from detr_conformance.topics.attention.cases.self_attention import (
    AttentionStructure,
    cross_attention_case,
    self_attention_case,
)
from detr_conformance.topics.features.cases import ratio_case
from detr_conformance.topics.feed_forward.cases import network_case
from detr_conformance.topics.losses.cases.focal_loss import focal_case, tokens
from detr_conformance.topics.losses.cases.overlap import giou_case
from detr_conformance.topics.positions.cases import (
    box_case,
    boxes_of,
    learned_case,
    level_case,
    rectangles,
    sine_case,
)
from detr_conformance.topics.queries.cases.decoder import DecoderStructure, decoder_case
from detr_conformance.topics.queries.cases.selection import (
    proposal_case,
    reference_case,
    references_of,
    refinement_case,
    selection_case,
    unlike_ratios,
)
from detr_conformance.topics.transformer.cases import layer_case, standard
from detr_conformance.topics.vision_transformer.cases import VitStructure, vit_case

Size = tuple[int, int]
Settings = dict[str, Any]
MAPS: tuple[Size, ...] = ((100, 134), (50, 67), (25, 34), (13, 17))  # 17,821 cells of an image of 800 x 1066
DEEP: tuple[Size, ...] = ((5, 7), (4, 6), (3, 5), (2, 4), (2, 3), (1, 2), (1, 1), (2, 1), (3, 2), (1, 3))
HIDDEN: Settings = {"embed_dim": 256, "num_heads": 8, "feedforward_dim": 2048}


@dataclass(frozen=True)
class Published:
    """What an operation is called with, and whether its gradients can be compared there."""

    cases: Callable[[Subject], Iterator[Case]]
    smooth: bool = True


# -- attention and layers -------------------------------------------------------------------------------------


def multihead(subject: Subject) -> Iterator[Case]:
    """DINO's 900 queries at 8 heads of 32; some images of few tokens and many heads."""
    yield attention_case(subject, Attention(1, 900, 350, 8, 32, padded=True), note="900 queries")
    yield attention_case(subject, Attention(67, 3, 5, 17, 2, padded=True), note="67 images, 17 heads")
    yield attention_case(subject, Attention(1, 3, 1100, 1, 65), note="1100 keys")


def of_itself(subject: Subject) -> Iterator[Case]:
    yield self_attention_case(subject, AttentionStructure(2, 197, heads=6, channels=64), note="of ViT-S")
    yield self_attention_case(subject, AttentionStructure(67, 3, heads=17, channels=3), note="67 images, 17 heads")
    yield self_attention_case(subject, AttentionStructure(1, 1030, heads=2, channels=5), note="1030 tokens")


def of_another(subject: Subject) -> Iterator[Case]:
    yield cross_attention_case(subject, AttentionStructure(1, 300, 850, 8, 32), note="300 queries of an image")
    yield cross_attention_case(subject, AttentionStructure(67, 3, 4, 17, 3), note="67 images, 17 heads")


def network(subject: Subject) -> Iterator[Case]:
    wide: Settings = {"embed_dim": 256, "feedforward_dim": 2048, "activation": "gelu"}
    yield network_case(subject, note="of DETR", leading=(2, 300), **wide)
    yield network_case(subject, note="many tokens", leading=(5000,), embed_dim=3, feedforward_dim=5, activation="gelu")


def perceptron(subject: Subject) -> Iterator[Case]:
    box_head: Settings = {"input_dim": 256, "hidden_dim": 256, "output_dim": 4, "num_layers": 3}
    yield network_case(subject, note="box head", leading=(2, 900), **box_head)
    yield network_case(subject, note="reference head", leading=(1, 900), input_dim=512, hidden_dim=256,
                       output_dim=256, num_layers=2)  # fmt: skip
    yield network_case(subject, note="many tokens", leading=(67, 80), num_layers=2)


def layer(subject: Subject) -> Iterator[Case]:
    order = standard(subject)
    given: Settings = {"positions": True, "padding": True}
    sizes: Settings = {"queries": 300, "keys": 425} if subject.operation == "decoder_layer" else {"queries": 425}
    yield layer_case(subject, order, note="of DETR", batch=1, activation="gelu", **given, **sizes, **HIDDEN)
    yield layer_case(subject, order, note="67 images", batch=67, queries=3, keys=4, activation="gelu", **given)


def vit(subject: Subject) -> Iterator[Case]:
    """ViT-Ti/16 at 224."""
    yield vit_case(subject, VitStructure(1, (14, 14), 16, 3, 3, 64, 12, 4.0), note="ViT-Ti/16")
    yield vit_case(subject, VitStructure(67, (2, 1), 2, depth=1), note="67 images")


# -- positions ------------------------------------------------------------------------------------------------


def corners(height: int, width: int, *extents: Size) -> Tensor:
    """Padding in the lower right corner: where a row or column has no valid cell, an offset leaves it unspecified."""
    rows, columns = torch.tensor(extents).unbind(-1)
    return (torch.arange(height)[:, None] >= rows[:, None, None]) & (torch.arange(width) >= columns[:, None, None])


def sine(subject: Subject) -> Iterator[Case]:
    mask = corners(100, 134, (90, 101), (73, 120))
    yield sine_case(subject, mask, "of Deformable DETR", num_pos_feats=128)
    yield sine_case(subject, corners(3, 2100, (3, 2100), (2, 1900)), "2100 columns")
    yield sine_case(subject, corners(1050, 2, (1050, 1), (800, 1)), "1050 rows", temperature=20.0)
    yield sine_case(subject, corners(5, 6, *product((5, 3), (6, 4, 2))).repeat(11, 1, 1), "66 images")
    yield sine_case(subject, corners(4, 3, (4, 3), (2, 2)), "1026 channels", num_pos_feats=1026)


def boxes(subject: Subject) -> Iterator[Case]:
    yield box_case(subject, boxes_of(subject, 2, 1100, 4), "of DINO", num_pos_feats=128)
    yield box_case(subject, boxes_of(subject, 67, 3, 4), "67 images")
    yield box_case(subject, boxes_of(subject, 2, 5, 2), "1026 channels", num_pos_feats=1026)


def learned(subject: Subject) -> Iterator[Case]:
    mask = rectangles(50, 48, (50, 48), (31, 40))
    yield learned_case(subject, mask, "of DETR", feats=128, rows=50, columns=50)
    yield learned_case(subject, rectangles(3, 1030, (3, 1030)), "1030 columns", rows=4, columns=1030)
    yield learned_case(subject, rectangles(300, 2, (300, 2)).repeat(67, 1, 1), "67 images", rows=300, columns=2)


def levels(subject: Subject) -> Iterator[Case]:
    yield level_case(subject, MAPS, "as many cells as published", embed=8)
    yield level_case(subject, ((25, 34), (13, 17), (7, 9), (4, 5), (2, 3)), "five levels", embed=256)
    yield level_case(subject, DEEP, "ten levels", batch=67)


# -- queries --------------------------------------------------------------------------------------------------


def ratios(subject: Subject) -> Iterator[Case]:
    yield ratio_case(subject, rectangles(100, 134, (100, 101), (73, 134)), "a map as published")
    yield ratio_case(subject, rectangles(3, 2100, (3, 2099), (2, 1025)), "2100 columns")
    yield ratio_case(subject, rectangles(1050, 2, (1049, 1), (513, 2)), "1050 rows")
    extents = [(1 + image % 9, 1 + image % 11) for image in range(67)]
    yield ratio_case(subject, rectangles(9, 11, *extents), "67 images")


def references(subject: Subject) -> Iterator[Case]:
    yield reference_case(subject, MAPS, unlike_ratios(subject, 2, 4), "as many cells as published")
    yield reference_case(subject, DEEP, unlike_ratios(subject, 67, 10), "ten levels of 67 images")
    yield reference_case(subject, ((2, 1030), (520, 3)), unlike_ratios(subject, 1, 2), "long sides")


def proposals(subject: Subject) -> Iterator[Case]:
    small = [(rows * 3 // 4, columns - 1) for rows, columns in MAPS]
    yield proposal_case(subject, MAPS, (MAPS, small), "as many cells as published")
    yield proposal_case(subject, DEEP, (DEEP, [(1, 1)] * len(DEEP)) * 33, "ten levels of 66 images")
    yield proposal_case(subject, ((13, 17), (7, 9)), (((13, 17), (7, 9)),), "wide memory", embed=256)
    yield proposal_case(subject, ((3, 533), (270, 2)), (((3, 515), (263, 2)), ((2, 259), (270, 1))), "long sides")


def ranked(subject: Subject, batch: int, cells: int, classes: int) -> Tensor:
    """Logits whose maxima are quarters, no two of an image the same, so that no rounding exchanges two."""
    fill = Filler(subject.dtype, subject.settings.seed, "ranked", batch, cells, classes)
    best = fill.uniform(0, 1, batch, cells).argsort(-1).double()[..., None] / 4
    winner = fill.integers(0, classes - 1, batch, cells, 1).long()
    return (best - fill.uniform(1, 9, batch, cells, classes)).scatter(-1, winner, best)


def selected(subject: Subject) -> Iterator[Case]:
    """Of 17,821 cells and 91 classes, and of many images."""
    cells = sum(rows * columns for rows, columns in MAPS)
    yield selection_case(subject, ranked(subject, 2, cells, 91), "of DINO", num_queries=900, embed=4)
    yield selection_case(subject, ranked(subject, 1, 4500, 3), "1100 of 4500 cells", num_queries=1100)
    logits = ranked(subject, 2, 5000, 1)
    yield selection_case(subject, logits, "objectness", num_queries=300, score="first")
    yield selection_case(subject, ranked(subject, 67, 19, 300), "67 images, 300 classes", num_queries=5)
    yield selection_case(subject, ranked(subject, 2, 40, 3), "wide memory", num_queries=9, embed=289)


def decoder(subject: Subject) -> Iterator[Case]:
    yield decoder_case(subject, replace(DecoderStructure(), queries=270, layers=2), note="270 queries")
    yield decoder_case(subject, replace(DecoderStructure(), queries=1030, layers=1), note="1030 queries")
    many = replace(DecoderStructure(), valid=(DecoderStructure().valid * 34)[:67], queries=3, layers=1)
    yield decoder_case(subject, many, note="67 images")


def refined(subject: Subject) -> Iterator[Case]:
    yield refinement_case(subject, references_of(subject, 2, 1100, 4), "of DINO")
    yield refinement_case(subject, references_of(subject, 67, 5, 2), "67 images")
    yield refinement_case(subject, references_of(subject, 17_821, 4), "every cell", eps=1e-5)


# -- losses ---------------------------------------------------------------------------------------------------


def anywhere(subject: Subject, count: int, seed: str) -> Tensor:
    """Boxes (x1, y1, x2, y2) of which no two ends are equal, but by a rare chance."""
    fill = Filler(subject.dtype, subject.settings.seed, "published boxes", count, seed)
    low, side = fill.uniform(0, 0.8, count, 2), 10 ** fill.uniform(-2, -0.1, count, 2)
    return torch.cat((low, low + side), -1)


def overlaps(subject: Subject) -> Iterator[Case]:
    yield giou_case(subject, anywhere(subject, 900, "queries"), anywhere(subject, 100, "boxes"), "900 and 100")
    yield giou_case(subject, anywhere(subject, 3, "few"), anywhere(subject, 4100, "many"), "3 and 4100")
    yield giou_case(subject, anywhere(subject, 2060, "many"), anywhere(subject, 1, "one"), "2060 and 1")


def focal(subject: Subject) -> Iterator[Case]:
    yield focal_case(subject, *tokens(subject, 2, 900, 91), 37.0, "of DINO")
    yield focal_case(subject, *tokens(subject, 1, 17_821, 91), 7.0, "every cell")
    yield focal_case(subject, *tokens(subject, 67, 3, 1203), 90.0, "67 images, 1203 classes")


PUBLISHED: dict[str, Published] = {
    "multihead_attention": Published(multihead),
    "self_attention": Published(of_itself),
    "cross_attention": Published(of_another),
    "feed_forward": Published(network),
    "mlp": Published(perceptron, smooth=False),
    "encoder_layer": Published(layer),
    "decoder_layer": Published(layer),
    "sine_position_embedding": Published(sine),
    "box_position_embedding": Published(boxes),
    "learned_position_embedding": Published(learned),
    "level_position_embedding": Published(levels),
    "vit": Published(vit, smooth=False),
    "valid_ratios": Published(ratios),
    "encoder_reference_points": Published(references),
    "encoder_proposals": Published(proposals),
    "select_queries": Published(selected),
    "refine_boxes": Published(refined),
    "dino_decoder": Published(decoder, smooth=False),
    "generalized_box_iou": Published(overlaps),
    "sigmoid_focal_loss": Published(focal),
}


def published(subject: Subject) -> Iterator[Case]:
    return PUBLISHED[subject.operation].cases(subject)
