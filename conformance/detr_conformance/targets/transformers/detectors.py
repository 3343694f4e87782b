"""Whole detectors of Hugging Face transformers, as `detr` and `deformable_detr`. Read in transformers 5.23.

| family | operation | forms |
|---|---|---|
| detr | detr | DetrForObjectDetection |
| deformable_detr | deformable_detr | DeformableDetrForObjectDetection: plain, with_box_refine, two_stage |

No family is `dino`, and no other one is either of these. What else they are, and which parts of them are operations of
chapters 11 to 16 all the same, by `queries`, `denoising` and `overlap`:

| families | as models | parts |
|---|---|---|
| conditional_detr, dab_detr | attention to content and place apart | refinement, GIoU, focal loss, detections* |
| table_transformer, yolos | pre-norm layers; a ViT | GIoU, detections |
| rt_detr, rt_detr_v2, d_fine, deimv2 | hybrid encoder | refinement, denoising, GIoU, detections* |
| grounding_dino, mm_grounding_dino | text | ratios, references, proposals, GIoU, focal loss |
| lw_detr, rf_detr | a ViT, groups of queries | ratios, GIoU, detections* |

(*: conditional_detr; rt_detr and deimv2; lw_detr.) None has a `dino_decoder`: rt_detr and its successors embed boxes
without sines, grounding_dino reads text between self- and cross-attention, and neither looks forward twice.

What the adapters add, so that no verdict is about it:

- a ResNet of transformers, made from sizes, for the one of timm that the published weights have. It has no dilation:
  NotImplementedError for `backbone_dilation`;
- the gradients of stages 2 to 4. transformers freezes the *whole* of its own ResNet, for want of an "s": it looks for
  "stage.1" in names that have "stages.1" (modeling_detr.py:277). Of timm's it trains what it should;
- the predictions of earlier layers. DETR's come from hooks, since its option for them, `auxiliary_loss`, feeds the
  normed output of a layer to the next one (modeling_detr.py:1096, `test_first_divergence.py`); Deformable DETR's are
  given to its loss function, in place of which the adapter has one that keeps them;
- `dropout` as the rate of attention weights and hidden channels, which have rates of their own;
- group norms of `neck_groups` groups, where the number 32 stands in the code (modeling_deformable_detr.py:1169);
- heads of one Deformable DETR as one module where its own are tied, and class heads that are not tied where there is
  box refinement. A new model with `with_box_refine` alone ties them; one that is loaded from a file whose heads differ
  does not (modeling_utils.py:2571);
- the refusal of a mask that is not boolean, or not of the images' shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detr_reference.detectors.config import DeformableDETRConfig, DETRConfig

FAMILIES = ("detr", "deformable_detr")

# Stage of the suite -> where transformers has it; `model` is DetrModel or DeformableDetrModel.
_BOTH = {
    "backbone": "detector.model.backbone",
    "positions": "detector.model.encoder.layers.0>spatial_position_embeddings",
    "encoder.{i}": "detector.model.encoder.layers.{i}",
    "decoder.{i}": "detector.model.decoder.layers.{i}",
}
# Parts of a layer, by what the norm behind each is given.
_SELF = {"self_attention": "self_attn_layer_norm>input", "norm_0": "self_attn_layer_norm"}
_CROSS = {"cross_attention": "encoder_attn_layer_norm>input", "norm_1": "encoder_attn_layer_norm"}


def _parts(stack: str, last: int, **others: str) -> dict[str, str]:
    inner = {
        **_SELF,
        **(_CROSS if last == 2 else {}),
        "ffn": "final_layer_norm>input",
        f"norm_{last}": "final_layer_norm",
    }
    return {
        f"{stack}.{{i}}.{part}": f"detector.model.{stack}.layers.{{i}}.{path}"
        for part, path in (inner | others).items()
    }


def _sampling(attention: str) -> dict[str, str]:
    return {name: f"{attention}.attn>{name}" for name in ("sampling_locations", "attention_weights")}


STAGES: dict[str, dict[str, str]] = {
    "detr": {
        **_parts("encoder", 1),
        **_parts("decoder", 2),
        **_BOTH,
        "input_proj": "detector.model.input_projection",
        "final_norm": "detector.model.decoder.layernorm",
        "class_head": "detector.class_labels_classifier",
        "box_head": "detector.bbox_predictor",
    },
    "deformable_detr": {
        **_parts("encoder", 1, **_sampling("self_attn")),
        **_parts("decoder", 2, **_sampling("encoder_attn")),
        **_BOTH,
        "selection": "detector.model.decoder>reference_points",
        "neck": "detector.model.encoder.layers.0>hidden_states",
        "encoder_references": "detector.model.encoder.layers.0>reference_points",
        "first_stage_memory": "detector.model.enc_output",
        "first_stage": "detector.model.enc_output_norm",
        "query_position": "detector.model.decoder.layers.0>object_queries_position_embeddings",
        "query_content": "detector.model.decoder.layers.0>hidden_states",
        "decoder_references.{i}": "detector.model.decoder.layers.{i}>reference_points",
        "class_head.{i}": "class_heads.{i}",
        "box_head.{i}": "box_heads.{i}",
    },
}


def provides(family: str) -> dict[str, Callable[..., nn.Module]]:
    """The whole model of a family, by operation id."""
    factory: Callable[..., nn.Module] = detr if family == "detr" else deformable_detr
    return {family: factory}


def variants(family: str) -> dict[str, str]:
    """The ResNet of transformers has no dilation."""
    return {"dilation": "none"} if family == "detr" else {}


def stages(family: str) -> dict[str, str]:
    """Where the family's model has the stages of the suite, for `Target.stages`."""
    return STAGES[family]


def detr(config: DETRConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """DetrForObjectDetection with these parameters; None leaves them as transformers initialises them.

    Raises:
        NotImplementedError: transformers has no dilated ResNet.
    """
    from detr_conformance.targets.transformers.detector_adapters import AdaptedDetr, loaded

    if config.backbone_dilation:
        raise NotImplementedError("the ResNet of transformers has no dilation")
    sizes = _sizes(config) | {"backbone_config": _resnet(config, (4,)), "num_queries": config.num_queries}
    return loaded(AdaptedDetr(sizes), config.backbone_frozen_stages, state_dict)


def deformable_detr(config: DeformableDETRConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """DeformableDetrForObjectDetection, likewise."""
    from detr_conformance.targets.transformers.detector_adapters import AdaptedDeformableDetr, loaded

    sizes = _sizes(config) | {
        "backbone_config": _resnet(config, config.backbone_stages),
        "num_queries": config.num_queries,
        "two_stage_num_proposals": config.num_queries,
        "with_box_refine": config.box_refinement,
        "two_stage": config.two_stage,
        "num_feature_levels": config.num_levels,
        "encoder_n_points": config.num_points,
        "decoder_n_points": config.num_points,
    }
    return loaded(AdaptedDeformableDetr(sizes, config.neck_groups), config.backbone_frozen_stages, state_dict)


def _sizes(config: DETRConfig | DeformableDETRConfig) -> dict[str, Any]:
    """What both configurations of transformers call by the same names."""
    return {
        "use_timm_backbone": False,
        "d_model": config.embed_dim,
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_decoder_layers,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": config.feedforward_dim,
        "decoder_ffn_dim": config.feedforward_dim,
        "dropout": config.dropout,
        "attention_dropout": config.dropout,
        "activation_dropout": config.dropout,
        "num_labels": config.num_classes,
    }


def _resnet(config: DETRConfig | DeformableDETRConfig, stages: tuple[int, ...]) -> Any:
    from transformers import ResNetConfig

    width = config.backbone_width
    sizes: dict[str, Any] = {
        "embedding_size": width,
        "hidden_sizes": [4 * width * 2**stage for stage in range(4)],
        "depths": list(config.backbone_blocks),
        "out_features": [f"stage{stage}" for stage in stages],
    }
    return ResNetConfig(**sizes)
