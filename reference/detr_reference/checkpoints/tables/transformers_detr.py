"""transformers' DetrForObjectDetection (facebook/detr-resnet-50 and its like) under the reference's names.

Source: transformers, models/detr/modeling_detr.py. Proven by equal outputs: spec chapter 20.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.renaming import original_names, reference_names
from detr_reference.checkpoints.tables import transformers_names as shared
from detr_reference.checkpoints.tables.resnet_names import COUNTERS

ENCODER, OUR_ENCODER = "model.encoder.layers.{i}", "transformer.encoder.layers.{i}"
DECODER, OUR_DECODER = "model.decoder.layers.{i}", "transformer.decoder.layers.{i}"

TABLE = NameTable(
    [
        *shared.backbone_rows(),
        ("model.input_projection.{p}", "input_proj.{p}"),
        ("model.query_position_embeddings.weight", "query_embed.weight"),
        *shared.attention_rows(f"{ENCODER}.self_attn", f"{OUR_ENCODER}.attentions.0"),
        (f"{ENCODER}.self_attn_layer_norm.{{p}}", f"{OUR_ENCODER}.norms.0.{{p}}"),
        *shared.feed_forward_rows(ENCODER, OUR_ENCODER),
        (f"{ENCODER}.final_layer_norm.{{p}}", f"{OUR_ENCODER}.norms.1.{{p}}"),
        *shared.attention_rows(f"{DECODER}.self_attn", f"{OUR_DECODER}.attentions.0"),
        (f"{DECODER}.self_attn_layer_norm.{{p}}", f"{OUR_DECODER}.norms.0.{{p}}"),
        *shared.attention_rows(f"{DECODER}.encoder_attn", f"{OUR_DECODER}.attentions.1"),
        (f"{DECODER}.encoder_attn_layer_norm.{{p}}", f"{OUR_DECODER}.norms.1.{{p}}"),
        *shared.feed_forward_rows(DECODER, OUR_DECODER),
        (f"{DECODER}.final_layer_norm.{{p}}", f"{OUR_DECODER}.norms.2.{{p}}"),
        ("model.decoder.layernorm.{p}", "transformer.decoder.post_norm_layer.{p}"),
        ("class_labels_classifier.{p}", "class_embed.{p}"),
        ("bbox_predictor.layers.{i}.{p}", "bbox_embed.layers.{i}.{p}"),
    ],
    unused=[COUNTERS],
)


def renamed(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' parameters under the reference's names, with projections joined.

    Raises:
        CheckpointError: names are unknown.
    """
    return reference_names(TABLE, state_dict)


def original(state_dict: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The reference's parameters under these names of transformers, in either set: the inverse of `renamed`.

    Args:
        state_dict: the reference's.
        names: the names wanted, as a module's `state_dict()` has them; names that hold no parameter are left out.

    Raises:
        CheckpointError: names are unknown, or stand for parameters that the reference's state dict lacks.
    """
    return original_names(TABLE, state_dict, names)
