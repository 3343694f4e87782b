"""DINO's decoder against a straight-line NumPy one, its gradients, its initialisation, and what padding changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detr_reference.deformable_attention.core import level_starts, ms_deform_attn
from detr_reference.queries.config import DINODecoderConfig
from detr_reference.queries.dino_decoder import DINODecoderWithHeads, build
from helpers.oracles.straight_decoder import Image, Sizes, decode
from helpers.tiny.dino_decoder_cases import SHAPES, call, config, perturbed

OUTPUTS = ["hidden_states", "references", "pred_logits", "pred_boxes"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shared_heads": True, "eps": 0.1},
        {"look_forward_twice": False, "num_layers": 1},
        {"embed_scaled_references": False, "num_layers": 2},
    ],
)
def test_straight_decoder(changes: dict[str, Any]) -> None:
    """One image at a time, with references beyond eps and boxes beyond the image among them."""
    decoder, given = perturbed(**changes), call()
    given["reference_points"][0, 0] = torch.tensor([0.02, 0.999, 0.0, 1.0], dtype=torch.float64)
    found = decoder(**given)
    assert list(found) == OUTPUTS
    parameters = {name: p.detach().numpy() for name, p in decoder.named_parameters()}
    sizes = Sizes(decoder.config.num_layers, 2, 3, decoder.config.embed_scaled_references, decoder.config.eps)
    for b in range(2):
        batched = ("query", "memory", "reference_points", "key_padding_mask", "valid_ratios")
        query, memory, boxes, padding, ratios = (given[name][b].numpy() for name in batched)
        image = Image(query, memory, boxes, given["attn_mask"].numpy(), padding, list(SHAPES), ratios)
        for name, expected in decode(image, parameters, sizes).items():
            got = found[name][:, b]
            torch.testing.assert_close(
                got, torch.from_numpy(expected), rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_gradients() -> None:
    """Central differences, where the detached references are constants: of a decoder with one layer they all are."""
    decoder, given = perturbed(num_layers=1, num_points=1), call(queries=2)
    names = ("query", "memory", "valid_ratios")

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        found = decoder(**{**given, **dict(zip(names, values, strict=True))})
        return found["pred_logits"], found["pred_boxes"], found["references"]

    inputs = tuple(given[name].requires_grad_() for name in names)
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)


def test_the_default_call_needs_no_masks() -> None:
    decoder, given = perturbed(), call()
    nothing = {**given, "attn_mask": torch.zeros(4, 4, dtype=torch.bool)}
    nothing["key_padding_mask"] = torch.zeros_like(given["key_padding_mask"])
    without = {**given, "attn_mask": None, "key_padding_mask": None}
    for name, expected in decoder(**nothing).items():
        assert torch.equal(decoder(**without)[name], expected)


def test_any_core_runs_inside() -> None:
    """The sampling function is an argument, called once a layer."""
    calls = []

    def core(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return ms_deform_attn(*arguments)

    decoder = perturbed()
    other = DINODecoderWithHeads(decoder.config, core=core).double().eval()
    other.load_state_dict(decoder.state_dict())
    given = call()
    assert torch.equal(other(**given)["pred_boxes"], decoder(**given)["pred_boxes"])
    assert len(calls) == 3


# -- initialisation -------------------------------------------------------------------------------------------


def test_boxes_begin_at_their_references() -> None:
    """The last layer of every box head is zero, so that all predictions are clamp(reference, eps, 1 - eps)."""
    decoder = build(config()).double()
    given = call()
    given["reference_points"][0, 0] = torch.tensor([0.0, 1.0, 1e-4, 0.9999], dtype=torch.float64)
    found = decoder(**given)
    clamped = given["reference_points"].clamp(1e-3, 1 - 1e-3)
    # log(max(x, eps) / max(1 - x, eps)) of 1e-4 is that of 1e-3 but for the denominator
    for boxes in (*found["pred_boxes"], *found["references"][1:]):
        torch.testing.assert_close(boxes, clamped, rtol=0, atol=1e-6)
        torch.testing.assert_close(boxes[1], given["reference_points"][1])


def test_every_class_begins_with_the_score_of_the_prior() -> None:
    decoder = build(config(embed_dim=32, num_classes=80))
    for head in decoder.class_embed:
        torch.testing.assert_close(head.bias, torch.full((80,), -4.59512))
        torch.testing.assert_close(head.bias.sigmoid(), torch.full((80,), 0.01))
        assert head.weight.std() > 0.01


def test_the_deformable_attention_keeps_its_own_initialisation() -> None:
    """A global Xavier loop would overwrite it: DINO issue 197, 47.9 AP in place of 49.0."""
    for layer in build(config()).layers:
        attention = layer.attentions[1]
        assert not attention.sampling_offsets.weight.any()
        assert not attention.attention_weights.weight.any()
        assert attention.sampling_offsets.bias.view(2, 2, 3, 2)[0, 0].tolist() == [[1, 0], [2, 0], [3, 0]]


@pytest.mark.parametrize(("shared", "heads"), [(True, 1), (False, 3)])
def test_shared_heads_are_one_storage(shared: bool, heads: int) -> None:
    decoder = build(config(shared_heads=shared))
    for name in ("bbox_embed", "class_embed"):
        numbers = {key.split(".")[1] for key in decoder.state_dict() if key.startswith(name)}
        assert numbers == {str(i) for i in range(heads)}
    calls = []
    for head in (*decoder.bbox_embed, *decoder.class_embed):
        head.register_forward_hook(lambda module, _inputs, _output: calls.append(module))
    decoder(**{name: t.float() if t.is_floating_point() else t for name, t in call().items()})
    used = [{p.data_ptr() for p in module.parameters()} for module in calls]
    assert len(used) == 3 * 3  # a class head once, a box head twice a layer
    assert len({min(storages) for storages in used}) == 2 * heads


# -- padding --------------------------------------------------------------------------------------------------


def padded(given: dict[str, Any], rows: int, columns: int) -> dict[str, Any]:
    """The same images on maps with more rows and columns of padding."""
    maps = given["memory"].split([h * w for h, w in SHAPES], 1)
    masks = given["key_padding_mask"].split([h * w for h, w in SHAPES], 1)
    wide, padding = [], []
    for (height, width), cells, mask in zip(SHAPES, maps, masks, strict=True):
        grown = torch.randn(2, height + rows, width + columns, 8, dtype=torch.float64) * 9
        grown[:, :height, :width] = cells.unflatten(1, (height, width))
        wide.append(grown.flatten(1, 2))
        full = torch.ones(2, height + rows, width + columns, dtype=torch.bool)
        full[:, :height, :width] = mask.unflatten(1, (height, width))
        padding.append(full.flatten(1))
    shapes = torch.tensor([(h + rows, w + columns) for h, w in SHAPES])
    scale = torch.tensor(SHAPES).flip(-1) / shapes.flip(-1).double()
    return {
        **given,
        "memory": torch.cat(wide, 1),
        "key_padding_mask": torch.cat(padding, 1),
        "spatial_shapes": shapes,
        "level_start_index": level_starts(shapes),
        "valid_ratios": given["valid_ratios"] * scale,
    }


def change_by_padding(decoder: DINODecoderWithHeads) -> float:
    given = call()
    before, after = decoder(**given), decoder(**padded(given, 2, 3))
    return max((after[name] - before[name]).abs().max().item() for name in before)


def test_padding_changes_nothing_where_boxes_are_embedded_as_they_are() -> None:
    assert change_by_padding(perturbed(embed_scaled_references=False)) < 1e-12


def test_padding_changes_the_published_decoder() -> None:
    """Only because query positions are made of boxes relative to the padded map: without these, nothing moves."""
    decoder = perturbed(embed_scaled_references=True)
    assert change_by_padding(decoder) > 0.05
    with torch.no_grad():
        decoder.ref_point_head.layers[0].weight.zero_()
    assert change_by_padding(decoder) < 1e-12


# -- half precision and errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_boxes_are_not_rounded_between_layers(dtype: torch.dtype) -> None:
    """The references that layers look from are wider than the tokens; only what is returned is rounded."""
    locations = []

    def core(*arguments: Tensor) -> Tensor:
        locations.append(arguments[3])
        return ms_deform_attn(*arguments)

    decoder = DINODecoderWithHeads(config(), core=core).to(dtype).eval()
    given = {name: t.to(dtype) if t.is_floating_point() else t for name, t in call().items()}
    assert {tensor.dtype for tensor in decoder(**given).values()} == {dtype}
    assert {each.dtype for each in locations} == {torch.float32}


def test_configuration_errors() -> None:
    for changes, message in (
        ({"embed_dim": 6, "num_heads": 2}, "embed_dim must be a multiple of 4, got 6"),
        ({"num_heads": 3}, "num_heads must divide embed_dim"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"num_levels": 0}, "num_levels must be at least 1, got 0"),
        ({"dropout": 1.5}, "must lie between 0 and 1, got 1.5"),
        ({"activation": "silu"}, "activation must be one of relu, gelu, got 'silu'"),
        ({"eps": 0.5}, r"eps must lie between 0 and 0\.5, got 0\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**changes)
    assert DINODecoderConfig().layer.feedforward_dim == 2048


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_of_a_call() -> None:
    decoder, given = perturbed(), call()
    for name, wrong, message in (
        (
            "reference_points",
            given["reference_points"][..., :2],
            r"reference_points must be .* = \(2, 4, 4\), got \(2, 4, 2\)",
        ),
        ("valid_ratios", given["valid_ratios"][:, :1], r"valid_ratios must be .* = \(2, 2, 2\), got \(2, 1, 2\)"),
        ("key_padding_mask", given["key_padding_mask"][:1], "key_padding_mask"),
        ("attn_mask", given["attn_mask"][:1], "attn_mask"),
        ("memory", given["memory"][:, 1:], r"length of value, \(2, 22\)"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder(**{**given, name: wrong})
