"""DETR of transformers, an independent computation from the same parameters: equal to the last bits, but for one thing.

With `auxiliary_loss` transformers feeds the *normed* output of each decoder layer to the next one and norms the last
output twice. facebookresearch/detr, models/transformer.py, keeps the stream as it is.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_reference.checkpoints.tables.transformers_detr import renamed
from detr_reference.detectors.config import DETRConfig
from detr_reference.detectors.detr import DETR, build
from helpers.tiny.detector_cases import TINY, padded_images, theirs_of

transformers = pytest.importorskip("transformers")


def theirs(**options: object) -> nn.Module:
    """As TINY, in transformers' words."""
    return theirs_of("Detr", d_model=8, **options)


def ours(model: nn.Module, num_queries: int = 5) -> DETR:
    return build(DETRConfig(**TINY | {"num_queries": num_queries}), renamed(model.state_dict())).eval()


def layers_of(model: nn.Module, images: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The predictions after every decoder layer, from what hooks see of transformers' model."""
    streams: list[Tensor] = []
    for layer in model.model.decoder.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: streams.append(output))
    final = model(images, pixel_mask=(~mask).long())
    hidden = model.model.decoder.layernorm(torch.stack(streams))
    found = {"pred_logits": model.class_labels_classifier(hidden), "pred_boxes": model.bbox_predictor(hidden).sigmoid()}
    torch.testing.assert_close(found["pred_logits"][-1], final.logits)
    torch.testing.assert_close(found["pred_boxes"][-1], final.pred_boxes)
    return found


@pytest.mark.parametrize("num_queries", [5, 15])
def test_equals_transformers(num_queries: int) -> None:
    """All layers, with unequal padding; also with as many queries as cells, where a query's position must not pass for
    a cell's."""
    model, (images, mask) = theirs(num_queries=num_queries), padded_images()
    expected, found = layers_of(model, images, mask), ours(model, num_queries)(images, mask)
    assert list(found) == list(expected)
    for name in expected:
        assert expected[name].std((0, 2)).min() > 1e-3
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-10)


def test_gradients_equal_those_of_transformers() -> None:
    """Of the images and of every parameter behind the backbone."""
    model, (images, mask) = theirs(), padded_images()
    mine = ours(model)
    weight = torch.randn(2, 5, 4, dtype=torch.float64)
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    (model(inputs[0], pixel_mask=(~mask).long()).pred_boxes * weight).sum().backward()
    (mine(inputs[1], mask)["pred_boxes"][-1] * weight).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-9, atol=1e-12)
    expected = renamed({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    found = {name: p.grad for name, p in mine.named_parameters() if name in expected}
    assert len(found) == len(expected) > 50
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12, msg=name)


def test_auxiliary_loss_changes_the_predictions_of_transformers() -> None:
    """The one difference: what leaves a layer is normed before the next one, and once more at the end."""
    plain, auxiliary = theirs(), theirs(auxiliary_loss=True)
    auxiliary.load_state_dict(plain.state_dict())
    images, mask = padded_images()
    expected, found = (m(images, pixel_mask=(~mask).long()).pred_boxes for m in (plain, auxiliary))
    assert (found - expected).abs().max() > 0.01


def test_published_size_has_the_same_parameters() -> None:
    """Under every name the same shape, with 91 class ids."""
    with torch.device("meta"):
        config = transformers.DetrConfig(
            use_timm_backbone=False, backbone_config=transformers.ResNetConfig(out_features=["stage4"]), num_labels=91
        )
        state = transformers.DetrForObjectDetection(config).state_dict()
        mine = DETR(DETRConfig()).state_dict()
    assert {name: tensor.shape for name, tensor in renamed(state).items()} == {
        name: tensor.shape for name, tensor in mine.items()
    }


def test_transformers_freezes_the_whole_of_its_own_resnet() -> None:
    """It looks for "stage.1" in names that have "stages.1"; stem and first stage alone should be frozen."""
    with torch.device("meta"):
        backbone = transformers.ResNetConfig(out_features=["stage4"])
        config = transformers.DetrConfig(use_timm_backbone=False, backbone_config=backbone, num_labels=91)
        model = transformers.DetrForObjectDetection(config)
    assert sum(p.numel() for p in model.parameters()) == 41_524_768
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 18_069_856
