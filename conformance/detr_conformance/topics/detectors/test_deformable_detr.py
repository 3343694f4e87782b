"""The whole Deformable DETR in its three forms. Clauses: spec chapter 18."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detr_conformance.harness.block import agrees, gradients_agree
from detr_conformance.harness.block_case import parameters_of, settings_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.detectors.cases.models import each_form, forms, layer_counts, model_case, uneven
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
    part_agrees,
    permuted_agrees,
    reached,
    stages_agree,
)

FLOAT32 = ("float32",)  # in float64 chapter 3 and the first clause are enough
OPERATION = "deformable_detr"


def form(name: str, subject: Subject, note: str = "", **settings: Any) -> Case:
    """A case of one form.

    Raises:
        NotProvided: the target does not have it.
    """
    if name not in forms(subject):
        raise NotProvided(f"there is no {name} form")
    return model_case(subject, f"{name}{note and ', '}{note}", **forms(subject)[name], **settings)


def plain(subject: Subject) -> Iterator[Case]:
    yield form("plain", subject)


def refined(subject: Subject) -> Iterator[Case]:
    yield form("refined", subject)


def two_stage(subject: Subject) -> Iterator[Case]:
    yield form("two-stage", subject)


def one_stage(subject: Subject) -> Iterator[Case]:
    for name in ("plain", "refined"):
        yield form(name, subject)


@covers("DDETR-1", cases=layer_counts)
def test_every_layer_predicts(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DDETR-12", cases=as_published, dtypes=FLOAT32, feature="backward", plain=agrees)
def test_gradients_of_six_layers(subject: Subject, case: Case) -> None:
    gradients_agree_in_norm(subject, case)


@covers("DDETR-1", cases=as_published, dtypes=FLOAT32)
def test_six_layers_predict(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def levels(subject: Subject) -> Iterator[Case]:
    """More and fewer maps than the backbone has stages to give."""
    for number, stages in ((3, (2, 3, 4)), (4, (3, 4)), (5, (2, 3, 4)), (1, (4,)), (6, (1, 2, 3, 4)), (2, (2,))):
        yield form("plain", subject, f"{number} levels of {stages}", num_levels=number, backbone_stages=stages)


@covers("DDETR-2", cases=levels, dtypes=FLOAT32)
def test_levels(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def strong_levels(subject: Subject) -> Iterator[Case]:
    case = form("plain", subject, "level vectors five times as large")
    yield with_parameters(case, transformer__level_embeds=parameters_of(case)["transformer.level_embeds"] * 5)


@covers("DDETR-3", cases=strong_levels, dtypes=FLOAT32)
def test_positions_of_cells(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DDETR-4", cases=lambda subject: [*uneven(subject), *canvases(subject)], dtypes=FLOAT32)
def test_padding(subject: Subject, case: Case) -> None:
    """Ratios of padded maps, padded cells, padded rows of the sine embedding."""
    agrees(subject, case)


@covers("DDETR-5", cases=one_stage, dtypes=FLOAT32)
def test_halves_of_a_query(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    permuted_agrees(subject, case, "parameter:query_embedding.weight")


def wide_references(subject: Subject) -> Iterator[Case]:
    """References all over the image, images of unlike shares of the map."""
    case = form("plain", subject, "wide references", extents=((32, 96), (64, 32)))
    name = "transformer.reference_points.weight"
    yield with_parameters(case, **{name.replace(".", "__"): parameters_of(case)[name] * 3})


@covers("DDETR-6", cases=wide_references, dtypes=FLOAT32)
def test_references_are_points(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DDETR-7", cases=plain, dtypes=FLOAT32, feature="backward")
def test_shared_heads(subject: Subject, case: Case) -> None:
    """One head of each kind; every layer's prediction trains it, and layer i trains the layers up to i."""
    agrees(subject, case)
    layers = range(settings_of(case)["num_decoder_layers"])
    for layer in layers:
        found = reached(subject, case, "pred_boxes", layer)
        what = f"the boxes of layer {layer}"
        paths = [f"transformer.decoder.layers.{j}." for j in layers]
        expect_reached(found, ["bbox_embed.0.", *paths[: layer + 1]], what)
        expect_unreached(found, paths[layer + 1 :], what)


@covers("DDETR-8", cases=refined, dtypes=FLOAT32, feature="backward")
def test_refinement(subject: Subject, case: Case) -> None:
    """The boxes of layer i train the box head of layer i and no other: references are detached."""
    agrees(subject, case)
    layers = range(settings_of(case)["num_decoder_layers"])
    for layer in layers:
        found = reached(subject, case, "pred_boxes", layer)
        what = f"the boxes of layer {layer}"
        expect_reached(found, [f"bbox_embed.{layer}."], what)
        expect_unreached(found, [f"bbox_embed.{j}." for j in layers if j != layer] + ["class_embed"], what)


@covers("DDETR-9", cases=two_stage, dtypes=FLOAT32)
def test_selection(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DDETR-10", cases=two_stage, dtypes=FLOAT32, feature="backward")
def test_selected_queries(subject: Subject, case: Case) -> None:
    """The boxes of the decoder train neither the first stage's heads nor its projection."""
    part_agrees(subject, case, "pred_logits", "pred_boxes")
    last = settings_of(case)["num_decoder_layers"]
    for output in ("pred_boxes", "pred_logits"):
        found = reached(subject, case, output, None)
        first_stage = [f"bbox_embed.{last}.", f"class_embed.{last}.", "transformer.enc_output"]
        expect_unreached(found, first_stage, output)
        expect_reached(found, ["transformer.pos_trans", "transformer.encoder", "backbone"], output)


@covers("DDETR-11", cases=two_stage, dtypes=FLOAT32, feature="backward")
def test_first_stage_predictions(subject: Subject, case: Case) -> None:
    """One prediction for each cell, which trains the encoder."""
    part_agrees(subject, case, "enc_logits", "enc_boxes")
    last = settings_of(case)["num_decoder_layers"]
    for output, head in (("enc_boxes", f"bbox_embed.{last}."), ("enc_logits", f"class_embed.{last}.")):
        found = reached(subject, case, output, None)
        expect_reached(found, [head, "transformer.enc_output", "transformer.encoder.layers.0.", "backbone"], output)
        expect_unreached(found, ["transformer.decoder", "transformer.pos_trans"], output)


@covers("DDETR-12", cases=each_form, dtypes=FLOAT32, feature="backward", plain=agrees)
def test_gradients(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("DDETR-13", cases=each_form, dtypes=FLOAT32)
def test_stages(subject: Subject, case: Case) -> None:
    stages_agree(subject, case)


@covers("DDETR-14", cases=whole_images, dtypes=FLOAT32)
def test_images_without_padding(subject: Subject, case: Case) -> None:
    require(any(not image.any() for image in case["mask"]), "an image without padding")
    agrees(subject, case)


@covers("DDETR-15", cases=other_sizes, dtypes=FLOAT32)
def test_sizes(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DDETR-16", cases=decoder_image, dtypes=FLOAT32)
def test_dropout_in_the_decoder(subject: Subject, case: Case) -> None:
    drops_in_the_decoder(subject, case)


@covers("DDETR-16", cases=encoder_image, dtypes=FLOAT32)
def test_dropout_in_the_encoder(subject: Subject, case: Case) -> None:
    drops_in_the_encoder(subject, case)
