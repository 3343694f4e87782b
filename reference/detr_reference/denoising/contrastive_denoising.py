"""Contrastive denoising: the true boxes, noised, as queries beside the matching ones; the near ones are to be repaired,
the far ones to be rejected.

Early in training a matching query is assigned to another object in every epoch. A denoising query knows its object, so
that the decoder learns from it what a box next to an object should become. With DN-DETR's noise alone it would also
learn to make an object of whatever lies nearby: the negatives teach it where to stop.

Source: DINO, arXiv:2203.03605, section 3.3; read with IDEA-Research/DINO, models/dino/dn_components.py
(`prepare_for_cdn`), and detrex, projects/dino/modeling/dino.py. Clauses: spec chapter 13.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_reference.denoising.denoising_mask import denoising_attention_mask
from detr_reference.losses.batch_targets import BatchTargets, batch_targets
from detr_reference.losses.boxes import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh
from detr_reference.queries.box_refinement import inverse_sigmoid

LOGIT_EPS = 1e-3


def contrastive_denoising(
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
    """content = label_embedding[noised label], reference = logit(noised box), G groups x (positives, negatives) x slots

    A group holds every box of an image twice, as a positive and as a negative, in M slots each, M being the largest
    count in the batch: D = G * 2 * M queries an image,

        | positives of group 0 | negatives of group 0 | positives of group 1 | ... | negatives of group G - 1 |

    Args:
        target_labels: class of each box, those of image 0 first, then those of image 1, and so on.
        target_boxes: cxcywh, relative to the image.
        target_counts: boxes of each image, also 0.
        label_embedding: a row for each class.
        num_queries: Q, the matching queries that follow the denoising ones in the decoder.
        denoising_number: of positives that an image may have, see `denoising_groups`.
        label_noise_ratio: twice the probability that a label is drawn anew.
        box_noise_scale: how far a corner moves, as a share of half the box: up to once that for positives, once to
            twice for negatives.

    Returns:
        content: (batch, D, embed), in the dtype of label_embedding, to which it passes gradients. 0 in empty slots.
        references: (batch, D, 4), logits of cxcywh boxes, in the dtype of target_boxes; computed in float32 or wider.
            0 in empty slots.
        attn_mask: (D + Q, D + Q) bool for the decoder's self-attention, True = may not attend.
        Without any box, D = 0. The random numbers come from torch's global generator.

    Raises:
        ValueError: counts, labels and boxes do not fit together, a label has no row, or a setting is out of range.
        TypeError: labels or counts are not int64.
    """
    _check_settings(denoising_number, label_noise_ratio, box_noise_scale)
    targets = batch_targets(
        target_labels, target_boxes, target_counts, batch=len(target_counts), num_classes=len(label_embedding)
    )
    groups = denoising_groups(targets.counts, denoising_number)

    # 1. One row of M slots for each image: images differ in their number of boxes, and a batch is a rectangle.
    labels, boxes, taken = padded(targets)

    # 2. G groups of positives and negatives: an object is met under different noise in one step of training. Up to
    #    here nothing is random, and the copies are equal.
    copies = (len(targets.counts), groups, 2, boxes.shape[1])
    labels, taken = (tensor[:, None, None].expand(copies) for tensor in (labels, taken))
    boxes = boxes[:, None, None].expand(*copies, 4)

    # 3. Wrong labels: the content must not be trusted blindly, or the classifier would only copy it.
    labels = noised_labels(labels, label_noise_ratio / 2, num_classes=len(label_embedding))

    # 4. Wrong boxes: positives stay around their object and are to be moved back, negatives leave it and are to be
    #    called background.
    boxes = noised_boxes(boxes, box_noise_scale)

    # 5. Queries as the decoder takes them: content and the logit of the reference, with which refinement computes.
    content = torch.where(taken[..., None], label_embedding[labels], 0)
    references = torch.where(taken[..., None], inverse_sigmoid(boxes, LOGIT_EPS), 0)

    # 6. Who sees whom: neither the matching queries nor another group may read the answer here.
    group_size = 2 * boxes.shape[3]
    return {
        "content": content.flatten(1, 3),
        "references": references.flatten(1, 3).to(target_boxes.dtype),
        "attn_mask": denoising_attention_mask(groups, group_size, num_queries).to(target_boxes.device),
    }


def denoising_groups(target_counts: Int[Tensor, " batch"], denoising_number: int) -> int:
    """G = max(1, denoising_number // M), M the largest count: the fewer boxes, the more often each is denoised

    An image thus has at most denoising_number positives and as many negatives, unless M is larger: one group always
    holds all boxes. Where no image has any, G is 1.
    """
    largest = _largest(target_counts)
    return max(1, denoising_number // largest) if largest else 1


def padded(
    targets: BatchTargets,
) -> tuple[Int[Tensor, "batch slot"], Float[Tensor, "batch slot 4"], Bool[Tensor, "batch slot"]]:
    """Labels and boxes in one row of slots for each image, in float32 or wider, and which slots are taken.

    Box j of an image takes slot j; as many slots as the image with the most boxes has. The others hold zeros.
    """
    slot = torch.arange(_largest(targets.counts), device=targets.counts.device)
    taken = slot < targets.counts[:, None]
    labels = targets.labels.new_zeros(taken.shape)
    labels[taken] = targets.labels
    boxes = targets.boxes.new_zeros(*taken.shape, 4, dtype=torch.promote_types(targets.boxes.dtype, torch.float32))
    boxes[taken] = targets.boxes.detach().to(boxes.dtype)
    return labels, boxes, taken


def noised_labels(labels: Int[Tensor, "*slots"], probability: float, num_classes: int) -> Int[Tensor, "*slots"]:
    """Each label with this probability drawn anew from all classes, its own among them; otherwise as it is."""
    drawn = torch.randint(num_classes, labels.shape, device=labels.device)
    return torch.where(torch.rand(labels.shape, device=labels.device) < probability, drawn, labels)


def noised_boxes(boxes: Float[Tensor, "*groups 2 slot 4"], scale: float) -> Float[Tensor, "*groups 2 slot 4"]:
    """corner + sign * r * half side * scale, clamped to the image; r in [0, 1) for positives, [1, 2) for negatives

    Sign and r are drawn for each of the four corner coordinates by itself. A positive's corners thus never cross the
    middle of the box, up to scale 1. A negative's may, beyond scale 1/2, and change places; its width or height is then
    not positive, which is no box, and ends as eps in the logit.

    Args:
        boxes: cxcywh; on the third axis from the end positives, then negatives.
    """
    corners = box_cxcywh_to_xyxy(boxes)
    half_sides = (boxes[..., 2:] / 2).tile(2)
    r = torch.rand_like(corners)
    r[..., 1, :, :] += 1
    sign = torch.randint_like(corners, 2) * 2 - 1
    return box_xyxy_to_cxcywh((corners + sign * r * half_sides * scale).clamp(0, 1))


def _largest(counts: Int[Tensor, " batch"]) -> int:
    return max(counts.tolist(), default=0)


def _check_settings(denoising_number: int, label_noise_ratio: float, box_noise_scale: float) -> None:
    if denoising_number < 1:
        raise ValueError(f"denoising_number must be at least 1, got {denoising_number}")
    if not 0 <= label_noise_ratio <= 1:
        raise ValueError(f"label_noise_ratio must lie between 0 and 1, got {label_noise_ratio}")
    if not box_noise_scale >= 0:
        raise ValueError(f"box_noise_scale must not be negative, got {box_noise_scale}")
