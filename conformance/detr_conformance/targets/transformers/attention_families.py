"""The multi-head attention of Hugging Face transformers, by model family. Read in transformers 5.23.

| group | families | class | what is particular |
|---|---|---|---|
| cross | detr, maskformer | DetrCrossAttention | takes the value and what is added to it for the key |
| three | grounding_dino, mm_grounding_dino, omdet_turbo | ...MultiheadAttention | takes queries, keys and values |
| tokens first | mask2former, oneformer | Mask2FormerAttention | as cross, with tokens before images |
| bare | dab_detr | DabDetrAttention | has no input projections |

Not provided, because they are self-attention alone, and of one tensor: the SelfAttention of detr (beside the class
above), deformable_detr, conditional_detr, rt_detr, rt_detr_v2, d_fine and deimv2, the attention of rf_detr and lw_detr,
and dab_detr's DetrAttention, which raises UnboundLocalError without positions (modeling_dab_detr.py:390). Nor
table_transformer's attention, which takes one mask for all heads (modeling_table_transformer.py:429). Conditional
DETR's decoder projects content and position by Linears of their own, another operation.

What the adapters add, beside the frame of `attention_frame`:

- in the groups cross and "tokens first" the key's position is key + key_pos - value, their key being the value plus a
  position; it is zeros where key and value are one tensor, without which "tokens first" raises UnboundLocalError
  (modeling_mask2former.py:1533);
- q_proj, k_proj and v_proj for dab_detr, whose layers keep them, initialised as its model does any Linear.

The group cross runs, as in its models, by scaled_dot_product_attention.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from detr_conformance.target import TargetError


@dataclass(frozen=True)
class Attention:
    """Where a family keeps its attention.

    Attributes:
        group: the row of the table above.
        name: of the class.
        model: of the class whose models initialise it.
    """

    group: str
    name: str
    model: str


FAMILIES: dict[str, Attention] = {
    "detr": Attention("cross", "DetrCrossAttention", "DetrPreTrainedModel"),
    "maskformer": Attention("cross", "MaskFormerDetrCrossAttention", "MaskFormerDetrPreTrainedModel"),
    "grounding_dino": Attention("three", "GroundingDinoMultiheadAttention", "GroundingDinoPreTrainedModel"),
    "mm_grounding_dino": Attention("three", "MMGroundingDinoMultiheadAttention", "MMGroundingDinoPreTrainedModel"),
    "omdet_turbo": Attention("three", "OmDetTurboMultiheadAttention", "OmDetTurboPreTrainedModel"),
    "mask2former": Attention("tokens first", "Mask2FormerAttention", "Mask2FormerPreTrainedModel"),
    "oneformer": Attention("tokens first", "OneFormerAttention", "OneFormerPreTrainedModel"),
    "dab_detr": Attention("bare", "DabDetrAttention", "DabDetrPreTrainedModel"),
}


def source(family: str) -> ModuleType:
    """The module that holds the family's classes."""
    try:
        return importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    except ModuleNotFoundError as error:
        raise TargetError(f"this version of transformers has no {family}: {error}") from error
