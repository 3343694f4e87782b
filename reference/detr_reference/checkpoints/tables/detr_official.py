"""facebookresearch/detr (detr-r50-e632da11.pth and its like) under the reference's names.

Source: facebookresearch/detr, models/detr.py and models/transformer.py. Proven by equal outputs: spec chapter 20.
"""

from __future__ import annotations

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables.official_names import (
    DECODER,
    ENCODER,
    attention_rows,
    backbone_rows,
    feed_forward_rows,
)
from detr_reference.checkpoints.tables.resnet_names import COUNTERS

TABLE = NameTable(
    [
        *backbone_rows(),
        ("input_proj.{p}", "input_proj.{p}"),
        ("query_embed.weight", "query_embed.weight"),
        *attention_rows(f"{ENCODER}.self_attn", f"{ENCODER}.attentions.0"),
        (f"{ENCODER}.norm1.{{p}}", f"{ENCODER}.norms.0.{{p}}"),
        *feed_forward_rows(ENCODER),
        (f"{ENCODER}.norm2.{{p}}", f"{ENCODER}.norms.1.{{p}}"),
        *attention_rows(f"{DECODER}.self_attn", f"{DECODER}.attentions.0"),
        (f"{DECODER}.norm1.{{p}}", f"{DECODER}.norms.0.{{p}}"),
        *attention_rows(f"{DECODER}.multihead_attn", f"{DECODER}.attentions.1"),
        (f"{DECODER}.norm2.{{p}}", f"{DECODER}.norms.1.{{p}}"),
        *feed_forward_rows(DECODER),
        (f"{DECODER}.norm3.{{p}}", f"{DECODER}.norms.2.{{p}}"),
        ("transformer.decoder.norm.{p}", "transformer.decoder.post_norm_layer.{p}"),
        ("class_embed.{p}", "class_embed.{p}"),
        ("bbox_embed.layers.{n}.{p}", "bbox_embed.layers.{n}.{p}"),
    ],
    unused=[COUNTERS],
)
