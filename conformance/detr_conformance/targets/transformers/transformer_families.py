"""The transformer layers, feed-forward networks and prediction heads of Hugging Face transformers.

Read in transformers 5.23. What stands in one row is the same text but for names.

| operation | families | what is particular |
|---|---|---|
| encoder_layer | detr, conditional_detr | post-norm |
| | rt_detr, rt_detr_v2 | post-norm, or pre-norm if `normalize_before` |
| | d_fine, deimv2 | the same, with a network without dropout |
| | dab_detr | post-norm; softmax in float32 |
| | omdet_turbo | post-norm |
| | table_transformer | pre-norm |
| decoder_layer | detr, maskformer | post-norm |
| | table_transformer | pre-norm |
| feed_forward | detr, conditional_detr, deformable_detr, maskformer | two layers |
| | rt_detr, rt_detr_v2 | the same, the activation an argument |
| mlp | all the others, under the name of a prediction head | |

Not here: layers around deformable attention, the decoder layers of Conditional DETR and DAB-DETR (their attention
concatenates content and position), Mask2Former's and OneFormer's (cross-attention first; prediction heads of other
forms).

What the adapters add, so that no verdict is about it:

- masks: boolean ones are joined and made additive, (batch, 1, query, key), with the lowest number of the dtype;
- rates: transformers has one `dropout` for what attentions and networks return, and 0 for hidden channels by default.
  Where the parts keep rates of their own, `proj_drop` and `ffn_drop` are set there; where not, `proj_drop` is set;
- `layer_norm_eps` is set on the norms of the families whose configuration does not have it;
- dab_detr and table_transformer are given positions of zero where a call has none: theirs raise UnboundLocalError
  (DetrAttention.forward and TableTransformerAttention.forward name the value before positions only if there are any);
- `feed_forward`: the identity, which stands in the layer there, and its absence.

The attention runs as in their models, by scaled_dot_product_attention where the family can.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What of a model family is an operation here.

    Attributes:
        prefix: how its class names begin.
        encoder, decoder: whether its layers are those of the chapter.
        network: its feed-forward network, by the rest of the class name.
        head: its prediction head, likewise.
        pre_norm: whether its layers are pre-norm.
    """

    prefix: str
    encoder: bool = False
    decoder: bool = False
    network: str | None = None
    head: str | None = "MLPPredictionHead"
    pre_norm: bool = False


FAMILIES: dict[str, Family] = {
    "detr": Family("Detr", encoder=True, decoder=True, network="MLP"),
    "conditional_detr": Family("ConditionalDetr", encoder=True, network="MLP"),
    "dab_detr": Family("DabDetr", encoder=True, head="MLP"),
    "table_transformer": Family("TableTransformer", encoder=True, decoder=True, pre_norm=True),
    "maskformer": Family("MaskFormerDetr", decoder=True, network="MLP", head=None),
    "omdet_turbo": Family("OmDetTurbo", encoder=True, head="MLP"),
    "rt_detr": Family("RTDetr", encoder=True, network="MLP"),
    "rt_detr_v2": Family("RTDetrV2", encoder=True, network="MLP"),
    "d_fine": Family("DFine", encoder=True),
    "deimv2": Family("Deimv2", encoder=True, head="MLP"),
    "deformable_detr": Family("DeformableDetr", network="MLP"),
    "grounding_dino": Family("GroundingDino"),
    "mm_grounding_dino": Family("MMGroundingDino"),
    "lw_detr": Family("LwDetr"),
    "rf_detr": Family("RfDetr"),
    "yolos": Family("Yolos"),
    "pp_doclayout_v2": Family("PPDocLayoutV2"),
    "pp_doclayout_v3": Family("PPDocLayoutV3"),
    "pp_doclayout_v4": Family("PPDocLayoutV4"),
}
# Families whose encoder layer is pre-norm on request. No targets: TL-3 refuses all four, and with it nearly everything.
PRE_NORM_TOO = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")
