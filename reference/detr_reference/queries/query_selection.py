"""Query selection: the cells of the memory that look most like objects are handed to the decoder.

Source: Deformable DETR, arXiv:2010.04159, section 4.2; DINO, arXiv:2203.03605, section 3.4; read with
fundamentalvision/Deformable-DETR, models/deformable_transformer.py, and detrex,
projects/dino/modeling/dino_transformer.py. Clauses: spec chapter 11.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

SCORES = ("max", "first")


def select_queries(
    class_logits: Float[Tensor, "batch cell classes"],
    proposals: Float[Tensor, "batch cell 4"],
    memory: Float[Tensor, "batch cell embed"],
    *,
    num_queries: int,
    score: str = "max",
) -> dict[str, Tensor]:
    """indices = the num_queries cells of each image with the highest score, best first; the rest is gathered there

    Args:
        class_logits: what the encoder's class head says of each cell. Invalid proposals take part like all others: an
            image with fewer valid cells than num_queries gets some of them.
        proposals: boxes before the sigmoid, the box head's output already added; +inf where invalid.
        memory: what each cell holds.
        num_queries: T.
        score: "max" is the highest logit over classes (DINO); "first" is channel 0 alone, which Deformable DETR trains
            to tell objects from background.

    Returns:
        indices (batch, T) int64: cells by falling score; equal ones come in any order.
        proposals (batch, T, 4) and memory (batch, T, embed): their rows there, with gradients. Whoever hands them to
            the decoder detaches them, see `mixed_query_selection`.

    Raises:
        ValueError: shapes disagree, there are fewer cells than num_queries, or score is unknown. NaN scores are no
            error here, where the check would make a GPU wait at every step: they rank first, and the matching refuses
            the predictions that come of them.
    """
    _check_arguments(class_logits, proposals, memory, num_queries, score)
    scores = class_logits.amax(-1) if score == "max" else class_logits[..., 0]
    indices = scores.topk(num_queries, dim=1).indices
    return {"indices": indices, "proposals": _rows(proposals, indices), "memory": _rows(memory, indices)}


def _rows(tensor: Float[Tensor, "batch cell channel"], indices: Tensor) -> Float[Tensor, "batch query channel"]:
    return tensor.gather(1, indices[..., None].expand(-1, -1, tensor.shape[-1]))


def _check_arguments(class_logits: Tensor, proposals: Tensor, memory: Tensor, num_queries: int, score: str) -> None:
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    if class_logits.ndim != 3 or class_logits.shape[-1] < 1:
        raise ValueError(f"class_logits must be (batch, cell, classes), got {tuple(class_logits.shape)}")
    batch, cells, _ = class_logits.shape
    if proposals.shape != (batch, cells, 4):
        raise ValueError(
            f"proposals must be {(batch, cells, 4)}, as class_logits {tuple(class_logits.shape)} say, "
            f"got {tuple(proposals.shape)}"
        )
    if memory.ndim != 3 or memory.shape[:2] != (batch, cells):
        raise ValueError(
            f"memory must be ({batch}, {cells}, embed), as class_logits {tuple(class_logits.shape)} say, "
            f"got {tuple(memory.shape)}"
        )
    if not 1 <= num_queries <= cells:
        raise ValueError(f"num_queries must lie between 1 and the {cells} cells of the memory, got {num_queries}")
