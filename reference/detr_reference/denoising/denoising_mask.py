"""Who may attend to whom when denoising queries are trained beside the matching queries.

Source: DN-DETR, arXiv:2203.01305, section 4.3, and DINO, arXiv:2203.03605, section 3.3; read with IDEA-Research/DINO,
models/dino/dn_components.py (`prepare_for_cdn`), and detrex, projects/dino/modeling/dino.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor


def denoising_attention_mask(groups: int, group_size: int, num_matching: int) -> Bool[Tensor, "query query"]:
    """mask[i, j] = j is a denoising query, of another group than i (the matching queries are a group of their own)

    Denoising queries are noised ground truth. A matching query that saw them would read the answer; a group that saw
    another would see the same objects under other noise. The matching queries hold no such secret, so that denoising
    queries see them, and their own group:

        may i attend to j?     own group   other group   matching
        denoising query i      yes         no            yes
        matching query i       -           no            yes

    Args:
        groups: G, number of denoising groups.
        group_size: queries of a group; in DINO twice the largest number of boxes in the batch (positives, negatives).
        num_matching: queries that are matched, such as 900.

    Returns:
        an attn_mask for the decoder's self-attention, True = may not attend, for queries laid out as
        [group 0 | group 1 | ... | matching].

    Raises:
        ValueError: a number is negative.
    """
    for name, number in (("groups", groups), ("group_size", group_size), ("num_matching", num_matching)):
        if number < 0:
            raise ValueError(f"{name} must be at least 0, got {number}")
    denoising = groups * group_size
    group = torch.arange(denoising + num_matching).clamp(max=denoising) // max(group_size, 1)
    is_denoising = torch.arange(denoising + num_matching) < denoising
    return is_denoising[None, :] & (group[:, None] != group[None, :])
