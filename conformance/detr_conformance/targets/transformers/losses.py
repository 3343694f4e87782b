"""Matching and losses of Hugging Face transformers, by model family. Read in transformers 5.23, folder loss/.

| families | matcher | criterion |
|---|---|---|
| detr, table_transformer, yolos | softmax | `ImageLoss`: cross entropy |
| deformable_detr, conditional_detr, dab_detr | focal | `DeformableDetrImageLoss`: focal loss |
| grounding_dino, mm_grounding_dino | focal, over the words of a class | `GroundingDinoImageLoss`: focal loss |
| lw_detr, rf_detr | focal, in groups of queries | another class loss, weighted by the IoU |
| rt_detr, rt_detr_v2, d_fine, deimv2 | focal or softmax | other class losses: varifocal and its kin |

Where the class loss is another one there is no `detection_losses`: rt_detr's criterion names a focal loss and a cross
entropy too, but calls neither with arguments that it takes. No criterion here takes denoising queries in the
spec's layout, and those of the first three rows know decoder layers alone (grounding_dino's encoder is a second call).

What the adapters add:
- the targets of each image as a dict of its own, and the pairs of all images as three tensors;
- float32 for half predictions and boxes, since torch.cdist, which all matchers but lw_detr's call, knows no half
  precision: with a model in half precision, a loss is a NotImplementedError;
- one word a class for grounding_dino, which makes its label maps unit matrices;
- one group of queries for lw_detr and rf_detr;
- "loss_class" for "loss_ce"; the cardinality error is left out;
- NotImplementedError for an alpha, a gamma or an epsilon of the GIoU that a family does not have.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int
    from torch import Tensor

USUAL = {"alpha": 0.25, "gamma": 2.0, "giou_eps": 0.0}


@dataclass(frozen=True)
class Matched:
    """What a family has of chapter 15.

    Attributes:
        file: where its matcher and its criterion are.
        prefix: how the names of both begin.
        class_loss: value of the variant `class_loss`; "any" where the matcher knows both costs.
        criterion: whether its class loss is one of the spec's.
    """

    file: str
    prefix: str
    class_loss: str
    criterion: bool = True


_DETR = Matched("loss_for_object_detection", "", "cross_entropy")
_DEFORMABLE = Matched("loss_deformable_detr", "DeformableDetr", "focal")
_GROUNDING = Matched("loss_grounding_dino", "GroundingDino", "focal")
_GROUPS = Matched("loss_lw_detr", "LwDetr", "focal", criterion=False)
_REAL_TIME = Matched("loss_rt_detr", "RTDetr", "any", criterion=False)

FAMILIES: dict[str, Matched] = {
    "detr": _DETR,
    "table_transformer": _DETR,
    "yolos": _DETR,
    "deformable_detr": _DEFORMABLE,
    "conditional_detr": _DEFORMABLE,
    "dab_detr": _DEFORMABLE,
    "grounding_dino": _GROUNDING,
    "mm_grounding_dino": _GROUNDING,
    "lw_detr": _GROUPS,
    "rf_detr": _GROUPS,
    "rt_detr": _REAL_TIME,
    "rt_detr_v2": _REAL_TIME,
    "d_fine": _REAL_TIME,
    "deimv2": _REAL_TIME,
}


def provides(family: str) -> dict[str, Callable[..., Any]]:
    """What a family provides of chapter 15, for `Target.provides`."""
    found: dict[str, Callable[..., Any]] = {"hungarian_matching": partial(hungarian_matching, FAMILIES[family])}
    if FAMILIES[family].criterion:
        found["detection_losses"] = partial(detection_losses, FAMILIES[family])
    return found


def variants(family: str) -> dict[str, str]:
    """The variants that belong to `provides(family)`, for `Target.variants`."""
    return {"class_loss": FAMILIES[family].class_loss} | (
        {"loss_sets": "decoder"} if FAMILIES[family].criterion else {}
    )


def hungarian_matching(
    entry: Matched,
    pred_logits: Float[Tensor, "batch query class"],
    pred_boxes: Float[Tensor, "batch query 4"],
    target_labels: Int[Tensor, " box"],
    target_boxes: Float[Tensor, "box 4"],
    target_counts: Int[Tensor, " batch"],
    *,
    class_cost: str = "focal",
    cost_class: float = 2.0,
    cost_bbox: float = 5.0,
    cost_giou: float = 2.0,
    **settings: float,
) -> dict[str, Int[Tensor, " pair"]]:
    """The pairs that the family's matcher finds."""
    import torch

    weights = {"class_cost": cost_class, "bbox_cost": cost_bbox, "giou_cost": cost_giou}
    wide = _wide(entry, pred_logits)
    outputs = _outputs(entry, pred_logits.to(wide), pred_boxes.to(wide))
    targets = _targets(target_labels, target_boxes, target_counts, entry)
    groups = (1,) if entry is _GROUPS else ()
    pairs = _matcher(entry, weights, class_cost, settings)(outputs, targets, *groups)
    images = [torch.full_like(query, image) for image, (query, _) in enumerate(pairs)]
    queries, boxes = (torch.cat(each) for each in zip(*pairs, strict=True))
    return {"image": torch.cat(images), "query": queries, "target": boxes}


def detection_losses(
    entry: Matched,
    pred_logits: Float[Tensor, "layer batch query class"],
    pred_boxes: Float[Tensor, "layer batch query 4"],
    target_labels: Int[Tensor, " box"],
    target_boxes: Float[Tensor, "box 4"],
    target_counts: Int[Tensor, " batch"],
    *encoder_and_denoising: Tensor,
    class_loss: str = "focal",
    no_object_weight: float = 0.1,
    cost_class: float = 2.0,
    cost_bbox: float = 5.0,
    cost_giou: float = 2.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
    giou_eps: float = 0.0,
    **fixed: Any,
) -> dict[str, Float[Tensor, ""]]:
    """The losses of the family's criterion, under the spec's names.

    Raises:
        NotImplementedError: there are other predictions than the decoder's.
    """
    if encoder_and_denoising or set(fixed) & {"enc_logits", "dn_logits"}:
        raise NotImplementedError("the criterion takes decoder layers alone")
    weights = {"class_cost": cost_class, "bbox_cost": cost_bbox, "giou_cost": cost_giou}
    class_cost = "focal" if class_loss == "focal" else "softmax"
    matcher = _matcher(entry, weights, class_cost, {"alpha": alpha, "gamma": gamma, "giou_eps": giou_eps})
    source, losses = _source(entry), ["labels", "boxes", "cardinality"]
    kind = getattr(source, f"{entry.prefix}ImageLoss")
    if entry is _DETR:
        criterion = kind(matcher, pred_logits.shape[-1] - 1, no_object_weight, losses)
    elif entry is _DEFORMABLE:
        criterion = kind(matcher, pred_logits.shape[-1], alpha, losses)
    else:
        criterion = kind(matcher, alpha, losses)
    wide, targets = _wide(entry, pred_logits), _targets(target_labels, target_boxes, target_counts, entry)
    *earlier, last = (_outputs(entry, *layer) for layer in zip(pred_logits.to(wide), pred_boxes.to(wide), strict=True))
    found = criterion.to(wide)(last | {"auxiliary_outputs": earlier}, targets)
    return {
        name.replace("loss_ce", "loss_class"): loss.to(pred_logits.dtype)
        for name, loss in found.items()
        if not name.startswith("cardinality")
    }


def _wide(entry: Matched, predictions: Tensor) -> torch.dtype:
    """The dtype that the family's matcher can be called with."""
    import torch

    return predictions.dtype if entry is _GROUPS else torch.promote_types(predictions.dtype, torch.float32)


def _targets(labels: Tensor, boxes: Tensor, counts: Tensor, entry: Matched) -> list[dict[str, Tensor]]:
    sizes = counts.tolist()
    cut = zip(labels.split(sizes), boxes.to(_wide(entry, boxes)).split(sizes), strict=True)
    return [{"class_labels": own_labels, "boxes": own_boxes} for own_labels, own_boxes in cut]


def _outputs(entry: Matched, logits: Tensor, boxes: Tensor) -> dict[str, Any]:
    import torch

    outputs: dict[str, Any] = {"logits": logits, "pred_boxes": boxes}
    if entry is _GROUNDING:
        words = torch.eye(logits.shape[-1], dtype=logits.dtype)
        outputs |= {"label_maps": (words,) * len(logits), "text_mask": torch.ones_like(logits, dtype=torch.bool)}
    return outputs


def _matcher(entry: Matched, weights: dict[str, float], class_cost: str, settings: dict[str, float]) -> Any:
    kind = getattr(_source(entry), f"{entry.prefix}HungarianMatcher")
    asked = USUAL | settings
    if asked["giou_eps"]:
        raise NotImplementedError(
            f"nothing is added to the denominators of the GIoU, {asked['giou_eps']} was asked for"
        )
    if entry is _REAL_TIME:
        config = {f"matcher_{name}": weight for name, weight in weights.items()}
        config |= {"matcher_alpha": asked["alpha"], "matcher_gamma": asked["gamma"]}
        return kind(SimpleNamespace(**config, use_focal_loss=class_cost == "focal"))
    if (asked["alpha"], asked["gamma"]) != (USUAL["alpha"], USUAL["gamma"]):
        raise NotImplementedError(f"alpha and gamma of the cost are fixed, {asked} was asked for")
    return kind(**weights)


def _source(entry: Matched) -> Any:
    return importlib.import_module(f"transformers.loss.{entry.file}")
