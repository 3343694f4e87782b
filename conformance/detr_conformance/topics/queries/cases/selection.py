"""Cases of the steps that make queries of the encoder's memory (chapter 11)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.positions.cases import rectangles

Size = tuple[int, int]  # (rows, columns)
PYRAMID: tuple[Size, ...] = ((4, 6), (2, 3), (1, 2))
PUBLISHED: tuple[Size, ...] = ((100, 167), (50, 84), (25, 42), (13, 21))  # 22,223 cells of an image of 800 x 1333
DEEP: tuple[Size, ...] = ((5, 7), (4, 6), (3, 5), (2, 4), (2, 3), (1, 2), (1, 1))


# -- references -----------------------------------------------------------------------------------------------


def reference_case(subject: Subject, shapes: Sequence[Size], ratios: Tensor, note: str) -> Case:
    inputs = {"spatial_shapes": torch.tensor(shapes, dtype=torch.int64), "valid_ratios": ratios}
    return block_case(subject, inputs, note=note)


def unlike_ratios(subject: Subject, batch: int, levels: int, seed: str = "") -> Tensor:
    """Ratios that differ between images, levels and axes."""
    return Filler(subject.dtype, subject.settings.seed, "ratios", batch, levels, seed).uniform(0.3, 1, batch, levels, 2)


def padded_pyramids(subject: Subject) -> Iterator[Case]:
    yield reference_case(subject, PYRAMID, unlike_ratios(subject, 2, 3), "a pyramid")
    yield reference_case(subject, ((2, 1), (3, 5)), unlike_ratios(subject, 3, 2), "the larger level last").laid_out(
        "offset"
    )


def many_pyramids(subject: Subject) -> Iterator[Case]:
    """Four levels and more, each with ratios of its own; many images; as many cells as a photograph has."""
    for levels in (4, 5, 7):
        ratios = unlike_ratios(subject, 2, levels, "many levels")
        yield reference_case(subject, DEEP[:levels], ratios, f"{levels} levels")
    yield reference_case(subject, PYRAMID, unlike_ratios(subject, 33, 3), "33 images")
    yield reference_case(subject, PUBLISHED, unlike_ratios(subject, 2, 4), "as many cells as published")


def representative_encoder_reference_points(subject: Subject) -> list[Case]:
    return list(padded_pyramids(subject))


@composite
def _drawn_pyramid(draw: st.DrawFn, subject: Subject) -> Case:
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 60)), min_size=1, max_size=4))
    ratios = unlike_ratios(subject, draw(st.integers(1, 2)), len(shapes), str(draw(SEEDS)))
    return reference_case(subject, shapes, ratios, "drawn").laid_out(draw(ANY_LAYOUT))


def drawn_pyramids(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_pyramid(subject)


# -- proposals ------------------------------------------------------------------------------------------------


def proposal_case(
    subject: Subject, shapes: Sequence[Size], extents: Sequence[Sequence[Size]], note: str, embed: int = 3
) -> Case:
    """Images whose parts of each level have these extents: extents[image][level]."""
    masks = [rectangles(*shape, *[image[level] for image in extents]) for level, shape in enumerate(shapes)]
    mask = torch.cat([each.flatten(1) for each in masks], 1)
    fill = Filler(subject.dtype, subject.settings.seed, "memory", note, shapes)
    inputs = {
        "memory": fill.normal(*mask.shape, embed),
        "memory_key_padding_mask": mask,
        "spatial_shapes": torch.tensor(shapes, dtype=torch.int64),
    }
    return block_case(subject, inputs, note=note)


def padded_memories(subject: Subject) -> Iterator[Case]:
    """Small levels without a cell near the border of validity."""
    full, part = PYRAMID, ((3, 4), (2, 2), (1, 1))
    yield proposal_case(subject, PYRAMID, (full, part), "a pyramid")
    shapes = ((3, 2), (5, 9), (2, 3), (4, 3))
    extents = (((2, 2), (5, 4), (1, 3), (4, 3)), ((3, 1), (2, 7), (2, 2), (3, 1)), ((1, 1), (1, 1), (2, 3), (2, 3)))
    yield proposal_case(subject, shapes, extents, "no image fills all maps", embed=4).laid_out("transposed")


def large_levels(subject: Subject) -> Iterator[Case]:
    """Sides of 50 cells and more, whose border cells are invalid; 56 and more are beyond any doubt."""
    yield proposal_case(subject, ((2, 60), (3, 3)), (((2, 60), (3, 3)), ((1, 56), (2, 2))), "wide")
    yield proposal_case(subject, ((57, 3), (4, 2)), (((57, 2), (4, 2)), ((48, 3), (4, 1))), "high")


def many_levels(subject: Subject) -> Iterator[Case]:
    shapes = ((2, 3), (1, 2), (2, 1), (1, 1), (3, 2), (2, 3), (1, 2))
    yield proposal_case(subject, shapes, (shapes, [(1, 1)] * 7), "seven levels")


def many_cells(subject: Subject) -> Iterator[Case]:
    """As many cells as a photograph has, and a level more."""
    full, part = [(h, w) for h, w in PUBLISHED], [(h * 3 // 4, w - 1) for h, w in PUBLISHED]
    yield proposal_case(subject, PUBLISHED, (part, full), "as many cells as published", embed=2)
    deep = [(max(1, h - 1), w) for h, w in DEEP]
    yield proposal_case(subject, DEEP, (deep, DEEP, deep, deep, DEEP), "seven levels of five images")


def representative_encoder_proposals(subject: Subject) -> list[Case]:
    small = ((2, 3), (1, 2))
    return [*padded_memories(subject), proposal_case(subject, small, (small,) * 2, "nothing invalid")]


@composite
def _drawn_memory(draw: st.DrawFn, subject: Subject) -> Case:
    shapes = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 70)), min_size=1, max_size=5))
    batch = draw(st.integers(1, 2))
    extents = [[(draw(st.integers(0, h)), draw(st.integers(0, w))) for h, w in shapes] for _ in range(batch)]
    return proposal_case(subject, shapes, extents, "drawn", embed=2).laid_out(draw(ANY_LAYOUT))


def drawn_memories(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_memory(subject)


# -- selection ------------------------------------------------------------------------------------------------


def selection_case(
    subject: Subject, class_logits: Tensor, note: str, *, num_queries: int, score: str = "max", embed: int = 3
) -> Case:
    fill = Filler(subject.dtype, subject.settings.seed, "selection", note, tuple(class_logits.shape))
    batch, cells, _ = class_logits.shape
    inputs = {
        "class_logits": class_logits,
        "proposals": fill.normal(batch, cells, 4),
        "memory": fill.normal(batch, cells, embed),
    }
    return block_case(subject, inputs, settings={"num_queries": num_queries, "score": score}, note=note)


def unlike_scores(subject: Subject, batch: int, cells: int, classes: int, seed: str = "") -> Tensor:
    """Logits whose maxima differ by a quarter from each other, as do those of channel 0; the largest logit of a cell
    belongs to any class."""
    fill = Filler(subject.dtype, subject.settings.seed, "scores", batch, cells, classes, seed)
    logits = fill.uniform(-20, -12, batch, cells, classes)
    logits[..., 0] = _shuffled(fill, batch, cells) / 4 - 11
    winners = fill.integers(0, classes - 1, batch, cells).long()
    best = _shuffled(fill, batch, cells) / 4 + torch.where(winners == 0, 0.125, 0.0)
    return logits.scatter(-1, winners[..., None], best[..., None])


def _shuffled(fill: Filler, batch: int, cells: int) -> Tensor:
    return torch.rand(batch, cells, generator=fill.generator).argsort(-1).double()


def clear_choices(subject: Subject) -> Iterator[Case]:
    """One image has its best cells where the other has none, and num_queries divides nothing."""
    yield selection_case(subject, unlike_scores(subject, 2, 13, 4), "the largest logit", num_queries=5)
    logits = unlike_scores(subject, 3, 11, 5)
    yield selection_case(subject, logits, "channel 0", num_queries=4, score="first", embed=4).laid_out("sliced")


def representative_select_queries(subject: Subject) -> list[Case]:
    return list(clear_choices(subject))


@composite
def _drawn_choice(draw: st.DrawFn, subject: Subject) -> Case:
    batch, cells, classes = draw(st.integers(1, 3)), draw(st.integers(1, 24)), draw(st.integers(1, 6))
    logits = unlike_scores(subject, batch, cells, classes, str(draw(SEEDS)))
    num_queries, score = draw(st.integers(1, cells)), draw(st.sampled_from(("max", "first")))
    case = selection_case(subject, logits, "drawn", num_queries=num_queries, score=score)
    return case.laid_out(draw(ANY_LAYOUT))


def drawn_choices(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_choice(subject)


# -- refinement -----------------------------------------------------------------------------------------------


def refinement_case(
    subject: Subject, reference: Tensor, note: str, delta: Tensor | None = None, **settings: Any
) -> Case:
    fill = Filler(subject.dtype, subject.settings.seed, "delta", note, tuple(reference.shape))
    given = fill.normal(*reference.shape[:-1], 4) if delta is None else delta
    chosen = {"eps": 1e-3, **settings}
    return block_case(subject, {"delta": given, "reference": reference}, settings=chosen, note=note)


def references_of(subject: Subject, *shape: int, low: float = 0.05, high: float = 0.95, seed: str = "") -> Tensor:
    return Filler(subject.dtype, subject.settings.seed, "references", seed, shape).uniform(low, high, *shape)


def boxes_and_points(subject: Subject) -> Iterator[Case]:
    yield refinement_case(subject, references_of(subject, 2, 5, 4), "boxes")
    yield refinement_case(subject, references_of(subject, 3, 4, 2), "points", eps=1e-5).laid_out("sliced")


def representative_refine_boxes(subject: Subject) -> list[Case]:
    return list(boxes_and_points(subject))


def near_the_border(subject: Subject, *settings: float) -> Iterator[Case]:
    """References between 0 and eps and between 1 - eps and 1, with corrections that bring them back to the middle."""
    for eps in settings:
        fill = Filler(subject.dtype, subject.settings.seed, "border", eps)
        near = eps * fill.uniform(0.05, 0.95, 2, 6, 4)
        reference = torch.where(fill.chance(0.5, 2, 6, 4), near, 1 - near)
        delta = torch.where(reference < 0.5, 1.0, -1.0) * fill.uniform(5, 8, 2, 6, 4)
        yield refinement_case(subject, reference, f"within {eps} of the border", delta, eps=eps)


@composite
def _drawn_boxes(draw: st.DrawFn, subject: Subject) -> Case:
    shape = (*draw(st.lists(st.integers(1, 5), max_size=3)), draw(st.sampled_from((2, 4))))
    low, high = draw(st.sampled_from(((0.05, 0.95), (-0.5, 1.5), (0.0, 0.02), (0.97, 1.0))))
    reference = references_of(subject, *shape, low=low, high=high, seed=str(draw(SEEDS)))
    case = refinement_case(subject, reference, "drawn", eps=draw(st.sampled_from((1e-3, 1e-5))))
    return case.laid_out(draw(ANY_LAYOUT))


def drawn_boxes(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_boxes(subject)
