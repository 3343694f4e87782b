"""The whole DETR, with random parameters, frozen statistics included. Clauses: spec chapter 17."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree
from detr_conformance.harness.block_case import parameters_of, settings_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.detectors.cases.models import SMALL, UNEVEN, each_form, layer_counts, model_case, uneven
from detr_conformance.topics.detectors.cases.regimes import as_published, canvases, other_sizes, whole_images
from detr_conformance.topics.detectors.checks.dropping import (
    decoder_image,
    drops_in_the_decoder,
    drops_in_the_encoder,
    encoder_image,
)
from detr_conformance.topics.detectors.checks.models import (
    expect_reached,
    expect_unreached,
    gradients_agree_in_norm,
    permuted_agrees,
    reached,
    stages_agree,
    training,
)

FLOAT32 = ("float32",)  # in float64 chapter 3 and the first clause are enough
OPERATION = "detr"
DECODER = "transformer.decoder.layers"


@covers("DETR-1", cases=layer_counts)
def test_every_layer_predicts(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DETR-9", cases=as_published, dtypes=FLOAT32, feature="backward", plain=agrees)
def test_gradients_of_six_layers(subject: Subject, case: Case) -> None:
    gradients_agree_in_norm(subject, case)


@covers("DETR-1", cases=as_published, dtypes=FLOAT32)
def test_six_layers_predict(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def backbones(subject: Subject) -> Iterator[Case]:
    for blocks in ((1, 1, 2, 1), (2, 1, 1, 2)):
        yield model_case(subject, f"blocks {blocks}", backbone_blocks=blocks, backbone_width=3)


@covers("DETR-2", cases=backbones, dtypes=FLOAT32)
def test_backbone(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DETR-3", cases=each_form, dtypes=FLOAT32)
def test_frozen_statistics(subject: Subject, case: Case) -> None:
    """`forward` refuses changed buffers; in training mode the output must be that of evaluation."""
    right = expectations(subject, case, backward=False)["output"]
    output = forward(subject, case, training(subject, case))
    subject.compare("output in training mode", output, right.expected, right.limit)
    small = model_case(subject, "small variances")
    name = "backbone.bn1.running_var"
    agrees(subject, with_parameters(small, **{name.replace(".", "__"): parameters_of(small)[name] * 1e-5}))


@covers("DETR-4", cases=lambda subject: [*uneven(subject), *canvases(subject)], dtypes=FLOAT32)
def test_padding(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def wide_maps(subject: Subject) -> Iterator[Case]:
    """Unlike numbers of rows and columns, where every layer looks hard at positions."""
    case = model_case(subject, "sharp attention", size=(96, 224), extents=((96, 128), (64, 224)))
    names = [name for name in parameters_of(case) if name.endswith("in_proj_weight")]
    yield with_parameters(case, **{name.replace(".", "__"): parameters_of(case)[name] * 2 for name in names})


@covers("DETR-5", cases=wide_maps, dtypes=FLOAT32)
def test_positions_in_every_layer(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DETR-6", cases=each_form, dtypes=FLOAT32)
def test_queries_are_positions(subject: Subject, case: Case) -> None:
    permuted_agrees(subject, case, "parameter:query_embed.weight")
    agrees(subject, case)


def strong_final_norm(subject: Subject) -> Iterator[Case]:
    case = model_case(subject, "a final norm far from the identity")
    name = "transformer.decoder.post_norm_layer"
    changed = {f"{name}.{part}": parameters_of(case)[f"{name}.{part}"] * 3 for part in ("weight", "bias")}
    yield with_parameters(case, **{key.replace(".", "__"): tensor for key, tensor in changed.items()})


@covers("DETR-7", cases=strong_final_norm, dtypes=FLOAT32)
def test_final_norm(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def other_heads(subject: Subject) -> Iterator[Case]:
    for classes, queries in ((1, 3), (9, 7)):
        yield model_case(subject, f"{classes} classes", num_classes=classes, num_queries=queries)


@covers("DETR-8", cases=other_heads, dtypes=FLOAT32)
def test_heads(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DETR-9", cases=each_form, dtypes=FLOAT32, feature="backward", plain=agrees)
def test_gradients(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)
    layers = range(settings_of(case)["num_decoder_layers"])
    for layer in layers:
        found = reached(subject, case, "pred_logits", layer)
        what = f"the class prediction of layer {layer}"
        expect_reached(found, [f"{DECODER}.{j}." for j in layers if j <= layer], what)
        expect_reached(found, ["backbone", "input_proj", "query_embed", "transformer.encoder.layers.0."], what)
        expect_unreached(found, [*(f"{DECODER}.{j}." for j in layers if j > layer), "bbox_embed"], what)


@covers("DETR-10", cases=each_form, dtypes=FLOAT32)
def test_stages(subject: Subject, case: Case) -> None:
    stages_agree(subject, case)


@covers("DETR-11", cases=whole_images, dtypes=FLOAT32)
def test_images_without_padding(subject: Subject, case: Case) -> None:
    require(any(not image.any() for image in case["mask"]), "an image without padding")
    agrees(subject, case)


def dilated(subject: Subject) -> Iterator[Case]:
    """One, two and three blocks in the last stage; the first block never looks further."""
    if subject.variant("dilation") == "none":
        raise NotProvided("the backbone has no dilation")
    for blocks in ((1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 2, 3)):
        settings: dict[str, Any] = {"backbone_blocks": blocks, "backbone_dilation": True}
        yield model_case(subject, f"dilated, blocks {blocks}", size=SMALL, extents=UNEVEN[SMALL], **settings)


@covers("DETR-12", cases=dilated, dtypes=FLOAT32)
def test_dilation(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DETR-13", cases=other_sizes, dtypes=FLOAT32)
def test_sizes(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DETR-14", cases=decoder_image, dtypes=FLOAT32)
def test_dropout_in_the_decoder(subject: Subject, case: Case) -> None:
    drops_in_the_decoder(subject, case)


@covers("DETR-14", cases=encoder_image, dtypes=FLOAT32)
def test_dropout_in_the_encoder(subject: Subject, case: Case) -> None:
    drops_in_the_encoder(subject, case)
