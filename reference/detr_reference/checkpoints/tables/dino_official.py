"""IDEA-Research/DINO (checkpoint0011_4scale.pth and its like) under the reference's names.

All decoder layers share one class and one box head, of which a file holds a copy a layer, twice. Source: IDEA-Research/
DINO, models/dino/dino.py and models/dino/deformable_transformer.py. Proven by equal outputs: spec chapter 20.
"""

from __future__ import annotations

from detr_reference.checkpoints.heads import ENCODER_HEAD
from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables.neck import numbered_rows
from detr_reference.checkpoints.tables.official_names import backbone_rows, deformable_layer_rows, head_rows
from detr_reference.checkpoints.tables.resnet_names import COUNTERS

TABLE = NameTable(
    [
        *backbone_rows(),
        *numbered_rows("input_proj"),
        ("label_enc.weight", "label_enc.weight"),
        ("transformer.level_embed", "transformer.level_embeds"),
        ("transformer.tgt_embed.weight", "transformer.tgt_embed.weight"),
        *deformable_layer_rows(),
        ("transformer.decoder.norm.{p}", "transformer.decoder.norm.{p}"),
        ("transformer.decoder.ref_point_head.layers.{n}.{p}", "transformer.decoder.ref_point_head.layers.{n}.{p}"),
        ("transformer.enc_output.{p}", "transformer.enc_output.{p}"),
        ("transformer.enc_output_norm.{p}", "transformer.enc_output_norm.{p}"),
        *head_rows(),
        ("transformer.enc_out_class_embed.{p}", f"class_embed.{ENCODER_HEAD}.{{p}}"),
        ("transformer.enc_out_bbox_embed.layers.{n}.{p}", f"bbox_embed.{ENCODER_HEAD}.layers.{{n}}.{{p}}"),
    ],
    unused=[COUNTERS],
)
