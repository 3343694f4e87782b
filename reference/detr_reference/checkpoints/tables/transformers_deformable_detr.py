"""transformers' DeformableDetrForObjectDetection (SenseTime/deformable-detr and its like) under the reference's names.

With box refinement the decoder holds the box heads too, with two stages also the class heads: copies, which must be
equal. Source: transformers, models/deformable_detr/modeling_deformable_detr.py. Proven by equal outputs: chapter 20.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.renaming import original_names, reference_names
from detr_reference.checkpoints.tables import neck
from detr_reference.checkpoints.tables import transformers_names as shared
from detr_reference.checkpoints.tables.official_names import deformable_attention_rows
from detr_reference.checkpoints.tables.resnet_names import COUNTERS

ENCODER, OUR_ENCODER = "model.encoder.layers.{i}", "transformer.encoder.layers.{i}"
DECODER, OUR_DECODER = "model.decoder.layers.{i}", "transformer.decoder.layers.{i}"

TABLE = NameTable(
    [
        *shared.backbone_rows(),
        *neck.numbered_rows("model.input_proj"),
        ("model.level_embed", "transformer.level_embeds"),
        ("model.query_position_embeddings.weight", "query_embedding.weight"),
        ("model.reference_points.{p}", "transformer.reference_points.{p}"),
        *deformable_attention_rows(f"{ENCODER}.self_attn", f"{OUR_ENCODER}.attentions.0"),
        (f"{ENCODER}.self_attn_layer_norm.{{p}}", f"{OUR_ENCODER}.norms.0.{{p}}"),
        *shared.feed_forward_rows(ENCODER, OUR_ENCODER),
        (f"{ENCODER}.final_layer_norm.{{p}}", f"{OUR_ENCODER}.norms.1.{{p}}"),
        *shared.attention_rows(f"{DECODER}.self_attn", f"{OUR_DECODER}.attentions.0"),
        (f"{DECODER}.self_attn_layer_norm.{{p}}", f"{OUR_DECODER}.norms.0.{{p}}"),
        *deformable_attention_rows(f"{DECODER}.encoder_attn", f"{OUR_DECODER}.attentions.1"),
        (f"{DECODER}.encoder_attn_layer_norm.{{p}}", f"{OUR_DECODER}.norms.1.{{p}}"),
        *shared.feed_forward_rows(DECODER, OUR_DECODER),
        (f"{DECODER}.final_layer_norm.{{p}}", f"{OUR_DECODER}.norms.2.{{p}}"),
        ("model.enc_output.{p}", "transformer.enc_output.{p}"),
        ("model.enc_output_norm.{p}", "transformer.enc_output_norm.{p}"),
        ("model.pos_trans.{p}", "transformer.pos_trans.{p}"),
        ("model.pos_trans_norm.{p}", "transformer.pos_trans_norm.{p}"),
        ("[model.decoder.|]class_embed.{i}.{p}", "class_embed.{i}.{p}"),
        ("[model.decoder.|]bbox_embed.{i}.layers.{n}.{p}", "bbox_embed.{i}.layers.{n}.{p}"),
    ],
    unused=[COUNTERS],
)


def renamed(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' parameters under the reference's names, with projections joined.

    Where a model shares its heads among layers, every layer's head is given; the loader leaves the first one.

    Raises:
        CheckpointError: names are unknown, or copies of a head differ.
    """
    return reference_names(TABLE, state_dict)


def original(state_dict: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The reference's parameters under these names of transformers, in either set: the inverse of `renamed`.

    Args:
        state_dict: the reference's. A head that it shares among layers is given for each.
        names: the names wanted, as a module's `state_dict()` has them; names that hold no parameter are left out.

    Raises:
        CheckpointError: names are unknown, or stand for parameters that the reference's state dict lacks.
    """
    return original_names(TABLE, state_dict, names)
