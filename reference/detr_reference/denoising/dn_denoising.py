"""Denoising as DN-DETR has it: groups of noised true boxes as queries, all of them to be repaired.

DINO's form, with negatives, is `contrastive_denoising`; this one is what it is compared with in the paper's ablation.

Source: DN-DETR, arXiv:2203.01305, sections 4.2 to 4.4; read with IDEA-Research/DN-DETR,
models/DN_DAB_DETR/dn_components.py (`prepare_for_dn`), and detrex, layers/denoising.py. It has no clauses; chapter 13
says how the two differ.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.denoising.contrastive_denoising import LOGIT_EPS, noised_labels, padded
from detr_reference.denoising.denoising_mask import denoising_attention_mask
from detr_reference.losses.batch_targets import batch_targets
from detr_reference.queries.box_refinement import inverse_sigmoid


def dn_denoising(
    target_labels: Int[Tensor, " box"],
    target_boxes: Float[Tensor, "box 4"],
    target_counts: Int[Tensor, " batch"],
    label_embedding: Float[Tensor, "class embed"],
    *,
    num_queries: int,
    groups: int = 5,
    label_noise_probability: float = 0.2,
    box_noise_scale: float = 0.4,
) -> dict[str, Tensor]:
    """content = label_embedding[noised label], reference = logit(noised box), in groups x slots

    Args:
        target_labels, target_boxes, target_counts: as in `contrastive_denoising`.
        label_embedding: a row for each class; in DN-DETR with an indicator, see `with_indicator`.
        num_queries: Q, the matching queries that follow the denoising ones in the decoder.
        groups: how often each box is denoised, however many there are.
        label_noise_probability: that a label is drawn anew.
        box_noise_scale: how far centre and size move, see `shifted_and_scaled`.

    Returns:
        content (batch, D, embed), references (batch, D, 4) and attn_mask (D + Q, D + Q) as in `contrastive_denoising`,
        with D = groups * M, M the largest count. The random numbers come from torch's global generator.

    Raises:
        ValueError: counts, labels and boxes do not fit together, a label has no row, or a setting is out of range.
        TypeError: labels or counts are not int64.
    """
    _check_settings(groups, label_noise_probability, box_noise_scale)
    targets = batch_targets(
        target_labels, target_boxes, target_counts, batch=len(target_counts), num_classes=len(label_embedding)
    )
    labels, boxes, taken = padded(targets)
    copies = (len(targets.counts), groups, boxes.shape[1])
    labels, taken = (tensor[:, None].expand(copies) for tensor in (labels, taken))
    boxes = boxes[:, None].expand(*copies, 4)

    labels = noised_labels(labels, label_noise_probability, num_classes=len(label_embedding))
    boxes = shifted_and_scaled(boxes, box_noise_scale)

    content = torch.where(taken[..., None], label_embedding[labels], 0)
    references = torch.where(taken[..., None], inverse_sigmoid(boxes, LOGIT_EPS), 0)
    return {
        "content": content.flatten(1, 2),
        "references": references.flatten(1, 2).to(target_boxes.dtype),
        "attn_mask": denoising_attention_mask(groups, boxes.shape[2], num_queries).to(target_boxes.device),
    }


def shifted_and_scaled(boxes: Float[Tensor, "*slots 4"], scale: float) -> Float[Tensor, "*slots 4"]:
    """(cx, cy, w, h) + r * (w / 2, h / 2, w, h) * scale, each r in [-1, 1) by itself, clamped to [0, 1]

    With a scale below 1 the noised centre stays within the box, and no size becomes negative.
    """
    size = boxes[..., 2:]
    r = 2 * torch.rand_like(boxes) - 1
    return (boxes + r * torch.cat((size / 2, size), -1) * scale).clamp(0, 1)


def with_indicator(embedding: Float[Tensor, "*row channel"], denoising: bool) -> Float[Tensor, "*row channel_and_one"]:
    """(embedding, 1) for denoising queries, (embedding, 0) for matching ones: DN-DETR's last channel tells them apart

    The label embedding of DN-DETR has a channel less than its model and a row more than classes; the matching queries
    take that last row as their content.
    """
    indicator = embedding.new_full((*embedding.shape[:-1], 1), float(denoising))
    return torch.cat((embedding, indicator), -1)


def _check_settings(groups: int, label_noise_probability: float, box_noise_scale: float) -> None:
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")
    if not 0 <= label_noise_probability <= 1:
        raise ValueError(f"label_noise_probability must lie between 0 and 1, got {label_noise_probability}")
    if not box_noise_scale >= 0:
        raise ValueError(f"box_noise_scale must not be negative, got {box_noise_scale}")
