"""Another twin of contrastive denoising."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detr_conformance.evidence.registry import twin


@twin(
    "denoising-image-by-image",
    operation="contrastive_denoising",
    origin="MMDetection, CdnQueryGenerator: a list of queries for each image, padded at the end",
)
def image_by_image(
    target_labels: Int[Tensor, " box"],
    target_boxes: Float[Tensor, "box 4"],
    target_counts: Int[Tensor, " batch"],
    label_embedding: Float[Tensor, "class embed"],
    *,
    num_queries: int,
    denoising_number: int = 100,
    label_noise_ratio: float = 0.5,
    box_noise_scale: float = 1.0,
) -> dict[str, Tensor]:
    """Makes the queries of each image alone, from one signed uniform number a coordinate, and pads their groups."""
    counts = target_counts.tolist()
    most = max(counts)
    groups = denoising_number // most if 0 < most <= denoising_number else 1
    if target_labels.numel() and not 0 <= target_labels.amin() <= target_labels.amax() < len(label_embedding):
        raise IndexError(f"labels must be in [0, {len(label_embedding)})")
    content, references = [], []
    for labels, boxes in zip(target_labels.split(counts), target_boxes.split(counts), strict=True):
        noised = _labels(labels.repeat(2 * groups, 1), label_noise_ratio, len(label_embedding))
        rows = F.embedding(noised, label_embedding)
        content.append(rows.transpose(0, 1))
        references.append(_logits(boxes, 2 * groups, box_noise_scale).transpose(0, 1))
    queries = [pad_sequence(parts, batch_first=True).transpose(1, 2).flatten(1, 2) for parts in (content, references)]
    visible = torch.kron(torch.eye(groups, dtype=torch.bool), torch.ones(2 * most, 2 * most, dtype=torch.bool))
    matching = torch.ones(len(visible) + num_queries, num_queries, dtype=torch.bool)
    visible = torch.cat((F.pad(visible, (0, 0, 0, num_queries)), matching), 1)
    return {"content": queries[0], "references": queries[1].to(target_boxes.dtype), "attn_mask": ~visible}


def _labels(labels: Int[Tensor, "copy box"], ratio: float, classes: int) -> Int[Tensor, "copy box"]:
    """Chosen and drawn by one number: its first part says whether, the rest which."""
    share = torch.rand(labels.shape, dtype=torch.float64) / max(ratio / 2, 1e-300)
    return torch.where(share < 1, (share.clamp(max=1) * classes).long().clamp(max=classes - 1), labels)


def _logits(boxes: Float[Tensor, "box 4"], copies: int, scale: float) -> Float[Tensor, "copy box 4"]:
    x, y, w, h = boxes.double().unbind(-1)
    negative = (torch.arange(copies) % 2)[:, None]
    r = 2 * torch.rand(4, copies, len(boxes), dtype=torch.float64) - 1
    r = r + negative * torch.where(r < 0, -1, 1)
    left, right = ((x + side * w / 2 + r[i] * w / 2 * scale).clamp(0, 1) for i, side in ((0, -1), (1, 1)))
    top, bottom = ((y + side * h / 2 + r[i] * h / 2 * scale).clamp(0, 1) for i, side in ((2, -1), (3, 1)))
    noised = torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), -1).clamp(0, 1)
    return (noised.clamp(min=1e-3) / (1 - noised).clamp(min=1e-3)).log()
