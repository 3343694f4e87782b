"""Claims 16 and 20 of spec chapter 10, asked of published code: a tiny Deformable DETR of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

CHANNELS, QUERIES, LAYERS = 32, 5, 3  # 32: the neck normalises groups of channels, 32 of them


def deformable_detr(**options: bool) -> Any:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 4, 4, 4],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.DeformableDetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=CHANNELS,
        encoder_layers=1,
        decoder_layers=LAYERS,
        encoder_ffn_dim=CHANNELS,
        decoder_ffn_dim=CHANNELS,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=QUERIES,
        num_labels=3,
        **options,
    )
    return transformers.DeformableDetrForObjectDetection(config).eval()


@torch.no_grad()
def test_claim_16_in_transformers_references_come_from_the_positional_half() -> None:
    """A change of the second half of the query embedding leaves the references; one of the first half moves them."""
    model = deformable_detr()
    image, embedding = torch.randn(1, 3, 64, 96), model.model.query_position_embeddings.weight
    before = model.model(image).init_reference_points
    assert before.shape[-1] == 2
    embedding[:, CHANNELS:] += torch.randn(QUERIES, CHANNELS)
    assert torch.equal(model.model(image).init_reference_points, before)
    embedding[:, :CHANNELS] += torch.randn(QUERIES, CHANNELS)
    assert (model.model(image).init_reference_points - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "storages"),
    [({}, 1), ({"with_box_refine": True}, LAYERS), ({"with_box_refine": True, "two_stage": True}, LAYERS + 1)],
    ids=["no refinement", "refinement", "two-stage"],
)
def test_claim_20_in_transformers_refinement_unshares_the_box_heads(options: dict[str, bool], storages: int) -> None:
    """One box head for all layers without refinement, one a layer with it, and one more for the proposals."""
    heads = deformable_detr(**options).bbox_embed
    assert len({head.layers[0].weight.data_ptr() for head in heads}) == storages
