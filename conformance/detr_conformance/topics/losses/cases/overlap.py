"""Cases of generalized IoU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import HALF

Interval = tuple[int, int, int, int]
Relation = tuple[Interval, Interval]

# How two intervals lie, as places in the sorted four ends: (low, high) of the first, (low, high) of the second.
APART, OVERLAPPING, AROUND, INSIDE, AFTER = (0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2), (1, 2, 0, 3), (2, 3, 0, 1)
ANYHOW = (APART, OVERLAPPING, AROUND, INSIDE, AFTER)
GRID = 64  # ends lie in different cells of a grid and are, in bfloat16, its points; rounding moves none past another
PIXELS = 1024.0

# Of each pair how it lies along x and along y.
DISJOINT = ((APART, OVERLAPPING), (INSIDE, AFTER), (APART, AFTER), (AFTER, APART))
CROSSING = ((OVERLAPPING, INSIDE), (AROUND, INSIDE), (INSIDE, AROUND), (INSIDE, INSIDE), (OVERLAPPING, OVERLAPPING))


def giou_case(subject: Subject, boxes1: Tensor, boxes2: Tensor, note: str) -> Case:
    """A call; a target that adds 1e-6 to the denominators is asked for that."""
    eps = float(subject.variant("giou_eps"))
    return block_case(
        subject, {"boxes1": boxes1, "boxes2": boxes2}, settings={"eps": eps} if eps else {}, note=f"boxes {note}"
    )


def pairs_case(subject: Subject, pairs: Tensor, note: str) -> Case:
    """A call with pairs (2, pair, 4)."""
    return giou_case(subject, pairs[0], pairs[1], note)


def placed(subject: Subject, relations: tuple[Relation, ...], seed: str) -> Tensor:
    """(2, pair, 4): pairs of boxes in the unit square that lie so; no two ends of an axis are equal."""
    ends = torch.stack([_ends(subject, len(relations), seed, axis) for axis in "xy"], 1)  # (pair, axis, four ends)
    places = torch.tensor(relations).view(-1, 2, 4)  # (pair, axis, low and high of both)
    low1, high1, low2, high2 = ends.gather(-1, places).unbind(-1)
    return torch.stack((torch.cat((low1, high1), -1), torch.cat((low2, high2), -1)))


def scattered(subject: Subject, one: int, other: int, seed: str) -> tuple[Tensor, Tensor]:
    """Two sets of boxes anywhere in the unit square; no two ends of an axis are equal."""
    fill = Filler(subject.dtype, subject.settings.seed, "scattered", seed)
    chosen = fill.integers(0, len(ANYHOW) - 1, one + other, 2).long().tolist()
    relations = tuple((ANYHOW[x], ANYHOW[y]) for x, y in chosen)
    boxes = placed(subject, relations, seed)
    return boxes[0, :one], boxes[1, one:]


def anywhere(subject: Subject, count: int) -> Tensor:
    """Any number of boxes; ends may be equal."""
    fill = Filler(subject.dtype, subject.settings.seed, "anywhere", count)
    low, side = fill.uniform(0, 0.6, count, 2), fill.uniform(0.1, 0.4, count, 2)
    return torch.cat((low, low + side), -1)


def _ends(subject: Subject, pairs: int, seed: str, axis: str) -> Tensor:
    """(pair, 4) sorted, all different, in [0, 1)."""
    fill = Filler(subject.dtype, subject.settings.seed, "ends", seed, axis)
    cells = torch.randperm(GRID, generator=fill.generator)[: 4 * pairs].view(pairs, 4).sort(-1).values.double()
    within = 0.0 if subject.dtype == "bfloat16" else 0.75 * fill.uniform(0, 1, pairs, 4)
    return (cells + within) / GRID


def disjoint(subject: Subject) -> Iterator[Case]:
    """Pairs without common area: apart along one axis, or along both."""
    for seed in "ab":
        yield pairs_case(subject, placed(subject, DISJOINT, seed), f"apart {seed}")


def crossing(subject: Subject) -> Iterator[Case]:
    """Pairs with common area: a corner, an edge, a cross, the whole of one of them."""
    for seed in "ab":
        yield pairs_case(subject, placed(subject, CROSSING, seed), f"crossing {seed}")


def all_pairs(subject: Subject) -> Iterator[Case]:
    """Sets of unlike sizes, none of them square."""
    for one, other in ((3, 5), (4, 2), (1, 4), (3, 1)):
        yield giou_case(subject, *scattered(subject, one, other, f"{one}{other}"), f"{one} and {other}")
    for one, other in ((0, 3), (2, 0), (0, 0)):
        yield giou_case(subject, *scattered(subject, one, other, "none"), f"{one} and {other}")
    for one, other in ((523, 3), (2, 1100)):
        yield giou_case(subject, anywhere(subject, one), anywhere(subject, other), f"{one} and {other}")


def tiny(subject: Subject) -> Iterator[Case]:
    """Small objects of a large image in shares of it, with sides of some 0.002 and 0.0003."""
    for scale in (1 / 128, 1 / 1024):
        yield pairs_case(subject, scale * placed(subject, CROSSING, "tiny"), f"tiny, {scale:.4f}")


def any_unit(subject: Subject) -> Iterator[Case]:
    """Boxes beyond the unit square, left and above of it too, and in pixels."""
    relations = (*DISJOINT, *CROSSING)
    yield pairs_case(subject, 2 * placed(subject, relations, "beyond") - 0.75, "beyond the image")
    yield pairs_case(subject, 128 * placed(subject, relations, "pixels"), "in pixels")


def accurate(subject: Subject) -> Iterator[Case]:
    relations = (*DISJOINT, *CROSSING, (INSIDE, OVERLAPPING))
    for seed in "abc":
        yield pairs_case(subject, placed(subject, relations, seed), f"accurate {seed}")
    yield pairs_case(subject, PIXELS * placed(subject, relations, "large"), "in pixels of a large image")
    scale, corner = (1.0, 1.0) if subject.dtype in HALF else (1 / 16, 500.0)
    yield pairs_case(subject, corner + scale * placed(subject, relations, "far"), "small and far from the origin")


def without_area(subject: Subject) -> Iterator[Case]:
    """Points, lines and boxes, each with each: at one place, in line, inside and apart."""
    point, line, tall = [0.5, 0.25, 0.5, 0.25], [0.25, 0.25, 0.75, 0.25], [0.5, 0.25, 0.5, 0.875]
    box, elsewhere = [0.125, 0.125, 0.875, 0.5], [0.875, 0.75, 0.875, 0.75]
    boxes1 = torch.tensor([point, line, tall, box], dtype=torch.float64)
    boxes2 = torch.tensor([point, line, tall, elsewhere, box], dtype=torch.float64)
    yield giou_case(subject, boxes1, boxes2, "without area")
    yield giou_case(subject, 64 * boxes1, 64 * boxes2, "without area, in pixels")


def at_kinks(subject: Subject) -> Iterator[Case]:
    """The same boxes, boxes that touch along an edge and in a corner, and boxes without area.

    Beside an added 1e-6, the gradients of the last are beyond float16.
    """
    boxes1 = torch.tensor([[0.25, 0.25, 0.75, 0.5], [0.125, 0.5, 0.25, 1.0]])
    boxes2 = torch.tensor([[0.25, 0.25, 0.75, 0.5], [0.75, 0.25, 1.0, 0.5], [0.75, 0.5, 1.0, 0.75]])
    yield giou_case(subject, boxes1, boxes2, "at kinks")
    if subject.variant("giou_eps") == "0" or subject.dtype != "float16":
        yield from without_area(subject)


def differentiated(subject: Subject) -> Iterator[Case]:
    yield pairs_case(subject, placed(subject, DISJOINT, "gradient"), "gradients apart")
    yield pairs_case(subject, placed(subject, CROSSING, "gradient"), "gradients crossing")
    yield giou_case(subject, *scattered(subject, 4, 3, "gradient"), "gradients of all pairs").laid_out("sliced")
    relations = (*DISJOINT, *CROSSING)
    yield pairs_case(subject, 2 * placed(subject, relations, "gradient") - 0.75, "gradients beyond the image")
    if subject.dtype != "float16":
        yield pairs_case(subject, placed(subject, CROSSING, "gradient") / 128, "gradients of tiny boxes")


def one_call(subject: Subject) -> list[Case]:
    return [giou_case(subject, *scattered(subject, 3, 4, "one"), "one call")]


def representative_generalized_box_iou(subject: Subject) -> list[Case]:
    boxes1, boxes2 = placed(subject, (*DISJOINT[:2], *CROSSING[:1]), "representative")
    more = scattered(subject, 3, 2, "representative")[1]
    return [giou_case(subject, boxes1, torch.cat((boxes2, more)), "a complete call")]


@composite
def _drawn_boxes(draw: st.DrawFn, subject: Subject) -> Case:
    one, other = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    boxes = scattered(subject, one, other, str(draw(SEEDS)))
    scale = draw(st.sampled_from((1.0, 1.0, 0.125, 64.0)))
    return giou_case(subject, scale * boxes[0], scale * boxes[1], "drawn").laid_out(draw(ANY_LAYOUT))


def drawn_boxes(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_boxes(subject)
