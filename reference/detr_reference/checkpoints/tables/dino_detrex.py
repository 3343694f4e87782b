"""detrex's DINO (dino_r50_4scale_12ep.pth and its like) under the reference's names.

The reference has detrex's names but for the backbone, and keeps torch's attention without a module `attn` around it.
Heads are in a file twice. Source: detrex, projects/dino/modeling and detrex/layers. Proven by equal outputs: spec
chapter 20.
"""

from __future__ import annotations

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables import resnet_names
from detr_reference.checkpoints.tables.official_names import (
    DECODER,
    ENCODER,
    attention_rows,
    deformable_attention_rows,
    head_rows,
)

SAME = (
    "neck.convs.{i}.conv.{p}",
    "neck.convs.{i}.norm.{p}",
    "neck.extra_convs.{i}.conv.{p}",
    "neck.extra_convs.{i}.norm.{p}",
    "label_enc.weight",
    "transformer.level_embeds",
    "transformer.tgt_embed.weight",
    f"{ENCODER}.norms.{{n}}.{{p}}",
    f"{DECODER}.norms.{{n}}.{{p}}",
    f"{ENCODER}.ffns.0.layers.0.0.{{p}}",
    f"{DECODER}.ffns.0.layers.0.0.{{p}}",
    f"{ENCODER}.ffns.0.layers.1.{{p}}",
    f"{DECODER}.ffns.0.layers.1.{{p}}",
    "transformer.decoder.norm.{p}",
    "transformer.decoder.ref_point_head.layers.{n}.{p}",
    "transformer.enc_output.{p}",
    "transformer.enc_output_norm.{p}",
)

TABLE = NameTable(
    [
        *resnet_names.detrex_rows("backbone.", "backbone."),
        *((pattern, pattern) for pattern in SAME),
        *deformable_attention_rows(f"{ENCODER}.attentions.0", f"{ENCODER}.attentions.0"),
        *attention_rows(f"{DECODER}.attentions.0.attn", f"{DECODER}.attentions.0"),
        *deformable_attention_rows(f"{DECODER}.attentions.1", f"{DECODER}.attentions.1"),
        *head_rows(),
    ],
    unused=[resnet_names.COUNTERS],
)
