"""Which denoising query answers for which box: known from the layout, so nothing is matched.

Source: DN-DETR, arXiv:2203.01305, section 4; DINO, arXiv:2203.03605, section 3.3; read with IDEA-Research/DINO,
models/dino/dn_components.py. Clauses: spec chapter 15.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class DenoisingPairs(NamedTuple):
    """What the slots of the denoising part of the queries are.

    Attributes:
        pairs: "image", "query", "target" of the positives, as from `hungarian_matching`.
        groups: how many noised copies of its boxes each image has.
        holds_box: (B, D), True where a slot holds a noised box, positive or negative, and False where it is padding.
    """

    pairs: dict[str, Int[Tensor, " pair"]]
    groups: int
    holds_box: Bool[Tensor, "batch slot"]


def denoising_pairs(
    target_counts: Int[Tensor, " batch"], num_slots: int, *, contrastive: bool = True
) -> DenoisingPairs:
    """slot g * 2 P + t of an image is box t of group g (positive), slot g * 2 P + P + t its negative

    P = max(counts). An image with fewer boxes has padding in its slots t >= its count. Without negatives
    (`contrastive=False`, DN-DETR) box t of group g is in slot g * P + t.

    Raises:
        ValueError: num_slots is not a multiple of a group's size.
    """
    most = int(target_counts.max())
    size = 2 * most if contrastive else most
    if num_slots % max(size, 1) or (size == 0 and num_slots):
        raise ValueError(
            f"{num_slots} denoising queries are no whole number of groups: with counts {target_counts.tolist()} a "
            f"group has {size}"
        )
    groups = num_slots // size if size else 0
    slot = torch.arange(num_slots, device=target_counts.device)
    target, positive = slot % max(most, 1), slot % max(size, 1) < most
    holds_box = target < target_counts[:, None]
    image, query = (holds_box & positive).nonzero(as_tuple=True)
    return DenoisingPairs({"image": image, "query": query, "target": target[query]}, groups, holds_box)
