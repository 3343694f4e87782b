"""transformers' DETR and Deformable DETR, as modules and as the files that it writes: equal outputs, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    ResNetConfig,
)

from detr_reference.checkpoints import CheckpointError, converted, load_checkpoint
from detr_reference.checkpoints.tables import transformers_deformable_detr, transformers_detr
from detr_reference.detectors import deformable_detr, detr
from detr_reference.detectors.config import DeformableDETRConfig, DETRConfig
from detr_reference.detectors.deformable_detr import DeformableDETR
from detr_reference.detectors.detr import DETR
from helpers import published_models as published
from helpers.tiny.checkpoint_cases import exchanged

CLOSE = 2e-6  # relative; transformers computes positions in float32
SIZES: dict[str, Any] = {
    "embed_dim": 32,
    "num_heads": 2,
    "feedforward_dim": 48,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
}
THEIR_SIZES: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 7,
    "num_labels": 91,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
}
VARIANTS = {"plain": (False, False), "refined": (True, False), "two_stage": (True, True)}


def backbone(stages: tuple[int, ...]) -> ResNetConfig:
    out_features: dict[str, Any] = {"out_features": [f"stage{stage}" for stage in stages]}  # of every backbone
    return ResNetConfig(
        embedding_size=4,
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 2, 1, 1],
        layer_type="bottleneck",
        **out_features,
    )


def filled(model: nn.Module, salt: str) -> Any:
    """The model in float64, with parameters by the rule; a tensor that several names share gets the first one's."""
    seen: dict[int, str] = {}
    for name, tensor in model.double().state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            first = seen.setdefault(id(tensor), name)
            tensor.data.copy_(published.parameter(first, tensor.shape, salt))
    return model.eval()


def their_detr() -> DetrForObjectDetection:
    return filled(DetrForObjectDetection(DetrConfig(backbone_config=backbone((4,)), **THEIR_SIZES)), "")


def our_detr(num_classes: int = 91) -> DETRConfig:
    return DETRConfig(num_classes=num_classes, num_queries=7, backbone_blocks=(1, 2, 1, 1), backbone_width=4, **SIZES)


def their_deformable(variant: str) -> DeformableDetrForObjectDetection:
    refine, two_stage = VARIANTS[variant]
    config = DeformableDetrConfig(
        backbone_config=backbone((2, 3, 4)),
        with_box_refine=refine,
        two_stage=two_stage,
        two_stage_num_proposals=7,
        disable_custom_kernels=True,
        **THEIR_SIZES,
    )
    return filled(DeformableDetrForObjectDetection(config), "1/")


def our_deformable(variant: str) -> DeformableDETRConfig:
    refine, two_stage = VARIANTS[variant]
    return DeformableDETRConfig(
        num_classes=91,
        num_queries=7,
        box_refinement=refine,
        two_stage=two_stage,
        backbone_blocks=(1, 2, 1, 1),
        backbone_width=4,
        **SIZES,
    )


def last_predictions(model: nn.Module) -> tuple[Tensor, Tensor]:
    images, mask = published.images()
    with torch.no_grad():
        if isinstance(model, (DETR, DeformableDETR)):
            outputs = model.eval()(images, mask)
            return outputs["pred_logits"][-1], outputs["pred_boxes"][-1]
        theirs = model(pixel_values=images, pixel_mask=(~mask).long())
        return theirs.logits, theirs.pred_boxes


def apart(ours: nn.Module, theirs: nn.Module) -> float:
    pairs = zip(last_predictions(ours), last_predictions(theirs), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in pairs)


def saved(model: Any, folder: Path) -> Path:
    """The file that transformers writes, under the names of its files."""
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def test_detr_as_a_module() -> None:
    theirs, config = their_detr(), our_detr()
    ours = detr.build(config, converted(theirs.state_dict(), detr.build(config)))
    assert apart(ours, theirs) < CLOSE


def test_detr_as_a_file(tmp_path: Path) -> None:
    theirs, config = their_detr(), our_detr()
    path = saved(theirs, tmp_path)
    assert apart(detr.build(config, load_checkpoint(path, detr.build(config))), theirs) < CLOSE


@pytest.mark.parametrize("variant", VARIANTS)
def test_deformable_detr_as_a_module(variant: str) -> None:
    theirs, config = their_deformable(variant), our_deformable(variant)
    ours = deformable_detr.build(config, converted(theirs.state_dict(), deformable_detr.build(config)))
    assert apart(ours, theirs) < CLOSE


@pytest.mark.parametrize("variant", VARIANTS)
def test_deformable_detr_as_a_file(variant: str, tmp_path: Path) -> None:
    """Of heads that layers share the file holds one, which then is every layer's."""
    theirs, config = their_deformable(variant), our_deformable(variant)
    path = saved(theirs, tmp_path)
    ours = deformable_detr.build(config, load_checkpoint(path, deformable_detr.build(config)))
    assert apart(ours, theirs) < CLOSE


def test_detr_back_into_the_module() -> None:
    ours, theirs = filled(detr.build(our_detr()), "ours/"), their_detr()
    assert apart(ours, theirs) > 1e-3
    theirs.load_state_dict(transformers_detr.original(ours.state_dict(), theirs.state_dict()))
    assert apart(ours, theirs) < CLOSE


@pytest.mark.parametrize("variant", ["plain", "two_stage"])
def test_deformable_detr_back_into_the_module(variant: str) -> None:
    """Not with refinement alone, where transformers shares class heads among layers that have their own here."""
    ours, theirs = filled(deformable_detr.build(our_deformable(variant)), "2/"), their_deformable(variant)
    assert apart(ours, theirs) > 1e-3
    theirs.load_state_dict(transformers_deformable_detr.original(ours.state_dict(), theirs.state_dict()))
    assert apart(ours, theirs) < CLOSE


def timm_file(model: Any) -> dict[str, Tensor]:
    """The names of the official files, which have timm's backbone, and those of version 4 of transformers."""
    table = {"o_proj": "out_proj", ".mlp.fc": ".fc"}
    state = {name: t for name, t in model.state_dict().items() if not name.startswith("model.backbone.")}
    for old, new in table.items():
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    ours = converted(model.state_dict(), detr.build(our_detr()))
    backbone = {name: tensor for name, tensor in ours.items() if name.startswith("backbone.")}
    prefix = "model.backbone.conv_encoder.model."
    return state | {prefix + name.removeprefix("backbone."): tensor for name, tensor in backbone.items()}


def test_official_detr_file_with_timms_backbone() -> None:
    theirs, config = their_detr(), our_detr()
    state = timm_file(theirs)
    assert "model.backbone.conv_encoder.model.layer1.0.conv1.weight" in state
    assert "model.encoder.layers.0.self_attn.out_proj.weight" in state
    assert apart(detr.build(config, converted(state, detr.build(config))), theirs) < CLOSE


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("model.decoder.layers.1.self_attn_layer_norm.", "model.decoder.layers.1.encoder_attn_layer_norm."),
        ("model.decoder.layers.1.encoder_attn_layer_norm.", "model.decoder.layers.1.final_layer_norm."),
        ("model.encoder.layers.0.self_attn.q_proj.", "model.encoder.layers.0.self_attn.k_proj."),
        ("model.encoder.layers.0.self_attn.k_proj.", "model.encoder.layers.0.self_attn.v_proj."),
        ("model.decoder.layers.1.self_attn.", "model.decoder.layers.1.encoder_attn."),
    ],
)
def test_exchanged_modules_of_detr_are_noticed(first: str, second: str) -> None:
    theirs, config = their_detr(), our_detr()
    changed = exchanged(theirs.state_dict(), first, second)
    assert apart(detr.build(config, converted(changed, detr.build(config))), theirs) > 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_exchanged_norms_of_deformable_detr_are_noticed(variant: str) -> None:
    theirs, config = their_deformable(variant), our_deformable(variant)
    layer = "model.decoder.layers.1."
    changed = exchanged(theirs.state_dict(), f"{layer}self_attn_layer_norm.", f"{layer}encoder_attn_layer_norm.")
    ours = deformable_detr.build(config, converted(changed, deformable_detr.build(config)))
    assert apart(ours, theirs) > 1e-4


def test_a_lone_projection_is_reported() -> None:
    state = their_detr().state_dict()
    del state["model.encoder.layers.0.self_attn.v_proj.bias"]
    with pytest.raises(CheckpointError) as caught:
        converted(state, detr.build(our_detr()))
    message = str(caught.value)
    assert "missing: transformer.encoder.layers.0.attentions.0.in_proj_bias" in message
    assert "unknown: transformer.encoder.layers.0.attentions.0.in_proj_bias:q" in message


def test_a_projection_of_another_shape_is_reported() -> None:
    state = their_detr().state_dict()
    state["model.encoder.layers.0.self_attn.v_proj.weight"] = torch.zeros(32, 16)
    with pytest.raises(
        CheckpointError, match=r"unknown: transformer\.encoder\.layers\.0\.attentions\.0\.in_proj_weight:v"
    ):
        converted(state, detr.build(our_detr()))


def test_names_that_cannot_be_given_back_are_all_named() -> None:
    ours = detr.build(our_detr()).state_dict()
    del ours["input_proj.bias"]
    with pytest.raises(CheckpointError) as caught:
        transformers_detr.original(ours, ["model.input_projection.bias", "model.mask_head.weight"])
    assert str(caught.value).splitlines()[1:] == [
        "  missing: input_proj.bias, for model.input_projection.bias",
        "  unknown: model.mask_head.weight",
    ]
