"""The names of a ResNet in torchvision (which the reference has), timm, transformers and detrex, as rows of a table.

`theirs` and `ours` are what stands before the names, for a file of a whole detector or of the backbone alone. Sources:
torchvision, models/resnet.py (timm has the same names); transformers, models/resnet/modeling_resnet.py; detrex's are
detectron2's, detectron2/modeling/backbone/resnet.py.
"""

from __future__ import annotations

from detr_reference.checkpoints.names import Row

STAGES = (1, 2, 3, 4)
CONVOLUTIONS = (1, 2, 3)

# What a training run counts in each batch norm and frozen ones do not have.
COUNTERS = r".*\.num_batches_tracked"


def torchvision_rows(theirs: str, ours: str) -> list[Row]:
    """`layer1.0.conv1`, `layer1.0.downsample.0`: the reference's own names."""
    names = (
        "conv1.weight",
        "bn1.{b}",
        "layer{s}.{i}.conv{n}.weight",
        "layer{s}.{i}.bn{n}.{b}",
        "layer{s}.{i}.downsample.0.weight",
        "layer{s}.{i}.downsample.1.{b}",
    )
    return [(theirs + name, ours + name) for name in names]


def transformers_rows(theirs: str, ours: str) -> list[Row]:
    """`encoder.stages.0.layers.0.layer.0.convolution`, `encoder.stages.0.layers.0.shortcut.convolution`."""
    rows = [
        ("embedder.embedder.convolution.weight", "conv1.weight"),
        ("embedder.embedder.normalization.{b}", "bn1.{b}"),
    ]
    for stage in STAGES:
        block, layer = f"encoder.stages.{stage - 1}.layers.{{i}}", f"layer{stage}.{{i}}"
        rows += [
            (f"{block}.shortcut.convolution.weight", f"{layer}.downsample.0.weight"),
            (f"{block}.shortcut.normalization.{{b}}", f"{layer}.downsample.1.{{b}}"),
        ]
        for n in CONVOLUTIONS:
            rows += [
                (f"{block}.layer.{n - 1}.convolution.weight", f"{layer}.conv{n}.weight"),
                (f"{block}.layer.{n - 1}.normalization.{{b}}", f"{layer}.bn{n}.{{b}}"),
            ]
    return [(theirs + name, ours + own) for name, own in rows]


def detrex_rows(theirs: str, ours: str) -> list[Row]:
    """`stem.conv1`, `res2.0.conv1.norm`, `res2.0.shortcut`: a norm belongs to its convolution."""
    rows = [("stem.conv1.weight", "conv1.weight"), ("stem.conv1.norm.{b}", "bn1.{b}")]
    for stage in STAGES:
        block, layer = f"res{stage + 1}.{{i}}", f"layer{stage}.{{i}}"
        rows += [
            (f"{block}.conv{{n}}.weight", f"{layer}.conv{{n}}.weight"),
            (f"{block}.conv{{n}}.norm.{{b}}", f"{layer}.bn{{n}}.{{b}}"),
            (f"{block}.shortcut.weight", f"{layer}.downsample.0.weight"),
            (f"{block}.shortcut.norm.{{b}}", f"{layer}.downsample.1.{{b}}"),
        ]
    return [(theirs + name, ours + own) for name, own in rows]
