"""DINO as a whole: against its pseudocode written down once more, what losses reach, denoising, padding, switches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from detr_reference.denoising import contrastive_denoising as denoising
from detr_reference.denoising.contrastive_denoising import contrastive_denoising
from detr_reference.detectors import dino
from detr_reference.detectors.config import DINOConfig
from detr_reference.detectors.dino import DINO
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from detr_reference.queries import dino_decoder
from helpers.oracles import straight_dino
from helpers.places import CHAPTERS
from helpers.tiny.deformable_models import SIZES, Pooled, padded_images, targets, tiny_dino

LAYERS, QUERIES = SIZES["num_decoder_layers"], SIZES["num_queries"]
VARIANTS = pytest.mark.parametrize(
    "variant",
    [
        {},
        {"shared_heads": True, "label_embedding_size": 5},
        {"embed_scaled_references": False, "position_temperature": 10000.0, "position_offset": -0.5},
        {"look_forward_twice": False, "num_levels": 4, "backbone_stages": (2, 3, 4), "num_encoder_layers": 2},
    ],
    ids=["default", "shared heads", "unscaled", "four levels"],
)


class Stages:
    """What the modules of a model give out during a call, by the names of the oracle."""

    def __init__(self, model: DINO) -> None:
        self.found: dict[str, Any] = {}
        for name, module in (("neck", model.neck), ("memory", model.transformer.encoder)):
            module.register_forward_hook(self._keep(name))
        model.transformer.encoder.register_forward_hook(
            lambda module, given, output: self.found.update(positions=given[0].positions, padding=given[0].padding)
        )

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            self.found[name] = output

        return hook


@torch.no_grad()
@VARIANTS
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_stages_of_the_pseudocode(variant: dict[str, Any], training: bool) -> None:
    model, (images, mask), truth = tiny_dino(**variant).train(training), padded_images(), targets(2, 0)
    stages = Stages(model)
    denoising = None
    if training:  # the noise has tests of its own; here it is only drawn alike
        torch.manual_seed(5)
        drawn = contrastive_denoising(
            *truth, model.label_enc.weight[:3], num_queries=QUERIES, denoising_number=model.config.denoising_number
        )
        groups, size = 2, 4
        forbidden = torch.zeros(groups * size + QUERIES, groups * size + QUERIES, dtype=torch.bool)
        forbidden[groups * size :, : groups * size] = True
        forbidden[:size, size : 2 * size] = forbidden[size : 2 * size, :size] = True
        denoising = drawn["content"], drawn["references"], forbidden
        torch.manual_seed(5)
    found = model(images, mask, *truth)
    expected = straight_dino.dino(stages.found["neck"], mask, model.state_dict(), model.config, denoising)
    valid = ~stages.found["padding"]  # nobody reads what padding holds, and with an offset its phases are millions
    for name in ("positions", "memory"):
        found[name], expected[name] = stages.found[name][valid], expected[name][valid]
    assert set(found) == set(expected)
    for name, tensor in expected.items():  # in the order in which they are made
        torch.testing.assert_close(
            found[name], tensor, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert (found["enc_boxes"] < 1).all(-1).double().mean() > 0.7
    assert found["pred_boxes"].std((1, 2)).min() > 1e-3
    assert found["pred_logits"].std((1, 2)).min() > 1e-3


@torch.no_grad()
def test_matching_predictions_do_not_know_of_denoising() -> None:
    """The same without it, and with other truth."""
    model, (images, mask) = tiny_dino(), padded_images()
    alone = model.train()(images, mask)
    assert "dn_logits" not in alone
    assert torch.equal(model.eval()(images, mask, *targets(3, 1))["pred_boxes"], alone["pred_boxes"])
    for counts in ((3, 1), (2, 2), (0, 1), (9, 0)):
        beside = model.train()(images, mask, *targets(*counts))
        assert beside["dn_logits"].shape[2] > 0
        for name in alone:
            torch.testing.assert_close(beside[name], alone[name], rtol=0, atol=1e-12)


@torch.no_grad()
def test_without_a_box_there_are_no_denoising_queries() -> None:
    model, (images, mask) = tiny_dino().train(), padded_images()
    found = model(images, mask, *targets(0, 0))
    assert found["dn_logits"].shape == (LAYERS, 2, 0, 3)
    assert found["dn_boxes"].shape == (LAYERS, 2, 0, 4)


@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0)])
@VARIANTS
def test_every_parameter_has_a_gradient(variant: dict[str, Any], counts: tuple[int, int]) -> None:
    """Distributed training waits for all of them, whatever the images hold."""
    model, (images, mask), truth = tiny_dino(**variant).train(), padded_images(), targets(*counts)
    loss(model(images, mask, *truth), truth).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_every_parameter_has_a_gradient_without_targets() -> None:
    model, (images, mask) = tiny_dino().train(), padded_images()
    predictions = model(images, mask)
    sum(tensor.sum() for tensor in predictions.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_decoder_never_reaches_the_first_stage() -> None:
    """Exact zeros: what is selected is detached. Its own loss reaches it, and the encoder below."""
    model, (images, mask), truth = tiny_dino().train(), padded_images(), targets(3, 1)
    found = model(images, mask, *truth)
    decoder = [found[name] for name in ("pred_logits", "pred_boxes", "dn_logits", "dn_boxes")]
    first_stage = ("transformer.enc_output", f"class_embed.{LAYERS}", f"bbox_embed.{LAYERS}")
    reached = reached_by(model, *decoder)
    assert not [name for name in reached if name.startswith(first_stage)]
    assert [name for name in reached if name.startswith("transformer.encoder")]
    own = reached_by(model, found["enc_logits"], found["enc_boxes"])
    assert {name for name in dict(model.named_parameters()) if name.startswith(first_stage)} <= own
    assert not [name for name in own if name.startswith(("transformer.decoder", "transformer.tgt_embed", "label_enc"))]
    assert [name for name in own if name.startswith("transformer.encoder")]


def test_pure_selection_reaches_no_further() -> None:
    """Selected content is detached like selected boxes."""
    model, (images, mask) = tiny_dino(query_selection="pure"), padded_images()
    found = model(images, mask)
    reached = reached_by(model, found["pred_logits"], found["pred_boxes"])
    assert not [name for name in reached if name.startswith("transformer.enc_output")]


def test_a_loss_of_classes_reaches_no_box_head() -> None:
    model, (images, mask), truth = tiny_dino().train(), padded_images(), targets(3, 1)
    found = model(images, mask, *truth)
    reached = reached_by(model, found["pred_logits"], found["dn_logits"])
    assert not [name for name in reached if name.startswith("bbox_embed")]
    assert {f"class_embed.{layer}.weight" for layer in range(LAYERS)} <= reached


@pytest.mark.parametrize("twice", [True, False])
def test_a_box_reaches_its_head_and_the_one_before(twice: bool) -> None:
    """The gradient band of looking forward twice, in the whole model."""
    model, (images, mask) = tiny_dino(look_forward_twice=twice), padded_images()
    boxes = model(images, mask)["pred_boxes"]
    for layer in range(LAYERS):
        reached = reached_by(model, boxes[layer])
        heads = {int(name.split(".")[1]) for name in reached if name.startswith("bbox_embed")}
        assert heads == {layer} | ({layer - 1} & set(range(LAYERS)) if twice else set())


@torch.no_grad()
@pytest.mark.parametrize("scaled", [False, True])
def test_padding_matters_only_through_scaled_references(scaled: bool) -> None:
    """The same maps with more padding, by whole cells of the coarsest: all else cancels in exact arithmetic."""
    model = tiny_dino(embed_scaled_references=scaled).eval()
    sizes, strides = ((8, 12), (4, 6), (2, 3)), (8, 16, 32)
    maps = [torch.randn(1, 8, *size, dtype=torch.float64) for size in sizes]

    def predictions(rows: int, columns: int) -> dict[str, Tensor]:
        padded = [
            nn.functional.pad(each, (0, 32 * columns // stride, 0, 32 * rows // stride), value=3.0)
            for each, stride in zip(maps, strides, strict=True)
        ]
        model.neck = Given(tuple(padded))
        mask = torch.ones(1, 64 + 32 * rows, 96 + 32 * columns, dtype=torch.bool)
        mask[:, :64, :96] = False
        return model(torch.zeros(1, 3, *mask.shape[1:], dtype=torch.float64), mask)

    before, after = predictions(0, 0), predictions(1, 2)
    for name in ("enc_logits", "enc_boxes"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-10)
    difference = (after["pred_logits"] - before["pred_logits"]).abs().max()
    assert difference > 1e-2 if scaled else difference < 1e-10


class Given(nn.Module):
    """Gives out these maps, whatever it is given."""

    def __init__(self, maps: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.maps


def test_heads_and_their_storage() -> None:
    """A pair for each layer, or one for all, and one for the first stage; nowhere a second time."""
    for options, pairs in (({}, LAYERS + 1), ({"shared_heads": True}, 2)):
        model = tiny_dino(**options)
        for kind, tensors in (("class_embed", 2), ("bbox_embed", 6)):
            names = [name for name in model.state_dict() if kind in name]
            assert {name.split(".")[:2][1] for name in names} == {str(index) for index in range(pairs)}
            assert len(names) == pairs * tensors


@torch.no_grad()
def test_initial_boxes_are_the_selected_ones() -> None:
    """As far as the logit lets them: box heads begin with zeros."""
    model = dino.build(DINOConfig(**SIZES)).eval()
    images, mask = padded_images()
    found = model(images.float(), mask)
    selected = found["enc_boxes"].clamp(1e-3 / 1.001, 1 - 1e-3 / 1.001)
    torch.testing.assert_close(found["pred_boxes"], selected.expand_as(found["pred_boxes"]), rtol=0, atol=1e-4)
    assert found["pred_logits"].sigmoid().median() < 0.05
    for attention in model.modules():
        if isinstance(attention, MultiScaleDeformableAttention):
            assert not attention.sampling_offsets.weight.any()
            assert attention.sampling_offsets.bias.abs().max() == SIZES["num_points"]


@torch.no_grad()
def test_selection_is_in_falling_order_of_the_highest_class() -> None:
    model, (images, mask) = tiny_dino(), padded_images()
    scores = model(images, mask)["enc_logits"].amax(-1)
    assert (scores.diff() <= 0).all()


def test_only_the_classes_have_noised_labels() -> None:
    """Rows of the label embedding beyond the classes are never read."""
    model, (images, mask) = tiny_dino(label_embedding_size=6, label_noise_ratio=1.0).train(), padded_images()
    model(images, mask, *targets(9, 8))["dn_logits"].square().sum().backward()
    gradient = model.label_enc.weight.grad
    assert gradient is not None
    assert gradient[:3].abs().amax(1).min() > 0
    assert not gradient[3:].any()


@torch.no_grad()
def test_a_kernel_runs_in_every_layer() -> None:
    calls = []

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return ms_deform_attn(*arguments)

    model, (images, mask) = tiny_dino(), padded_images()
    again = dino.build(model.config, model.state_dict(), core=counted)(images, mask)
    assert len(calls) == SIZES["num_encoder_layers"] + LAYERS
    assert torch.equal(again["pred_boxes"], model(images, mask)["pred_boxes"])


@torch.no_grad()
def test_another_backbone() -> None:
    """The neck takes its channels, whatever they are."""
    model = DINO(DINOConfig(**SIZES), backbone=Pooled()).double()
    images, mask = padded_images()
    assert model(images, mask)["pred_boxes"].shape == (LAYERS, 2, SIZES["num_queries"], 4)
    assert [conv.conv.in_channels for conv in model.neck.convs] == [3, 5]


@torch.no_grad()
def test_images_are_separate() -> None:
    model, (images, mask) = tiny_dino(), padded_images()
    together, alone = model(images, mask), model(images[1:], mask[1:])
    for name, tensor in alone.items():
        axis = 0 if name.startswith("enc") else 1
        torch.testing.assert_close(together[name].narrow(axis, 1, 1), tensor, rtol=0, atol=1e-12)


def test_switches_decide_what_there_is() -> None:
    images, mask = padded_images()
    truth = targets(3, 1)
    static = tiny_dino(query_selection="static").train()
    assert set(static(images, mask, *truth)) == {"pred_logits", "pred_boxes", "dn_logits", "dn_boxes"}
    assert not [name for name in static.state_dict() if "enc_output" in name]
    assert len(static.class_embed) == LAYERS
    pure = tiny_dino(query_selection="pure")
    assert not [name for name in pure.state_dict() if "tgt_embed" in name or "refpoint_embed" in name]
    nothing = tiny_dino(denoising="none").train()
    assert set(nothing(images, mask, *truth)) == {"pred_logits", "pred_boxes", "enc_logits", "enc_boxes"}
    assert not [name for name in nothing.state_dict() if "label_enc" in name]
    plain = tiny_dino(denoising="plain").train()
    assert plain(images, mask, *truth)["dn_logits"].shape[2] == 3  # one group of three boxes
    assert tiny_dino().train()(images, mask, *truth)["dn_logits"].shape[2] == 6  # and as many negatives


def test_static_references_learn() -> None:
    """From the first layer's prediction and from where it looked; what was moved once is detached."""
    model, (images, mask) = tiny_dino(query_selection="static", look_forward_twice=False), padded_images()
    found = model(images, mask)
    assert "transformer.refpoint_embed.weight" in reached_by(model, found["pred_logits"][0])
    for layer in range(LAYERS):
        assert "transformer.refpoint_embed.weight" in reached_by(model, found["pred_boxes"][layer])


def test_five_scales() -> None:
    model = tiny_dino(backbone_stages=(1, 2, 3, 4), num_levels=5)
    assert model(*padded_images())["pred_boxes"].shape == (LAYERS, 2, QUERIES, 4)
    assert len(model.neck.extra_convs) == 1


def test_told_twice() -> None:
    """The steps of the chapter's pseudocode are those of the code, in one order."""
    chapter = (CHAPTERS / "19-dino.md").read_text()
    page = chapter.partition("## The pseudocode")[2].partition("## What each step is for")[0]
    steps = [int(number) for number in re.findall(r"^    +(\d+)   ", page, re.MULTILINE)]
    assert steps == list(range(1, 14))
    code = Path(dino.__file__).read_text()
    forward = code.partition("def forward(")[2].partition("def _selected_cells")[0]
    comments = " ".join(re.findall(r"^ *# (\d.*)$", forward, re.MULTILINE))
    assert [int(number) for number in re.findall(r"\b(\d+)\.", comments)] == [1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13]
    names = set(re.findall(r"^ +(?:\d+ )? *([a-z_]+)(?:, [a-z_]+)* += ", page, re.MULTILINE))
    written = code + "".join(Path(part.__file__).read_text() for part in (dino_decoder, denoising))
    assert {name for name in names if not re.search(rf"{name}\b", written)} == set()


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    for name, value in (("query_selection", "mixd"), ("denoising", "dn")):
        with pytest.raises(ValueError, match=f"{name} must be one of .*, got '{value}'"):
            DINOConfig(**{name: value})
    with pytest.raises(ValueError, match="label_embedding_size must be at least num_classes, got 80 and 91"):
        DINOConfig(num_classes=91, label_embedding_size=80)
    with pytest.raises(ValueError, match=r"label_noise_ratio must lie between 0 and 1, got 1\.5"):
        DINOConfig(label_noise_ratio=1.5)
    with pytest.raises(ValueError, match=r"box_noise_scale must not be negative, got -1\.0"):
        DINOConfig(box_noise_scale=-1.0)
    with pytest.raises(ValueError, match="denoising_number must be at least 1, got 0"):
        DINOConfig(denoising_number=0)
    model, (images, mask), (labels, boxes, counts) = tiny_dino().train(), padded_images(), targets(2, 1)
    with pytest.raises(ValueError, match="belong together; missing: target_counts"):
        model(images, mask, labels, boxes)
    with pytest.raises(ValueError, match=r"target_counts must be \(batch,\) = \(2,\), got \(3,\)"):
        model(images, mask, labels, boxes, torch.tensor([1, 1, 1]))
    with pytest.raises(ValueError, match="classes are numbered from 0 to 2"):
        model(images, mask, labels + 3, boxes, counts)


def loss(predictions: dict[str, Tensor], truth: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    names = ("target_labels", "target_boxes", "target_counts")
    return weighted_total(detection_losses(**predictions, **dict(zip(names, truth, strict=True))))


def reached_by(model: DINO, *outputs: Tensor) -> set[str]:
    """Names of the parameters that these outputs have a gradient of that is not exactly zero."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    total = torch.stack([(output.square() + output).sum() for output in outputs]).sum()
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True, retain_graph=True)
    return {name for name, each in zip(named, found, strict=True) if each is not None and each.abs().max() > 0}
