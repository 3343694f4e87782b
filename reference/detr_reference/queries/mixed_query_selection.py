"""Mixed query selection: where a decoder's queries begin, and what they hold.

A query of DETR's decoders has two parts. Its *reference* says where it looks, a box; its *content* says what it has
found so far. Either may be learned, the same for all images, or taken from what the encoder found in this one:

| selection | content | reference | as in |
|---|---|---|---|
| static | learned | learned | DAB-DETR, DN-DETR |
| pure | selected | selected | DINO's ablation |
| mixed | learned | selected | DINO |

Source: DINO, arXiv:2203.03605, section 3.4 and figure 5; read with IDEA-Research/DINO,
models/dino/deformable_transformer.py. Clauses of the selection itself: spec chapter 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from detr_reference.queries.config import SELECTIONS

_Needed = TypeVar("_Needed")


def initial_queries(
    selection: str,
    batch: int,
    *,
    learned_content: Float[Tensor, "query embed"] | None = None,
    learned_references: Float[Tensor, "query 4"] | None = None,
    selected: Mapping[str, Tensor] | None = None,
) -> tuple[Float[Tensor, "batch query embed"], Float[Tensor, "batch query 4"]]:
    """content and references (before the sigmoid) of every image's queries, as the table says

    Args:
        selection: "static", "pure" or "mixed".
        batch: the number of images.
        learned_content: one vector a query, unless selection is "pure".
        learned_references: one box a query, before the sigmoid, if selection is "static".
        selected: "memory" and "proposals" of `select_queries`, unless selection is "static".

    Returns:
        content (batch, query, embed) and references (batch, query, 4). What was selected is detached.

    Raises:
        ValueError: selection is unknown, or what it needs is missing.
    """
    return (
        initial_content(selection, batch, learned_content, selected),
        initial_references(selection, batch, learned_references, selected),
    )


def initial_content(
    selection: str,
    batch: int,
    learned: Float[Tensor, "query embed"] | None,
    selected: Mapping[str, Tensor] | None,
) -> Float[Tensor, "batch query embed"]:
    """What the queries hold: selected memory, if selection is "pure", and otherwise a learned vector each.

    A cell of the encoder is only a first guess: it may hold a part of an object, or several. As content it would
    mislead the decoder, which is why mixed selection takes the box of the cell and leaves the content to learning.
    """
    _check_selection(selection)
    if selection == "pure":
        return _needed(selected, "selected", selection)["memory"].detach()
    return _needed(learned, "learned_content", selection).expand(batch, -1, -1)


def initial_references(
    selection: str,
    batch: int,
    learned: Float[Tensor, "query 4"] | None,
    selected: Mapping[str, Tensor] | None,
) -> Float[Tensor, "batch query 4"]:
    """Where the queries look: learned boxes, if selection is "static", and otherwise those of the best cells.

    Selected boxes lie on objects of this image already in the first layer; learned ones have to be moved there.
    They are detached: the encoder's heads learn from a loss of their own, on the undetached boxes, and the decoder's
    losses do not reach through them into the encoder.
    """
    _check_selection(selection)
    if selection == "static":
        return _needed(learned, "learned_references", selection).expand(batch, -1, -1)
    return _needed(selected, "selected", selection)["proposals"].detach()


def _check_selection(selection: str) -> None:
    if selection not in SELECTIONS:
        raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, got {selection!r}")


def _needed(value: _Needed | None, name: str, selection: str) -> _Needed:
    if value is None:
        raise ValueError(f"{selection} selection needs {name}")
    return value
