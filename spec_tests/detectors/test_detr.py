"""DETR as a whole: published sizes, masks, what padding may and may not do, what queries share, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from detr_reference.detectors.config import DETRConfig
from detr_reference.detectors.detr import DETR, build
from detr_reference.transformer.stack import build_decoder, build_encoder
from helpers.tiny.detector_cases import TINY, Patches, builds_copies, on_larger_canvas, padded_images, scrambled

CONFIG = DETRConfig(**TINY, dropout=0.1)


def model() -> DETR:
    return scrambled(DETR(CONFIG))


def test_published_number_of_parameters() -> None:
    """facebookresearch/detr, R50: 41,302,368 are trained; with the frozen ones there are 41,524,768."""
    with torch.device("meta"):
        parameters = list(DETR(DETRConfig()).parameters())
    assert sum(p.numel() for p in parameters if p.requires_grad) == 41_302_368
    assert sum(p.numel() for p in parameters) == 41_524_768


def test_one_prediction_a_layer() -> None:
    found = model()(*padded_images())
    assert list(found) == ["pred_logits", "pred_boxes"]
    assert found["pred_logits"].shape == (3, 2, 5, 4)
    assert found["pred_boxes"].shape == (3, 2, 5, 4)
    assert ((found["pred_boxes"] > 0) & (found["pred_boxes"] < 1)).all()
    assert (found["pred_boxes"][:-1] - found["pred_boxes"][-1]).abs().amax((1, 2, 3)).min() > 1e-3


def test_equals_its_parts_one_after_another() -> None:
    """Stacks of chapter 7 between projection and heads; the decoder begins with zeros, and its norm is shared."""
    detr, (images, mask) = model(), padded_images()
    found, parameters = detr(images, mask), detr.state_dict()

    def of(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}

    features = nn.functional.conv2d(detr.backbone(images)[-1], parameters["input_proj.weight"])
    features = features + parameters["input_proj.bias"][:, None, None]
    cells = features.flatten(2).transpose(1, 2)
    padding = mask[:, ::32, ::32].flatten(1)
    position = rows_and_columns([(3, 4), (2, 5)], (3, 5), channels=8)
    encoder, decoder = build_encoder(CONFIG.encoder, of("transformer.encoder.")).eval(), of("transformer.decoder.")
    memory = encoder(cells, query_pos=position, query_key_padding_mask=padding)
    queries = parameters["query_embed.weight"].expand(2, -1, -1)
    hidden = build_decoder(CONFIG.decoder, decoder).eval()(
        torch.zeros(2, 5, 8, dtype=torch.float64),
        key=memory,
        query_pos=queries,
        key_pos=position,
        key_padding_mask=padding,
    )
    logits = hidden @ parameters["class_embed.weight"].T + parameters["class_embed.bias"]
    torch.testing.assert_close(found["pred_logits"], logits)
    torch.testing.assert_close(found["pred_boxes"], detr.bbox_embed(hidden).sigmoid())


def rows_and_columns(sizes: list[tuple[int, int]], canvas: tuple[int, int], channels: int) -> Tensor:
    """The sine embedding of images of these sizes (in cells), cell by cell: sines and cosines of y, then of x."""
    out = torch.zeros(len(sizes), *canvas, channels, dtype=torch.float64)
    for image, (height, width) in enumerate(sizes):
        for row in range(canvas[0]):
            for column in range(canvas[1]):
                # Valid cells of the cell's own column and row up to it, over all of them.
                rows, columns = height * (column < width), width * (row < height)
                y = 2 * torch.pi * min(row + 1, rows) / (rows + 1e-6)
                x = 2 * torch.pi * min(column + 1, columns) / (columns + 1e-6)
                for axis, angle in enumerate((y, x)):
                    for channel in range(channels // 2):
                        phase = torch.tensor(angle / 10000 ** (channel // 2 * 2 / (channels // 2)))
                        wave = phase.cos() if channel % 2 else phase.sin()
                        out[image, row, column, axis * channels // 2 + channel] = wave
    return out.flatten(1, 2)


def test_true_is_padding() -> None:
    """An image in its mask's complement is another image; a mask of the wrong polarity does not pass unseen."""
    detr, (images, mask) = model(), padded_images()
    right, wrong, none = detr(images, mask), detr(images, ~mask), detr(images, torch.zeros_like(mask))
    assert (right["pred_boxes"] - wrong["pred_boxes"]).abs().max() > 0.01
    assert (right["pred_boxes"] - none["pred_boxes"]).abs().max() > 0.01


def test_what_padded_cells_hold_has_no_effect() -> None:
    detr, (images, mask) = model(), padded_images()
    expected, padding = detr(images, mask), mask[:, ::32, ::32]

    def fill(_module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
        return features.masked_fill(padding[:, None], torch.nan)

    detr.input_proj.register_forward_hook(fill)
    for name, found in detr(images, mask).items():
        torch.testing.assert_close(found, expected[name])


def test_padding_invariance() -> None:
    """More padding, by whole cells, changes nothing, if the backbone sees each cell by itself.

    A ResNet does not: its windows reach over the border of the image, where padding is zero in the pixels alone, and on
    the border of the canvas in every layer. So the published model notices how much an image is padded.
    """
    images, mask = padded_images()
    larger = on_larger_canvas(images, mask, 160, 224)
    local = scrambled(DETR(CONFIG, backbone=Patches()))
    for name, expected in local(images, mask).items():
        torch.testing.assert_close(local(*larger)[name], expected)
    published = model()
    assert (published(*larger)["pred_boxes"] - published(images, mask)["pred_boxes"]).abs().max() > 1e-4


def test_images_do_not_see_each_other() -> None:
    detr, (images, mask) = model(), padded_images()
    both = detr(images, mask)
    for image in (0, 1):
        alone = detr(images[image : image + 1], mask[image : image + 1])
        for name in both:
            torch.testing.assert_close(alone[name], both[name][:, image : image + 1])


def test_first_self_attention_is_the_same_for_all_queries() -> None:
    """Its values are zeros, projected: every query receives the same, whatever it attends to."""
    detr, (images, mask) = model(), padded_images()
    outputs = []
    for layer in detr.transformer.decoder.layers:
        layer.attentions[0].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    detr(images, mask)
    first, second = outputs[:2]
    torch.testing.assert_close(first, first[:1, :1].expand_as(first))
    assert (second - second[:, :1]).abs().max() > 1e-3


def test_queries_are_a_set() -> None:
    """Their order is that of query_embed, and means nothing."""
    detr, batch = model(), padded_images()
    before = detr(*batch)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        detr.query_embed.weight.copy_(detr.query_embed.weight[order])
    for name, found in detr(*batch).items():
        torch.testing.assert_close(found, before[name][:, :, order])


def test_gradients_reach_what_is_trained() -> None:
    """Nothing in the stem and the first stage; all else, but for what the first self-attention does not use: its
    contents are zero, and all its values equal."""
    idle = "transformer.decoder.layers.0.attentions.0.in_proj_weight"
    detr = model()
    found = detr(*padded_images())
    sum((each * torch.randn_like(each)).sum() for each in found.values()).backward()
    for name, parameter in detr.named_parameters():
        frozen = name.startswith(("backbone.conv1", "backbone.layer1."))
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name
        assert frozen or (parameter.grad.abs().max() > 1e-12) != (name == idle), name


def test_dropout_is_for_training() -> None:
    """In the transformer alone, at every one of its three places."""
    detr, batch = model(), padded_images()
    assert torch.equal(detr(*batch)["pred_boxes"], detr(*batch)["pred_boxes"])
    detr.train()
    assert (detr(*batch)["pred_boxes"] - detr(*batch)["pred_boxes"]).abs().max() > 1e-4
    rates = {m.p for m in detr.modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.1}
    never = build(replace(CONFIG, dropout=0.0), detr.state_dict()).train()
    assert torch.equal(never(*batch)["pred_boxes"], never(*batch)["pred_boxes"])


def test_initialisation() -> None:
    """Matrices of the transformer Xavier-uniform, the three projections of an attention as one; its biases zero."""
    detr = DETR(DETRConfig(**TINY | {"embed_dim": 64}))
    layer = detr.transformer.decoder.layers[1]
    for matrix in (
        layer.attentions[1].in_proj_weight,
        layer.attentions[0].out_proj.weight,
        layer.ffns[0].layers[1].weight,
    ):
        limit = (6 / sum(matrix.shape)) ** 0.5
        assert matrix.abs().max().item() == pytest.approx(limit, rel=0.02)
    assert not layer.attentions[1].in_proj_bias.any()
    assert not layer.attentions[0].out_proj.bias.any()
    assert detr.query_embed.weight.std().item() == pytest.approx(1, abs=0.1)


def test_dc5_has_the_same_parameters_on_a_finer_map() -> None:
    plain = model()
    dilated = build(replace(CONFIG, backbone_dilation=True), plain.state_dict()).eval()
    images, mask = padded_images()
    assert dilated.backbone(images)[-1].shape[-2:] == (6, 10)
    assert (dilated(images, mask)["pred_boxes"] - plain(images, mask)["pred_boxes"]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_build_copies_the_parameters_it_is_given(dtype: torch.dtype) -> None:
    builds_copies(build, CONFIG, model(), dtype)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"num_queries": 0}, "num_queries must be at least 1, got 0"),
        ({"embed_dim": 6}, "embed_dim must be a multiple of 4 .*got 6"),
        ({"num_heads": 3}, "8 / 3 leaves 2 channels over"),
        ({"feedforward_dim": 0}, "feedforward_dim must be at least 1"),
        ({"num_decoder_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"dropout": 1.5}, "must lie between 0 and 1, got 1.5"),
        ({"backbone_blocks": (1, 1)}, r"blocks must be 4 numbers from 1 up.*got \(1, 1\)"),
    ],
)
def test_wrong_configuration_is_named(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(CONFIG, **wrong)


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_calls_are_named() -> None:
    detr, images, mask = DETR(CONFIG), torch.zeros(2, 3, 32, 64), torch.zeros(2, 32, 64, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"images must be \(batch, 3, height, width\), got \(2, 1, 32, 64\)"):
        detr(images[:, :1], mask)
    with pytest.raises(ValueError, match=r"mask must be .*\(2, 32, 64\) as images are, got \(2, 64, 32\)"):
        detr(images, mask.transpose(1, 2))
    with pytest.raises(TypeError, match=r"mask must be bool \(True is padding\), got torch.float32"):
        detr(images, mask.float())
