"""fundamentalvision/Deformable-DETR (plain, with box refinement, two-stage) under the reference's names.

Source: fundamentalvision/Deformable-DETR, models/deformable_detr.py and models/deformable_transformer.py. Proven by
equal outputs: spec chapter 20.
"""

from __future__ import annotations

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables.neck import numbered_rows
from detr_reference.checkpoints.tables.official_names import (
    COUNTED_OPERATIONS,
    backbone_rows,
    deformable_layer_rows,
    head_rows,
)
from detr_reference.checkpoints.tables.resnet_names import COUNTERS

TABLE = NameTable(
    [
        *backbone_rows(),
        *numbered_rows("input_proj"),
        ("query_embed.weight", "query_embedding.weight"),
        ("transformer.level_embed", "transformer.level_embeds"),
        ("transformer.reference_points.{p}", "transformer.reference_points.{p}"),
        *deformable_layer_rows(),
        ("transformer.enc_output.{p}", "transformer.enc_output.{p}"),
        ("transformer.enc_output_norm.{p}", "transformer.enc_output_norm.{p}"),
        ("transformer.pos_trans.{p}", "transformer.pos_trans.{p}"),
        ("transformer.pos_trans_norm.{p}", "transformer.pos_trans_norm.{p}"),
        *head_rows(),
    ],
    unused=[COUNTERS, COUNTED_OPERATIONS],
)
