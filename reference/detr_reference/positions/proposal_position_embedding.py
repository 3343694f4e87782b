"""The sine embedding of a proposal from which the two-stage Deformable DETR makes a query.

Source: Deformable DETR, arXiv:2010.04159, appendix A.4; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py (`get_proposal_pos_embed`). See spec chapter 18.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from detr_reference.positions.sine_position_embedding import sine_waves


def proposal_position_embedding(
    proposals: Float[Tensor, "*query 4"], *, num_pos_feats: int = 128, temperature: float = 10000.0
) -> Float[Tensor, "*query channel"]:
    """pos = (waves(2 pi x), waves(2 pi y), waves(2 pi w), waves(2 pi h)), (x, y, w, h) = sigmoid(proposals)

    Two things differ from `box_position_embedding`, which other decoders use: the sigmoid is inside, and x comes first.

    Args:
        proposals: logits of (x, y, w, h); +inf, the logit of a place without a proposal, is the coordinate 1.
        num_pos_feats: channels for each coordinate, an even number.
        temperature: of the wavelengths, see `sine_waves`.

    Returns:
        (..., 4 * num_pos_feats) in the dtype of proposals, computed in float32 or wider.

    Raises:
        ValueError: num_pos_feats is odd or below 2, or temperature is not positive.
    """
    wide = proposals.to(torch.promote_types(proposals.dtype, torch.float32))
    return sine_waves(2 * math.pi * wide.sigmoid(), num_pos_feats, temperature).flatten(-2).to(proposals.dtype)
