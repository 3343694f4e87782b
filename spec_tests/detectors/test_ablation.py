"""The rows of DINO's ablation: each builds and runs, and differs from the one above it in what its name says."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from detr_reference.detectors import dino
from detr_reference.detectors.ablation import ABLATION, AblationRow
from detr_reference.detectors.config import DINOConfig
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from helpers.places import CHAPTERS
from helpers.tiny.deformable_models import SIZES, padded_images, targets

NOISE = {"label_noise_ratio", "box_noise_scale"}
CHANGED = (
    {"num_queries"},
    {"query_selection"},
    {"query_selection"},
    {"look_forward_twice"},
    {"denoising"} | NOISE,
)


@pytest.mark.parametrize("row", ABLATION, ids=lambda row: row.name)
def test_row_trains(row: AblationRow) -> None:
    model = dino.build(replace(row.config, **SIZES, denoising_number=4)).train()
    images, mask = padded_images()
    labels, boxes, counts = targets(3, 0)
    truth = {"target_labels": labels, "target_boxes": boxes.float(), "target_counts": counts}
    found = model(images.float(), mask, **truth)
    assert ("enc_logits" in found) == row.config.two_stage
    losses = detection_losses(**found, **truth, contrastive=row.config.denoising == "contrastive")
    total = weighted_total(losses)
    total.backward()
    assert torch.isfinite(total)
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_rows_differ_in_one_idea() -> None:
    for before, after, names in zip(ABLATION[:-1], ABLATION[1:], CHANGED, strict=True):
        old, new = asdict(before.config), asdict(after.config)
        assert {name for name in old if old[name] != new[name]} == names
        assert after.published_ap > before.published_ap
    assert ABLATION[-1].config == DINOConfig()
    assert not ABLATION[-1].unsaid


def test_the_chapter_has_the_same_rows() -> None:
    chapter = CHAPTERS / "19-dino.md"
    with open(chapter, encoding="utf-8") as file:
        table = file.read().partition("## The ablation")[2]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("|")][2:]
    assert [float(ap) for _, ap in rows] == [row.published_ap for row in ABLATION]
