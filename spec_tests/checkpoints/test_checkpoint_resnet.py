"""Pretrained backbones: torchvision's ResNet, whose names timm has too, and transformers'; equal features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ResNetConfig as TheirConfig
from transformers import ResNetForImageClassification, ResNetModel

from detr_reference.checkpoints import CheckpointError, converted, detect_format, load_checkpoint
from detr_reference.features.config import ResNetConfig
from detr_reference.features.resnet import ResNet, build
from helpers import published_models as published
from helpers.tiny.checkpoint_cases import CLOSE, exchanged

RECORD = published.load_record("torchvision_resnet")
CONFIG = ResNetConfig(blocks=(1, 2, 1, 1), width=4, out_stages=(1, 2, 3, 4))


def torchvision_file() -> dict[str, Tensor]:
    """With the classifier and the counters of its batch norms, which no detector reads."""
    return published.state_dict(RECORD)


def features(model: ResNet) -> dict[str, Tensor]:
    with torch.no_grad():
        return {
            f"stage_{stage}": o for stage, o in zip(model.config.out_stages, model(published.images()[0]), strict=True)
        }


def read(state_dict: dict[str, Tensor], config: ResNetConfig = CONFIG) -> ResNet:
    return build(config, converted(state_dict, build(config)))


def test_features_equal_torchvisions() -> None:
    assert any("num_batches_tracked" in name for name in torchvision_file())
    assert max(published.furthest(RECORD, features(read(torchvision_file()))).values()) < CLOSE


def test_dilated_features_equal_torchvisions() -> None:
    dilated = read(torchvision_file(), dataclasses.replace(CONFIG, out_stages=(4,), dilation=True))
    found = {"dilated_stage_4": features(dilated)["stage_4"]}
    assert max(published.furthest(RECORD, found).values()) < CLOSE


@pytest.mark.parametrize(
    ("first", "second"), [("layer2.1.bn1.", "layer2.1.bn2."), ("layer2.0.bn3.", "layer2.0.downsample.1.")]
)
def test_exchanged_norms_are_noticed(first: str, second: str) -> None:
    model = read(exchanged(torchvision_file(), first, second))
    assert max(published.furthest(RECORD, features(model)).values()) > 1e-4


def theirs(kind: Any) -> Any:
    config = TheirConfig(embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[1, 2, 1, 1], layer_type="bottleneck")
    model = kind(config).double().eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(published.parameter(name, tensor.shape))
    return model


@pytest.mark.parametrize("kind", [ResNetModel, ResNetForImageClassification])
def test_features_equal_transformers(kind: Any, tmp_path: Path) -> None:
    model = theirs(kind)
    model.save_pretrained(tmp_path)
    state = load_checkpoint(tmp_path / "model.safetensors", build(CONFIG))
    with torch.no_grad():
        hidden = model(published.images()[0], output_hidden_states=True).hidden_states[1:]
    for ours, expected in zip(features(build(CONFIG, state)).values(), hidden, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


def test_formats_are_detected() -> None:
    assert detect_format(torchvision_file()) == "torchvision_resnet"
    assert detect_format(theirs(ResNetForImageClassification).state_dict()) == "transformers_resnet"


def test_another_number_of_blocks_is_reported_block_by_block() -> None:
    with pytest.raises(CheckpointError) as caught:
        read(torchvision_file(), ResNetConfig(blocks=(1, 1, 2, 1), width=4))
    lines = str(caught.value).splitlines()
    assert "  unknown: layer2.1.conv1.weight, which the model does not have" in lines
    assert "  missing: layer3.1.conv1.weight" in lines
    assert len(lines) == 1 + 2 * 15
