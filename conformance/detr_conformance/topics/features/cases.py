"""Cases of `valid_ratios` (chapter 11)."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, composite
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.positions.cases import rectangles


def ratio_case(subject: Subject, mask: Tensor, note: str) -> Case:
    return block_case(subject, {"mask_l": mask}, note=note)


def padded_levels(subject: Subject) -> Iterator[Case]:
    """Images of unlike extents, no two ratios of an image alike but where it fills the map."""
    yield ratio_case(subject, rectangles(5, 7, (5, 7), (2, 4), (4, 1)), "one image fills the map")
    yield ratio_case(subject, rectangles(6, 4, (3, 3), (5, 1)), "no image fills the map").laid_out("transposed")


def representative_valid_ratios(subject: Subject) -> list[Case]:
    return list(padded_levels(subject))


@composite
def _drawn_level(draw: st.DrawFn, subject: Subject) -> Case:
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 400))
    extent = st.tuples(st.integers(1, height), st.integers(1, width))
    extents = draw(st.lists(extent, min_size=1, max_size=3))
    return ratio_case(subject, rectangles(height, width, *extents), "drawn").laid_out(draw(ANY_LAYOUT))


def drawn_levels(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_level(subject)
