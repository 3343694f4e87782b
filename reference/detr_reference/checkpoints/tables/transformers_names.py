"""Rows for what the detectors of transformers have in common: the backbone, projections, layers of the encoder.

transformers has two sets of names: those of its files, which versions 4 and 5 write alike
(`backbone.conv_encoder.model.layer1...`, `self_attn.out_proj`, `fc1`), and those of the modules of version 5
(`backbone.model...`, `self_attn.o_proj`, `mlp.fc1`). A table takes either. The backbone is timm's in the official
files, or a ResNet of transformers. Source: transformers, conversion_mapping.py.
"""

from __future__ import annotations

from detr_reference.checkpoints.names import Row
from detr_reference.checkpoints.tables import resnet_names

BACKBONE = "model.backbone.[conv_encoder.|]model."


def backbone_rows() -> list[Row]:
    """Of either backbone: no name of one is a name of the other."""
    return [
        *resnet_names.torchvision_rows(BACKBONE, "backbone."),
        *resnet_names.transformers_rows(BACKBONE, "backbone."),
    ]


def attention_rows(theirs: str, ours: str) -> list[Row]:
    """A multi-head attention, whose three projections transformers keeps apart."""
    return [
        *((f"{theirs}.{third}_proj.{{p}}", f"{ours}.in_proj_{{p}}:{third}") for third in "qkv"),
        (f"{theirs}.[o_proj|out_proj].{{p}}", f"{ours}.out_proj.{{p}}"),
    ]


def feed_forward_rows(theirs: str, ours: str) -> list[Row]:
    """The two linear layers of a layer's feed-forward network."""
    return [
        (f"{theirs}.[mlp.|]fc1.{{p}}", f"{ours}.ffns.0.layers.0.0.{{p}}"),
        (f"{theirs}.[mlp.|]fc2.{{p}}", f"{ours}.ffns.0.layers.1.{{p}}"),
    ]
