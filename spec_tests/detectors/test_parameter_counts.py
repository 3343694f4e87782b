"""Parameters of the published models, counted on their code: trained (stem and first stage frozen) and in all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detr_reference.detectors.config import DeformableDETRConfig, DETRConfig, DINOConfig
from detr_reference.detectors.deformable_detr import DeformableDETR
from detr_reference.detectors.detr import DETR
from detr_reference.detectors.dino import DINO

PUBLISHED = {
    "DETR, 91 classes and no object": (41_302_368, 41_524_768),
    "Deformable DETR, 91 classes": (39_847_265, 40_069_665),
    "Deformable DETR, box refinement": (40_627_260, 40_849_660),
    "Deformable DETR, two-stage": (40_959_129, 41_181_529),
    "DINO, separate heads, 80 classes (detrex)": (47_427_916, 47_650_316),
    "DINO, shared heads, 91 classes (original)": (46_670_782, 46_893_182),
}
ORIGINAL_DINO = DINOConfig(num_classes=91, label_embedding_size=92, shared_heads=True)
FROZEN = 64 * 3 * 7 * 7 + 64 * 64 + 3 * (64 * 64 * 9) + 2 * (256 * 64) + 3 * (64 * 256) + 64 * 256  # stem, layer1


def model(name: str) -> nn.Module:
    kind = name.partition(",")[0]
    if kind == "DETR":
        return DETR(DETRConfig())
    if kind == "Deformable DETR":
        return DeformableDETR(
            DeformableDETRConfig(num_classes=91, box_refinement="91" not in name, two_stage="two-stage" in name)
        )
    return DINO(ORIGINAL_DINO if "original" in name else DINOConfig())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    with torch.device("meta"):
        parameters = list(model(name).parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    assert (trained, sum(parameter.numel() for parameter in parameters)) == PUBLISHED[name]
    assert PUBLISHED[name][1] - PUBLISHED[name][0] == FROZEN


def test_what_separates_the_two_dinos() -> None:
    """Five more pairs of heads; 11 classes fewer in each of the others; 12 rows fewer in the label embedding."""
    embed = 256
    box_head = 2 * (embed * embed + embed) + embed * 4 + 4
    separate = 5 * (box_head + 80 * (embed + 1)) - 2 * 11 * (embed + 1) - 12 * embed
    assert (
        PUBLISHED["DINO, separate heads, 80 classes (detrex)"][0] - separate
        == (PUBLISHED["DINO, shared heads, 91 classes (original)"][0])
    )
