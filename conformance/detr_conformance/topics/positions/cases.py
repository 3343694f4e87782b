"""Cases of the position embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject

PLAIN = {"num_pos_feats": 6, "temperature": 10000.0, "offset": 0.0, "normalize": True}
EXTENTS = ((5, 7), (2, 4), (4, 1))  # (valid rows, valid columns) of the images of a batch; no two axes alike


# -- masks ----------------------------------------------------------------------------------------------------


def rectangles(height: int, width: int, *extents: tuple[int, int]) -> Tensor:
    """Images of these extents in the upper left corner of a map; True = padding."""
    mask = torch.ones(len(extents), height, width, dtype=torch.bool)
    for image, (rows, columns) in zip(mask, extents, strict=True):
        image[:rows, :columns] = False
    return mask


def with_holes(fill: Filler, batch: int, height: int, width: int, share: float = 0.35) -> Tensor:
    """A random mask in which nearly every row and column has another count."""
    return fill.chance(share, batch, height, width)


# -- cases of the sine embedding ------------------------------------------------------------------------------


def sine_case(subject: Subject, mask: Tensor, note: str, **settings: Any) -> Case:
    """A call with PLAIN settings but for the given ones; a target with one fixed offset is asked for that."""
    chosen = {**PLAIN, **settings}
    fixed = fixed_offset(subject)
    offset = {} if fixed is None else {"offset": fixed}
    return block_case(subject, {"mask": mask}, settings={**chosen, **offset}, note=note)


def fixed_offset(subject: Subject) -> float | None:
    """The only offset of a target with the variant `sine_offset`."""
    said = subject.variants.get("sine_offset", "any")
    return None if said == "any" else float(said)


def padded_maps(subject: Subject) -> Iterator[Case]:
    """Three images of unlike extents, on a map that one of them fills."""
    mask = rectangles(5, 7, *EXTENTS)
    yield sine_case(subject, mask, "padded images")
    yield sine_case(subject, mask.flip(0), "padded images", num_pos_feats=8, temperature=20.0).laid_out("transposed")


def whole_maps(subject: Subject) -> Iterator[Case]:
    """No padding."""
    for height, width in ((4, 7), (6, 3)):
        yield sine_case(subject, rectangles(height, width, (height, width)), "no padding")


def representative_sine_position_embedding(subject: Subject) -> list[Case]:
    """Every row and column has a valid cell, because otherwise an offset leaves its position unspecified."""
    mask = torch.zeros(3, 4, 6, dtype=torch.bool)
    mask[0, 2:, 4:] = True
    mask[1, 1:, 0] = True
    mask[2, 0, 1:4] = True
    return [
        sine_case(subject, mask, "padding in corners"),
        sine_case(subject, mask[:2], "half a cell", num_pos_feats=8, temperature=20.0, offset=-0.5),
    ]


@composite
def _drawn_mask(draw: st.DrawFn, subject: Subject) -> Case:
    batch, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 12))
    fill = Filler(subject.dtype, subject.settings.seed, draw(SEEDS))
    extent = st.tuples(st.integers(0, height), st.integers(0, width))
    mask = rectangles(height, width, *[draw(extent) for _ in range(batch)])
    if draw(st.booleans()):
        mask = with_holes(fill, batch, height, width)
    return sine_case(
        subject,
        mask,
        "drawn",
        num_pos_feats=draw(st.sampled_from((2, 6, 32, 128))),
        temperature=draw(st.sampled_from((20.0, 10000.0))),
        offset=draw(st.sampled_from((0.0, -0.5))),
    ).laid_out(draw(ANY_LAYOUT))


def drawn_maps(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_mask(subject)


# -- cases of the box embedding -------------------------------------------------------------------------------


def box_case(subject: Subject, boxes: Tensor, note: str, **settings: Any) -> Case:
    chosen = {"num_pos_feats": 6, "temperature": 10000.0, **settings}
    return block_case(subject, {"boxes": boxes}, settings=chosen, note=note)


def boxes_of(subject: Subject, *shape: int, seed: str = "", low: float = 0.0, high: float = 1.0) -> Tensor:
    fill = Filler(subject.dtype, subject.settings.seed, "boxes", seed, shape)
    return fill.uniform(low, high, *shape)


def points_and_boxes(subject: Subject) -> Iterator[Case]:
    yield box_case(subject, boxes_of(subject, 2, 5, 4), "boxes")
    yield box_case(subject, boxes_of(subject, 3, 4, 2), "points", num_pos_feats=10, temperature=20.0).laid_out("sliced")


def representative_box_position_embedding(subject: Subject) -> list[Case]:
    return list(points_and_boxes(subject))


@composite
def _drawn_boxes(draw: st.DrawFn, subject: Subject) -> Case:
    shape = (*draw(st.lists(st.integers(1, 5), max_size=3)), draw(st.sampled_from((2, 4))))
    low, high = draw(st.sampled_from(((0.0, 1.0), (-1.0, 2.0), (0.0, 1e-3))))
    return box_case(
        subject,
        boxes_of(subject, *shape, seed=str(draw(SEEDS)), low=low, high=high),
        "drawn",
        num_pos_feats=draw(st.sampled_from((2, 6, 32, 128))),
        temperature=draw(st.sampled_from((20.0, 10000.0))),
    ).laid_out(draw(ANY_LAYOUT))


def drawn_boxes(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_boxes(subject)


# -- cases of the learned and the level embedding -------------------------------------------------------------


def learned_case(subject: Subject, mask: Tensor, note: str, *, feats: int = 3, rows: int = 8, columns: int = 6) -> Case:
    fill = Filler(subject.dtype, subject.settings.seed, "learned", note)
    parameters = {"row_embed.weight": fill.normal(rows, feats), "col_embed.weight": fill.normal(columns, feats)}
    settings = {"num_pos_feats": feats, "num_rows": rows, "num_columns": columns}
    return block_case(subject, {"mask": mask}, parameters, settings, note)


def small_tables(subject: Subject) -> Iterator[Case]:
    """Maps smaller than the tables, with padding."""
    yield learned_case(subject, rectangles(5, 4, (5, 4), (2, 3), (4, 1)), "smaller than the tables")
    holes = with_holes(Filler(subject.dtype, subject.settings.seed, "holes"), 2, 3, 5)
    yield learned_case(subject, holes, "holes", feats=4, rows=6, columns=9).laid_out("transposed")


def representative_learned_position_embedding(subject: Subject) -> list[Case]:
    return list(small_tables(subject))


def level_case(
    subject: Subject, shapes: tuple[tuple[int, int], ...], note: str, batch: int = 2, embed: int = 5
) -> Case:
    fill = Filler(subject.dtype, subject.settings.seed, "level", note, shapes)
    tensors = {
        "position_embedding": fill.normal(batch, sum(height * width for height, width in shapes), embed),
        "spatial_shapes": torch.tensor(shapes, dtype=torch.int64),
        "level_embed": fill.normal(len(shapes), embed),
    }
    return block_case(subject, tensors, note=note)


def unlike_levels(subject: Subject) -> Iterator[Case]:
    yield level_case(subject, ((4, 6), (2, 3), (1, 2)), "a pyramid")
    yield level_case(subject, ((2, 1), (3, 5)), "the larger level last", batch=3, embed=4).laid_out("offset")


def representative_level_position_embedding(subject: Subject) -> list[Case]:
    return list(unlike_levels(subject))


# -- cases that must be refused -------------------------------------------------------------------------------


def with_option(case: Case, name: str, value: float) -> Case:
    """Another setting, one that the reference may refuse."""
    return replace(case, options=case.options | {name: str(value)})
