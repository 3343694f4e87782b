"""The steps from memory to queries in Hugging Face transformers, by model family. Read in transformers 5.23.

| families | ratios | references | proposals | refinement |
|---|---|---|---|---|
| deformable_detr | yes | yes | yes | yes |
| grounding_dino, mm_grounding_dino | counts in the dtype asked for | yes | yes | |
| mask2former, oneformer | masks of the other polarity | yes | | |
| lw_detr, rf_detr | yes | | | |
| conditional_detr, dab_detr, omdet_turbo | | | | yes |
| rt_detr, rt_detr_v2, d_fine, deimv2, pp_doclayout_v2, _v3 and _v4 | | | | yes |

What is missing is another operation, or cannot be called by itself. lw_detr and rf_detr propose boxes, not logits, with
zeros where they are invalid, and refine by scaling. The anchors of rt_detr, its successors and omdet_turbo know no
padding. grounding_dino refines, by torch.special.logit, in the middle of its decoder, and all families select queries
in the middle of their models.

What the adapters add:
- `~` to the mask of a level where theirs is True for valid cells, and with it the refusal of a mask that is not bool;
- two identities in place of the linear layer and the norm that follow on the memory of the proposals;
- lists of sizes in place of a tensor;
- the sum and the sigmoid of a refinement, and the refusal of references that are neither points nor boxes, which stand
  in the forward of the decoders; here as in deformable_detr.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from detr_conformance.target import TargetError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Where a family keeps these steps, "" where it has none.

    Attributes:
        ratios: the class with get_valid_ratio.
        true_is_valid: the polarity of its mask.
        references: the class with get_reference_points.
        proposals: the method of the class with get_valid_ratio that makes proposals.
        logit: the function that takes a reference back before the sigmoid.
    """

    ratios: str = ""
    true_is_valid: bool = True
    references: str = ""
    proposals: str = ""
    logit: str = ""


LOGIT = Selection(logit="inverse_sigmoid")
FAMILIES: dict[str, Selection] = {
    "deformable_detr": Selection(
        "DeformableDetrModel",
        references="DeformableDetrEncoder",
        proposals="gen_encoder_output_proposals",
        logit="inverse_sigmoid",
    ),
    "grounding_dino": Selection(
        "GroundingDinoModel", references="GroundingDinoEncoder", proposals="generate_encoder_output_proposals"
    ),
    "mm_grounding_dino": Selection(
        "MMGroundingDinoModel", references="MMGroundingDinoEncoder", proposals="generate_encoder_output_proposals"
    ),
    "mask2former": Selection(
        "Mask2FormerPixelDecoder", true_is_valid=False, references="Mask2FormerPixelDecoderEncoderOnly"
    ),
    "oneformer": Selection("OneFormerPixelDecoder", true_is_valid=False, references="OneFormerPixelDecoderEncoderOnly"),
    "lw_detr": Selection("LwDetrModel"),
    "rf_detr": Selection("RfDetrModel"),
    "conditional_detr": LOGIT,
    "d_fine": LOGIT,
    "dab_detr": LOGIT,
    "deimv2": LOGIT,
    "omdet_turbo": Selection(logit="_inverse_sigmoid"),
    "pp_doclayout_v2": LOGIT,
    "pp_doclayout_v3": LOGIT,
    "pp_doclayout_v4": LOGIT,
    "rt_detr": LOGIT,
    "rt_detr_v2": LOGIT,
}


def provides(family: str) -> dict[str, Callable[..., Any]]:
    """What a family provides of chapter 11, for `Target.provides`."""
    entry = FAMILIES[family]
    steps: dict[str, tuple[str, Callable[..., Any]]] = {
        "valid_ratios": (entry.ratios, ratios),
        "encoder_reference_points": (entry.references, references),
        "encoder_proposals": (entry.proposals, proposals),
        "refine_boxes": (entry.logit, refinement),
    }
    return {operation: partial(adapter, family) for operation, (place, adapter) in steps.items() if place}


def variants(family: str) -> dict[str, str]:
    """The variants that belong to `provides(family)`, for `Target.variants`: none."""
    return {}


def ratios(family: str, mask_l: Bool[Tensor, "batch height width"], *, dtype: torch.dtype) -> Float[Tensor, "batch 2"]:
    """The family's valid ratios of a level."""
    import torch

    if mask_l.dtype != torch.bool:
        raise TypeError(f"mask_l must be bool (True is padding), got {mask_l.dtype}")
    entry = FAMILIES[family]
    mask = ~mask_l if entry.true_is_valid else mask_l
    return getattr(_source(family), entry.ratios).get_valid_ratio(None, mask, dtype)


def references(
    family: str, spatial_shapes: Int[Tensor, "level 2"], valid_ratios: Float[Tensor, "batch level 2"]
) -> Float[Tensor, "batch cell level 2"]:
    """The family's reference points of the encoder."""
    kind = getattr(_source(family), FAMILIES[family].references)
    return kind.get_reference_points(spatial_shapes.tolist(), valid_ratios, valid_ratios.device)


def proposals(
    family: str,
    memory: Float[Tensor, "batch cell embed"],
    memory_key_padding_mask: Bool[Tensor, "batch cell"],
    spatial_shapes: Int[Tensor, "level 2"],
) -> dict[str, Tensor]:
    """The family's proposals, without what it computes of the zeroed memory."""
    entry = FAMILIES[family]
    make = getattr(getattr(_source(family), entry.ratios), entry.proposals)
    model = SimpleNamespace(enc_output=lambda kept: kept, enc_output_norm=lambda kept: kept)
    kept, boxes = make(model, memory, memory_key_padding_mask, spatial_shapes.tolist())
    return {"memory": kept, "proposals": boxes}


def refinement(
    family: str,
    delta: Float[Tensor, "*query 4"],
    reference: Float[Tensor, "*query coordinate"],
    *,
    eps: float | None = None,
) -> Float[Tensor, "*query 4"]:
    """The family's logit of the reference, with the correction added as in its decoder."""
    import torch

    logit = getattr(_source(family), FAMILIES[family].logit)
    before = logit(reference) if eps is None else logit(reference, eps)
    if reference.shape[-1] == 4:
        return (delta + before).sigmoid()
    if reference.shape[-1] == 2:
        return torch.cat((delta[..., :2] + before, delta[..., 2:]), -1).sigmoid()
    raise ValueError(f"reference must be (..., 2) or (..., 4), got {tuple(reference.shape)}")


def _source(family: str) -> Any:
    try:
        return importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    except ModuleNotFoundError as error:
        raise TargetError(f"this version of transformers has no {family}: {error}") from error
