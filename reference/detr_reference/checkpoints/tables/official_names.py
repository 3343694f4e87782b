"""Rows for what the official files have in common, which all go back to DETR's names, and detrex's own layers.

Source: facebookresearch/detr, models/transformer.py and models/backbone.py; fundamentalvision/Deformable-DETR,
models/deformable_transformer.py; IDEA-Research/DINO, models/dino/deformable_transformer.py.
"""

from __future__ import annotations

from detr_reference.checkpoints.names import Row
from detr_reference.checkpoints.tables import resnet_names

ENCODER = "transformer.encoder.layers.{i}"
DECODER = "transformer.decoder.layers.{i}"

# What a tool that counts operations left in the modules of the Deformable DETR that was saved.
COUNTED_OPERATIONS = r"(.*\.)?total_(params|ops)"


def backbone_rows() -> list[Row]:
    """torchvision's names, behind the joiner of backbone and position encoding and the getter of its layers."""
    return resnet_names.torchvision_rows("backbone.0.body.", "backbone.")


def attention_rows(theirs: str, ours: str) -> list[Row]:
    """A multi-head attention of torch, whose names the reference has too."""
    return [
        (f"{theirs}.in_proj_{{p}}", f"{ours}.in_proj_{{p}}"),
        (f"{theirs}.out_proj.{{p}}", f"{ours}.out_proj.{{p}}"),
    ]


def deformable_attention_rows(theirs: str, ours: str) -> list[Row]:
    """A deformable attention: the same four projections everywhere."""
    projections = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    return [(f"{theirs}.{projection}.{{p}}", f"{ours}.{projection}.{{p}}") for projection in projections]


def feed_forward_rows(layer: str) -> list[Row]:
    """The two linear layers of a layer's feed-forward network."""
    return [
        (f"{layer}.linear1.{{p}}", f"{layer}.ffns.0.layers.0.0.{{p}}"),
        (f"{layer}.linear2.{{p}}", f"{layer}.ffns.0.layers.1.{{p}}"),
    ]


def deformable_layer_rows() -> list[Row]:
    """Encoder and decoder of Deformable DETR and DINO.

    The norms of a decoder layer are numbered as its modules are defined, not as they run: norm1 follows the deformable
    attention, which runs second.
    """
    return [
        *deformable_attention_rows(f"{ENCODER}.self_attn", f"{ENCODER}.attentions.0"),
        (f"{ENCODER}.norm1.{{p}}", f"{ENCODER}.norms.0.{{p}}"),
        *feed_forward_rows(ENCODER),
        (f"{ENCODER}.norm2.{{p}}", f"{ENCODER}.norms.1.{{p}}"),
        *attention_rows(f"{DECODER}.self_attn", f"{DECODER}.attentions.0"),
        (f"{DECODER}.norm2.{{p}}", f"{DECODER}.norms.0.{{p}}"),
        *deformable_attention_rows(f"{DECODER}.cross_attn", f"{DECODER}.attentions.1"),
        (f"{DECODER}.norm1.{{p}}", f"{DECODER}.norms.1.{{p}}"),
        *feed_forward_rows(DECODER),
        (f"{DECODER}.norm3.{{p}}", f"{DECODER}.norms.2.{{p}}"),
    ]


def head_rows() -> list[Row]:
    """Heads of each layer, and the copies that the decoder holds of them."""
    return [
        ("[transformer.decoder.|]class_embed.{i}.{p}", "class_embed.{i}.{p}"),
        ("[transformer.decoder.|]bbox_embed.{i}.layers.{n}.{p}", "bbox_embed.{i}.layers.{n}.{p}"),
    ]
