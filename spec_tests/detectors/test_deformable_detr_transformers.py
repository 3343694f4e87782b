"""Deformable DETR, all three forms, against transformers' own: the same random numbers, equal outputs and losses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_reference.checkpoints.tables.transformers_deformable_detr import renamed
from detr_reference.detectors.config import DeformableDETRConfig
from detr_reference.detectors.deformable_detr import build
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from detr_reference.positions.proposal_position_embedding import proposal_position_embedding
from helpers.tiny.deformable_models import padded_images, perturbed, targets

FORMS = [
    pytest.param(False, False, id="plain"),
    pytest.param(True, False, id="box refinement"),
    pytest.param(True, True, id="two-stage"),
]
EMBED, QUERIES, CLASSES, LAYERS = 32, 6, 5, 3  # 32: its neck normalises groups of channels, 32 of them
BLOCKS = (1, 1, 2, 1)


def published(box_refinement: bool, two_stage: bool) -> Any:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=4,
        hidden_sizes=[16, 32, 64, 128],
        depths=list(BLOCKS),
        layer_type="bottleneck",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.DeformableDetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=EMBED,
        encoder_layers=2,
        decoder_layers=LAYERS,
        encoder_ffn_dim=20,
        decoder_ffn_dim=20,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_n_points=3,
        decoder_n_points=3,
        num_queries=QUERIES,
        two_stage_num_proposals=QUERIES,
        num_labels=CLASSES,
        auxiliary_loss=True,
        with_box_refine=box_refinement,
        two_stage=two_stage,
    )
    model = transformers.DeformableDetrForObjectDetection(config)
    if box_refinement:  # it ties class heads unless there are two stages; Deformable DETR does not
        model.class_embed = nn.ModuleList(copy.deepcopy(head) for head in model.class_embed)
    if two_stage:
        model.model.decoder.class_embed = model.class_embed
    return perturbed(model, std=0.15).eval()


def reference(box_refinement: bool, two_stage: bool, state_dict: dict[str, Tensor]) -> nn.Module:
    config = DeformableDETRConfig(
        num_classes=CLASSES,
        num_queries=QUERIES,
        box_refinement=box_refinement,
        two_stage=two_stage,
        embed_dim=EMBED,
        num_heads=4,
        feedforward_dim=20,
        num_encoder_layers=2,
        num_decoder_layers=LAYERS,
        num_points=3,
        backbone_blocks=BLOCKS,
        backbone_width=4,
    )
    names = build(config).state_dict().keys()
    return build(config, {name: tensor for name, tensor in renamed(state_dict).items() if name in names}).eval()


def in_double_precision(proposals: Tensor) -> Tensor:
    """transformers embeds proposals in float32, whatever the dtype of the model."""
    return proposal_position_embedding(proposals, num_pos_feats=EMBED // 2)


def predictions(model: Any, images: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Every layer's, as DeformableDetrForObjectDetection makes them; it gives out the last ones."""
    pixel_mask = (~mask).long()
    inner, outer = model.model(images, pixel_mask), model(images, pixel_mask)
    hidden = inner.intermediate_hidden_states.unbind(1)
    found = {
        "pred_logits": torch.stack([head(h) for head, h in zip(model.class_embed[:LAYERS], hidden, strict=True)]),
        "last_boxes": outer.pred_boxes,
    }
    if model.config.with_box_refine:
        found["pred_boxes"] = inner.intermediate_reference_points.transpose(0, 1)
    if model.config.two_stage:
        found["enc_logits"] = inner.enc_outputs_class
        found["enc_boxes"] = inner.enc_outputs_coord_logits.sigmoid()
    assert torch.equal(found["pred_logits"][-1], outer.logits)
    return found


@torch.no_grad()
@pytest.mark.parametrize(("box_refinement", "two_stage"), FORMS)
def test_same_outputs(box_refinement: bool, two_stage: bool) -> None:
    model = published(box_refinement, two_stage)
    ours = reference(box_refinement, two_stage, model.state_dict())
    images, mask = padded_images()
    if two_stage:
        given = ours(images, mask)
        found = predictions(model, images, mask)
        torch.testing.assert_close(given["pred_logits"], found["pred_logits"], rtol=0, atol=1e-5)
        model.model.get_proposal_pos_embed = in_double_precision
    found = predictions(model, images, mask)
    given = ours(images, mask)
    given["last_boxes"] = given["pred_boxes"][-1]
    for name, tensor in found.items():
        torch.testing.assert_close(given[name], tensor, rtol=0, atol=1e-11)
    assert given["pred_logits"].std() > 0.1
    assert given["pred_boxes"].std((1, 2)).min() > 0.01


@torch.no_grad()
@pytest.mark.parametrize(("box_refinement", "two_stage"), FORMS)
def test_same_losses(box_refinement: bool, two_stage: bool) -> None:
    """With its cost and weight of classes, which are 1; the published training has 2. It has no first-stage loss."""
    model = published(box_refinement, two_stage)
    ours = reference(box_refinement, two_stage, model.state_dict())
    if two_stage:
        model.model.get_proposal_pos_embed = in_double_precision
    images, mask = padded_images()
    labels, boxes, counts = targets(3, 1, num_classes=CLASSES)
    split = [
        {"class_labels": of_labels, "boxes": of_boxes}
        for of_labels, of_boxes in zip(labels.split(counts.tolist()), boxes.split(counts.tolist()), strict=True)
    ]
    theirs = model(images, (~mask).long(), labels=split)
    found = ours(images, mask)
    losses = detection_losses(found["pred_logits"], found["pred_boxes"], labels, boxes, counts, cost_class=1.0)
    for ours_name, their_name in (("class", "ce"), ("bbox", "bbox"), ("giou", "giou")):
        for suffix in ("", *(f"_{layer}" for layer in range(LAYERS - 1))):
            wanted = theirs.loss_dict[f"loss_{their_name}{suffix}"]
            torch.testing.assert_close(losses[f"loss_{ours_name}{suffix}"], wanted, rtol=1e-9, atol=0)
    torch.testing.assert_close(weighted_total(losses), theirs.loss, rtol=1e-9, atol=0)
