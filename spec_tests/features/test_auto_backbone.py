"""Backbones of transformers inside the detectors: same features, gradients, and a clear word where it is missing."""

from __future__ import annotations

import sys

import pytest
import torch

from detr_reference.detectors.config import DETRConfig
from detr_reference.detectors.detr import DETR
from detr_reference.features.auto_backbone import AutoBackbone
from helpers.tiny.detector_cases import TINY, padded_images, scrambled

CONVNEXT = {
    "model_type": "convnext",
    "hidden_sizes": [4, 4, 6, 8],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage4"],
}


def test_features_and_channels() -> None:
    transformers = pytest.importorskip("transformers")
    backbone = scrambled(AutoBackbone(CONVNEXT))
    images, _ = padded_images()
    assert backbone.channels == (4, 8)
    assert isinstance(backbone.model, transformers.ConvNextBackbone)
    found, expected = backbone(images), backbone.model(images).feature_maps
    assert [each.shape[1:] for each in found] == [(4, 12, 20), (8, 3, 5)]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_detector_with_another_backbone() -> None:
    pytest.importorskip("transformers")
    detr = scrambled(DETR(DETRConfig(**TINY), AutoBackbone(CONVNEXT)))
    found = detr(*padded_images())
    assert found["pred_boxes"].shape == (3, 2, 5, 4)
    (found["pred_boxes"] * torch.randn_like(found["pred_boxes"])).sum().backward()
    gradients = {name: p.grad for name, p in detr.named_parameters() if name.startswith("backbone.model.encoder.")}
    assert gradients
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'detr-spec\[transformers\]'"):
        AutoBackbone(CONVNEXT)
