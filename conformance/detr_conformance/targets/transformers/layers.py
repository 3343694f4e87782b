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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detr_reference.feed_forward.feed_forward import FeedForwardConfig
    from detr_reference.feed_forward.mlp import MLPConfig
    from detr_reference.transformer.layer import TransformerLayerConfig


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


def provides(name: str) -> dict[str, Callable[..., nn.Module]]:
    """The operations of a family: factories by operation id."""
    family = FAMILIES[name]
    offered = {
        "encoder_layer": _encoder_layer(name, family.pre_norm) if family.encoder else None,
        "decoder_layer": _decoder_layer(name) if family.decoder else None,
        "feed_forward": _feed_forward(name) if family.network else None,
        "mlp": _mlp(name) if family.head else None,
    }
    return {operation: factory for operation, factory in offered.items() if factory is not None}


def provides_pre_norm(name: str) -> dict[str, Callable[..., nn.Module]]:
    """The pre-norm encoder layer of a family of PRE_NORM_TOO."""
    return {"encoder_layer": _encoder_layer(name, pre_norm=True)}


def variants(name: str, pre_norm: bool = False) -> dict[str, str]:
    """The variants that a target of the family declares."""
    family = FAMILIES[name]
    order = {"operation_order": "pre-norm" if pre_norm or family.pre_norm else "post-norm"}
    return (order if family.encoder or family.decoder else {}) | ({"num_fcs": "2"} if family.network else {})


def _encoder_layer(name: str, pre_norm: bool) -> Callable[..., nn.Module]:
    def encoder_layer(config: TransformerLayerConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.layer_adapters import encoder_layer

        return encoder_layer(name, config, state_dict, pre_norm)

    return encoder_layer


def _decoder_layer(name: str) -> Callable[..., nn.Module]:
    def decoder_layer(config: TransformerLayerConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.layer_adapters import decoder_layer

        return decoder_layer(name, config, state_dict)

    return decoder_layer


def _feed_forward(name: str) -> Callable[..., nn.Module]:
    def feed_forward(config: FeedForwardConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.layer_adapters import feed_forward

        return feed_forward(name, config, state_dict)

    return feed_forward


def _mlp(name: str) -> Callable[..., nn.Module]:
    def mlp(config: MLPConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.layer_adapters import mlp

        return mlp(name, config, state_dict)

    return mlp
