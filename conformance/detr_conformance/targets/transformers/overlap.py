"""Overlap, focal loss and post-processing of Hugging Face transformers, by model family. Read in transformers 5.23.

One generalized IoU, of loss_for_object_detection.py, serves the matchers and losses of all families. There are two
focal losses of one text, `sigmoid_focal_loss`:

| families | file | returns |
|---|---|---|
| deformable_detr, conditional_detr, dab_detr | loss_for_object_detection.py | a mean; the loss multiplies |
| grounding_dino, mm_grounding_dino | loss_grounding_dino.py | the sum |

Post-processing is `post_process_object_detection` of the image processor; those built on PIL do without torchvision.

| families | processor | detections |
|---|---|---|
| detr, table_transformer | detr | softmax |
| yolos | yolos | softmax, the same text |
| conditional_detr | conditional_detr | sigmoid, top_k |
| deformable_detr, lw_detr | deformable_detr | sigmoid, top_k |
| rt_detr, deimv2 | rt_detr | sigmoid, as many as there are queries; softmax with use_focal_loss=False |

rt_detr's softmax has a defect (PP-8) and is not claimed, see `provides_softmax`; its processor is claimed for sigmoid
alone. grounding_dino takes one class a query, which is another operation.

What the adapters add:
- the dtype of the boxes to an IoU, which is float32 for half boxes;
- the factor of the number of queries, which the loss of the family has;
- a threshold below all scores, and one tensor of all images' detections; those that are dropped all the same, with a
  score of NaN, come back as NaN;
- NotImplementedError for a number of detections that the family does not offer.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from detr_conformance.target import TargetError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

OBJECT_DETECTION, GROUNDING_DINO = "loss_for_object_detection", "loss_grounding_dino"
BELOW_ALL = -1.0  # a threshold
PROCESSORS = {
    "detr": "DetrImageProcessorPil",
    "yolos": "YolosImageProcessorPil",
    "conditional_detr": "ConditionalDetrImageProcessorPil",
    "deformable_detr": "DeformableDetrImageProcessorPil",
    "rt_detr": "RTDetrImageProcessorPil",
}


@dataclass(frozen=True)
class Overlap:
    """What a family has of chapters 14 and 16.

    Attributes:
        focal: the file of its focal loss, or "".
        processor: the family whose image processor it uses, or "".
        scores: "softmax" or "sigmoid" of its post-processing.
    """

    focal: str = ""
    processor: str = ""
    scores: str = "sigmoid"


FAMILIES: dict[str, Overlap] = {
    "detr": Overlap(processor="detr", scores="softmax"),
    "table_transformer": Overlap(processor="detr", scores="softmax"),
    "yolos": Overlap(processor="yolos", scores="softmax"),
    "conditional_detr": Overlap(OBJECT_DETECTION, "conditional_detr"),
    "deformable_detr": Overlap(OBJECT_DETECTION, "deformable_detr"),
    "dab_detr": Overlap(OBJECT_DETECTION),
    "grounding_dino": Overlap(GROUNDING_DINO),
    "mm_grounding_dino": Overlap(GROUNDING_DINO),
    "lw_detr": Overlap(processor="deformable_detr"),
    "rf_detr": Overlap(),
    "rt_detr": Overlap(processor="rt_detr"),
    "rt_detr_v2": Overlap(),
    "d_fine": Overlap(),
    "deimv2": Overlap(processor="rt_detr"),
}


def provides(family: str) -> dict[str, Callable[..., Any]]:
    """What a family provides of chapters 14 and 16, for `Target.provides`."""
    entry = FAMILIES[family]
    found: dict[str, Callable[..., Any]] = {"generalized_box_iou": generalized_box_iou}
    if entry.focal:
        found["sigmoid_focal_loss"] = partial(sigmoid_focal_loss, entry.focal)
    if entry.processor:
        found["postprocess"] = partial(postprocess, entry.processor)
    return found


def provides_softmax() -> dict[str, Callable[..., Any]]:
    """rt_detr's detections of softmax scores, which are not claimed."""
    return {"postprocess": partial(postprocess, "rt_detr")}


def variants(family: str) -> dict[str, str]:
    """The variants that belong to `provides(family)`, for `Target.variants`."""
    entry = FAMILIES[family]
    found = {"postprocess_scores": entry.scores} if entry.processor else {}
    return found | ({"num_select": "queries"} if entry.processor == "rt_detr" else {})


def generalized_box_iou(
    boxes1: Float[Tensor, "one 4"], boxes2: Float[Tensor, "other 4"], *, eps: float = 0.0
) -> Float[Tensor, "one other"]:
    """The library's generalized IoU.

    Raises:
        NotImplementedError: eps is not 0.
    """
    if eps:
        raise NotImplementedError(f"nothing is added to the denominators, {eps} was asked for")
    result: Tensor = _loss(OBJECT_DETECTION).generalized_box_iou(boxes1, boxes2)
    return result.to(boxes1.dtype)


def sigmoid_focal_loss(
    file: str,
    logits: Float[Tensor, "*token classes"],
    targets: Float[Tensor, "*token classes"],
    num_boxes: Float[Tensor, ""],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """The focal loss of a file of the library, with the factor that the loss of its families has."""
    loss: Tensor = _loss(file).sigmoid_focal_loss(logits, targets, num_boxes, alpha=alpha, gamma=gamma)
    return loss * logits.shape[1] if file == OBJECT_DETECTION else loss


def postprocess(
    processor: str,
    pred_logits: Float[Tensor, "batch query classes"],
    pred_boxes: Float[Tensor, "batch query 4"],
    sizes: Int[Tensor, "batch 2"],
    *,
    scores: str = "sigmoid",
    num_select: int = 300,
) -> dict[str, Tensor]:
    """The detections of a family's image processor.

    Raises:
        NotImplementedError: the processor has no such scores or number of detections.
        ValueError: there are no such scores.
    """
    outputs = SimpleNamespace(logits=pred_logits, pred_boxes=pred_boxes)
    settings: dict[str, Any] = {}
    if scores not in ("sigmoid", "softmax"):
        raise ValueError(f"scores must be sigmoid or softmax, got {scores!r}")
    if processor == "rt_detr":
        settings["use_focal_loss"] = scores == "sigmoid"
        if scores == "sigmoid" and num_select != pred_logits.shape[1]:
            raise NotImplementedError(f"{processor} selects {pred_logits.shape[1]} detections, not {num_select}")
    elif (scores == "softmax") != (processor in ("detr", "yolos")):
        raise NotImplementedError(f"{processor} has no {scores} scores")
    elif scores == "sigmoid":
        settings["top_k"] = num_select
    found = _processor(processor).post_process_object_detection(outputs, BELOW_ALL, sizes, **settings)
    return _stacked(found)


def _stacked(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All images in one tensor; behind the detections of one that has fewer NaN, and label 0."""
    import torch

    count = max(len(image["scores"]) for image in found)
    rows = []
    for image in found:
        missing = count - len(image["scores"])
        rows.append(
            {
                "scores": torch.cat((image["scores"], image["scores"].new_full((missing,), torch.nan))),
                "labels": torch.cat((image["labels"], image["labels"].new_zeros(missing))),
                "boxes": torch.cat((image["boxes"], image["boxes"].new_full((missing, 4), torch.nan))),
            }
        )
    return {name: torch.stack([row[name] for row in rows]) for name in ("scores", "labels", "boxes")}


@cache
def _processor(family: str) -> Any:
    return getattr(_module(f"transformers.models.{family}.image_processing_pil_{family}"), PROCESSORS[family])()


def _loss(file: str) -> Any:
    return _module(f"transformers.loss.{file}")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TargetError(f"this version of transformers has no {name}: {error}") from error
