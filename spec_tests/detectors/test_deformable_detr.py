"""Deformable DETR: its forms, its beginning, what its losses reach, and errors. Values: see
test_deformable_detr_transformers.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from detr_reference.detectors.config import DeformableDETRConfig
from detr_reference.detectors.deformable_detr import DeformableDETR, build
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from helpers.tiny.deformable_models import SIZES, Pooled, padded_images, targets, tiny_deformable_detr

PLAIN: dict[str, Any] = {}
REFINED = {"box_refinement": True}
TWO_STAGE = {"box_refinement": True, "two_stage": True}
FORMS = pytest.mark.parametrize("form", [PLAIN, REFINED, TWO_STAGE], ids=["plain", "refined", "two-stage"])
LAYERS = SIZES["num_decoder_layers"]


def gradients(model: DeformableDETR, loss: Tensor) -> dict[str, Tensor]:
    """Of the parameters that the loss reaches, by name."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {
        name: gradient
        for name, gradient in zip(named, found, strict=True)
        if gradient is not None and gradient.abs().max() > 0
    }


@FORMS
def test_outputs(form: dict[str, Any]) -> None:
    model, (images, mask) = tiny_deformable_detr(**form), padded_images()
    found = model(images, mask)
    queries, classes = SIZES["num_queries"], SIZES["num_classes"]
    assert found["pred_logits"].shape == (LAYERS, 2, queries, classes)
    assert found["pred_boxes"].shape == (LAYERS, 2, queries, 4)
    assert ("enc_logits" in found) == ("enc_boxes" in found) == model.config.two_stage
    if model.config.two_stage:
        cells = 5 * 7 + 3 * 4 + 2 * 2
        assert found["enc_logits"].shape == (2, cells, classes)
        assert found["enc_boxes"].shape == (2, cells, 4)


@FORMS
def test_parameters_are_copied_and_complete(form: dict[str, Any]) -> None:
    model, (images, mask) = tiny_deformable_detr(**form), padded_images()
    again = build(model.config, model.state_dict())
    assert torch.equal(again(images, mask)["pred_boxes"], model(images, mask)["pred_boxes"])
    heads = {name.split(".")[1] for name in model.state_dict() if name.startswith("bbox_embed")}
    expected = LAYERS + 1 if model.config.two_stage else LAYERS if model.config.box_refinement else 1
    assert heads == {str(index) for index in range(expected)}
    with pytest.raises(RuntimeError, match="Missing key"):
        build(model.config, {name: tensor for name, tensor in model.state_dict().items() if "class_embed" not in name})


@torch.no_grad()
def test_single_stage_boxes_begin_small() -> None:
    """Deltas are 0, and -2 for the size where the reference is a point; refinement keeps what it was given."""
    for form in (PLAIN, REFINED):
        boxes = build(DeformableDETRConfig(**{**SIZES, **form}))(*_single(padded_images()))["pred_boxes"]
        torch.testing.assert_close(boxes[..., 2:], torch.full_like(boxes[..., 2:], 1 / (1 + math.exp(2.0))))
        torch.testing.assert_close(boxes, boxes[:1].expand_as(boxes))


@torch.no_grad()
def test_two_stage_boxes_begin_where_the_proposals_are() -> None:
    found = build(DeformableDETRConfig(**{**SIZES, **TWO_STAGE}))(*_single(padded_images()))
    best = found["enc_logits"][..., 0].topk(SIZES["num_queries"], dim=1).indices
    proposals = found["enc_boxes"].gather(1, best[..., None].expand(-1, -1, 4))
    torch.testing.assert_close(found["pred_boxes"], proposals.expand_as(found["pred_boxes"]), rtol=0, atol=1e-4)


@FORMS
def test_deformable_attention_is_initialised_after_everything_else(form: dict[str, Any]) -> None:
    model = build(DeformableDETRConfig(**{**SIZES, **form}))
    attentions = [module for module in model.modules() if isinstance(module, MultiScaleDeformableAttention)]
    assert len(attentions) == SIZES["num_encoder_layers"] + LAYERS
    for attention in attentions:
        assert not attention.sampling_offsets.weight.any()
        assert not attention.attention_weights.weight.any()
        assert attention.sampling_offsets.bias.abs().max() == SIZES["num_points"]
    assert model.transformer.level_embeds.std() > 0.5
    ffn = model.transformer.encoder.layers[0].ffns[0].layers[0][0].weight
    assert ffn.abs().max() <= math.sqrt(6 / sum(ffn.shape)) < 1.2 * ffn.abs().max()
    assert torch.allclose(model.class_embed[0].bias, torch.tensor(-math.log(99.0)))


@FORMS
def test_every_parameter_has_a_gradient(form: dict[str, Any]) -> None:
    """Also where no image has a box, and one exactly zero counts: distributed training waits for all of them."""
    model, (images, mask) = tiny_deformable_detr(**form), padded_images()
    for counts in ((2, 0), (0, 0)):
        model.zero_grad()
        found = model(images, mask)
        given = detection_losses(**found, **_named(targets(*counts)), encoder_targets="objectness")
        weighted_total(given).backward()
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in trained.items() if parameter.grad is None} == set()
    assert {name.split(".")[1] for name, parameter in model.named_parameters() if not parameter.requires_grad} == {
        "conv1",
        "layer1",
    }


def test_a_box_reaches_its_own_head_alone() -> None:
    """With refinement; what the next layer is given is detached."""
    model, (images, mask) = tiny_deformable_detr(**REFINED), padded_images()
    boxes = model(images, mask)["pred_boxes"]
    for layer in range(LAYERS):
        reached = gradients(model, boxes[layer].square().sum())
        assert {name.split(".")[1] for name in reached if name.startswith("bbox_embed")} == {str(layer)}
        assert any(name.startswith("transformer.reference_points") for name in reached)


def test_losses_of_the_decoder_do_not_reach_the_first_stage() -> None:
    model, (images, mask) = tiny_deformable_detr(**TWO_STAGE), padded_images()
    found = model(images, mask)
    first_stage = ("transformer.enc_output", f"class_embed.{LAYERS}", f"bbox_embed.{LAYERS}")
    reached = gradients(model, found["pred_logits"].square().sum() + found["pred_boxes"].square().sum())
    assert not [name for name in reached if name.startswith(first_stage)]
    assert [name for name in reached if name.startswith("transformer.pos_trans")]
    reached = gradients(model, found["enc_logits"].square().sum() + found["enc_boxes"].square().sum())
    assert {name.rpartition(".layers")[0] or name.rpartition(".")[0] for name in reached if "embed" in name} >= {
        f"class_embed.{LAYERS}",
        f"bbox_embed.{LAYERS}",
    }
    assert not [name for name in reached if name.startswith(("transformer.decoder", "transformer.pos_trans"))]


@torch.no_grad()
def test_cells_without_a_proposal_are_all_alike() -> None:
    """Padding and borders share one score and the box (1, 1, 1, 1)."""
    model, (images, mask) = tiny_deformable_detr(**TWO_STAGE), padded_images()
    found = model(images, mask)
    nowhere = (found["enc_boxes"] == 1).all(-1)
    assert 10 < nowhere.sum() < 90
    assert found["enc_logits"][nowhere].std(0).max() < 1e-12


@torch.no_grad()
@FORMS
def test_a_kernel_runs_in_every_layer(form: dict[str, Any]) -> None:
    calls = []

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return ms_deform_attn(*arguments)

    model, (images, mask) = tiny_deformable_detr(**form), padded_images()
    again = build(model.config, model.state_dict(), core=counted)(images, mask)
    assert len(calls) == SIZES["num_encoder_layers"] + LAYERS
    assert torch.equal(again["pred_boxes"], model(images, mask)["pred_boxes"])


@torch.no_grad()
def test_another_backbone() -> None:
    """The neck takes its channels, whatever they are."""
    model = DeformableDETR(DeformableDETRConfig(**SIZES), backbone=Pooled()).double()
    images, mask = padded_images()
    assert model(images, mask)["pred_boxes"].shape == (LAYERS, 2, SIZES["num_queries"], 4)
    assert [conv.conv.in_channels for conv in model.neck.convs] == [3, 5]


@torch.no_grad()
@FORMS
def test_images_are_separate(form: dict[str, Any]) -> None:
    model, (images, mask) = tiny_deformable_detr(**form), padded_images()
    together, alone = model(images, mask), model(images[1:], mask[1:])
    for name, tensor in alone.items():
        axis = 0 if name.startswith("enc") else 1
        torch.testing.assert_close(together[name].narrow(axis, 1, 1), tensor, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    with pytest.raises(ValueError, match="two_stage needs box_refinement"):
        DeformableDETRConfig(two_stage=True)
    with pytest.raises(ValueError, match="embed_dim must be a multiple of 4"):
        DeformableDETRConfig(embed_dim=30, num_heads=2, neck_groups=2)
    with pytest.raises(ValueError, match="num_decoder_layers must be at least 1, got 0"):
        DeformableDETRConfig(num_decoder_layers=0)
    model, (images, mask) = tiny_deformable_detr(**{**TWO_STAGE, "num_queries": 90}), padded_images()
    with pytest.raises(ValueError, match="num_queries must lie between 1 and the 51 cells of the memory, got 90"):
        model(images, mask)
    with pytest.raises(ValueError, match=r"mask must be \(batch, height, width\) = \(2, 80, 112\)"):
        model(images, mask[:, :-1])
    with pytest.raises(TypeError, match=r"mask must be bool \(True is padding\)"):
        model(images, mask.float())


def _single(arguments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return arguments[0].float(), arguments[1]


def _named(given: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    return dict(zip(("target_labels", "target_boxes", "target_counts"), given, strict=True))
