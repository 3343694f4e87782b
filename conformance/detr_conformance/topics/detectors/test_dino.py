"""The whole DINO: selection, denoising, refinement, heads. Clauses: spec chapter 19."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from detr_conformance.harness.block import agrees, gradients_agree
from detr_conformance.harness.block_case import parameters_of, settings_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.detectors.cases.models import (
    each_form,
    forms,
    layer_counts,
    model_case,
    uneven,
    with_targets,
)
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
    parts_agree,
    reached,
    stages_agree,
    trained_outputs,
    unused_parameters,
)

FLOAT32 = ("float32",)  # in float64 chapter 3 and the first clause are enough
OPERATION = "dino"
MATCHING = ("pred_logits", "pred_boxes")


def one_form(subject: Subject, note: str, **settings: Any) -> Case:
    """A case of the first form that the target has."""
    name, own = next(iter(forms(subject).items()))
    return model_case(subject, f"{name}, {note}", again=False, **own, **settings)


def last_head(case: Case) -> int:
    """The first stage's."""
    return max(int(name.split(".")[1]) for name in parameters_of(case) if name.startswith("class_embed."))


def separate(subject: Subject) -> Iterator[Case]:
    if "separate heads" not in forms(subject):
        raise NotProvided("the heads are shared")
    yield model_case(subject, "separate heads")


@covers("DINO-1", cases=layer_counts)
def test_every_layer_predicts(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DINO-15", cases=as_published, dtypes=FLOAT32, feature="backward", plain=agrees)
def test_gradients_of_six_layers(subject: Subject, case: Case) -> None:
    gradients_agree_in_norm(subject, case)


@covers("DINO-1", cases=as_published, dtypes=FLOAT32)
def test_six_layers_predict(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def other_positions(subject: Subject) -> Iterator[Case]:
    """Both published settings of the sine embedding, and level vectors that matter."""
    for temperature, offset in ((20.0, 0.0), (10000.0, -0.5)):
        settings = {"position_temperature": temperature, "position_offset": offset}
        case = one_form(subject, f"temperature {temperature}", **settings)
        yield with_parameters(case, transformer__level_embeds=parameters_of(case)["transformer.level_embeds"] * 3)


@covers("DINO-2", cases=other_positions, dtypes=FLOAT32)
def test_cells(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DINO-3", cases=lambda subject: [*uneven(subject), *canvases(subject)], dtypes=FLOAT32)
def test_padding(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def many_classes(subject: Subject) -> Iterator[Case]:
    """So many classes that the surest one is hardly ever the first."""
    for queries in (3, 8):
        yield one_form(subject, f"{queries} queries of 9 classes", num_classes=9, num_queries=queries)


@covers("DINO-4", cases=many_classes, dtypes=FLOAT32)
def test_selection(subject: Subject, case: Case) -> None:
    part_agrees(subject, case, "enc_logits", "enc_boxes")


def strong_content(subject: Subject) -> Iterator[Case]:
    case = one_form(subject, "content that differs much", num_queries=7)
    yield with_parameters(case, transformer__tgt_embed__weight=parameters_of(case)["transformer.tgt_embed.weight"] * 3)


@covers("DINO-5", cases=strong_content, dtypes=FLOAT32)
def test_learned_content(subject: Subject, case: Case) -> None:
    part_agrees(subject, case, *MATCHING)


@covers("DINO-6", cases=each_form, dtypes=FLOAT32, feature="backward")
def test_first_stage_and_decoder_part(subject: Subject, case: Case) -> None:
    """What the decoder predicts trains nothing of the first stage but the encoder, which both read."""
    last = last_head(case)
    first_stage = [f"class_embed.{last}.", f"bbox_embed.{last}.", "transformer.enc_output"]
    for output in MATCHING:
        found = reached(subject, case, output, None)
        expect_unreached(found, first_stage, output)
        expect_reached(found, ["transformer.tgt_embed", "transformer.encoder.layers.0.", "backbone"], output)


@covers("DINO-7", cases=each_form, dtypes=FLOAT32, feature="backward")
def test_first_stage_learns(subject: Subject, case: Case) -> None:
    """The boxes and logits of the selected cells are not detached."""
    last = last_head(case)
    shared = ["transformer.enc_output.", "transformer.enc_output_norm", "transformer.encoder.layers.0.", "backbone"]
    for output, head in (("enc_boxes", f"bbox_embed.{last}."), ("enc_logits", f"class_embed.{last}.")):
        found = reached(subject, case, output, None)
        expect_reached(found, [head, *shared], output)
        expect_unreached(found, ["transformer.decoder", "transformer.tgt_embed"], output)


@covers("DINO-8", cases=separate, dtypes=FLOAT32, feature="backward")
def test_gradient_band(subject: Subject, case: Case) -> None:
    """The boxes of layer i train the box heads of layers i - 1 and i; its logits the class head of i alone."""
    layers = range(settings_of(case)["num_decoder_layers"])
    for layer in layers:
        found = reached(subject, case, "pred_boxes", layer)
        what = f"the boxes of layer {layer}"
        band = [j for j in (layer - 1, layer) if j >= 0]
        expect_reached(found, [f"bbox_embed.{j}." for j in band], what)
        expect_unreached(found, [f"bbox_embed.{j}." for j in layers if j not in band], what)
        found = reached(subject, case, "pred_logits", layer)
        what = f"the logits of layer {layer}"
        expect_reached(found, [f"class_embed.{layer}."], what)
        others = [f"class_embed.{j}." for j in layers if j != layer]
        expect_unreached(found, ["bbox_embed", *others], what)


def with_boxes(subject: Subject) -> Iterator[Case]:
    """Targets of several images: many boxes beside one, and an image without."""
    for name, settings in forms(subject).items():
        case = model_case(subject, name, **settings)
        yield with_targets(subject, case, 3, 1)
        yield with_targets(subject, case, 0, 2)


@covers("DINO-9", cases=with_boxes, dtypes=FLOAT32)
def test_denoising_leaves_matching_alone(subject: Subject, case: Case) -> None:
    """In training with targets the matching queries predict what they predict without."""
    parts_agree(subject, case, trained_outputs(subject, case), case.shapes or (), " beside denoising queries")


@covers("DINO-10", cases=with_boxes, dtypes=FLOAT32)
def test_denoising_predictions(subject: Subject, case: Case) -> None:
    """Groups of twice the largest number of boxes."""
    settings, counts = settings_of(case), case["target_counts"].tolist()
    groups = max(1, settings["denoising_number"] // max(counts))
    queries = groups * 2 * max(counts)
    found = trained_outputs(subject, case)
    with torch.no_grad():  # as where the losses of a validation are computed
        quiet = trained_outputs(subject, case)
    shape = (settings["num_decoder_layers"], len(counts), queries)
    for name, last in (("dn_logits", settings["num_classes"]), ("dn_boxes", 4)):
        expect(name in found, f"in training with targets there is no {name}", where=name, expected=str((*shape, last)))
        expect(name in quiet, f"in training without gradients there is no {name}", where=name)
        got = tuple(found[name].shape)
        expect(got == (*shape, last), f"{name} has the shape {got}", where=name, expected=str((*shape, last)))
        expect(bool(found[name].isfinite().all()), f"{name} is not finite", where=name)


def unmoved(subject: Subject) -> Iterator[Case]:
    """Box heads of zeros: what denoising queries predict is where they start."""
    for case in with_boxes(subject):
        heads = [name for name in parameters_of(case) if name.startswith("bbox_embed.")]
        zeros = {name.replace(".", "__"): torch.zeros_like(parameters_of(case)[name]) for name in heads}
        yield with_parameters(case, **zeros)


@covers("DINO-11", cases=unmoved, dtypes=FLOAT32)
def test_denoising_queries_start_at_their_objects(subject: Subject, case: Case) -> None:
    """A positive query's centre is off by less than half a box; then it was clamped to the logit's eps."""
    found = trained_outputs(subject, case)
    expect("dn_boxes" in found, "in training with targets there is no dn_boxes", where="dn_boxes")
    boxes = found["dn_boxes"].double().cpu()
    counts = case["target_counts"].tolist()
    expect(boxes.shape[1:2] == (len(counts),) and boxes.shape[2] > 0, f"dn_boxes has shape {tuple(boxes.shape)}")
    group_size = 2 * max(counts)
    objects = case["target_boxes"].double().split(counts)
    for image, own in enumerate(objects):
        for first in range(0, boxes.shape[2], group_size):
            started = boxes[0, image, first : first + len(own)]
            off = (started[:, :2] - own[:, :2]).abs()
            expect(
                bool((off <= own[:, 2:] / 2 + 2e-3).all()),
                f"a denoising query of image {image} starts far from its object",
                where="dn_boxes",
                expected=str(own[:, :2].tolist()),
                got=str(started[:, :2].tolist()),
            )


@covers("DINO-12", cases=with_boxes, dtypes=FLOAT32)
def test_no_denoising_in_evaluation(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def without_boxes(subject: Subject) -> Iterator[Case]:
    for name, settings in forms(subject).items():
        yield with_targets(subject, model_case(subject, name, **settings), 0, 0)


@covers("DINO-13", cases=without_boxes, dtypes=FLOAT32, feature="backward")
def test_no_boxes_at_all(subject: Subject, case: Case) -> None:
    """The model predicts as ever, and its outputs reach every parameter, the label embedding too, if by zeros."""
    found = trained_outputs(subject, case)
    parts_agree(subject, case, found, case.shapes or (), " without any box")
    denoised = found.get("dn_logits")
    expect(denoised is None or denoised.numel() == 0, "there are denoising predictions of no box", where="dn_logits")
    unused = unused_parameters(subject, case)
    expect(not unused, f"no output depends on {', '.join(unused)}", where="parameters", got=", ".join(unused))


def embedded_references(subject: Subject) -> Iterator[Case]:
    """Query positions of scaled boxes, as published, and of boxes relative to the image; where the target has both."""
    chosen = subject.variant("embedded_references")
    for scaled, name in ((True, "scaled"), (False, "plain")):
        if chosen in ("any", name):
            yield one_form(subject, f"{name} references", extents=((32, 96), (64, 32)), embed_scaled_references=scaled)


@covers("DINO-14", cases=embedded_references, dtypes=FLOAT32)
def test_embedded_references(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DINO-15", cases=each_form, dtypes=FLOAT32, feature="backward", plain=agrees)
def test_gradients(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("DINO-16", cases=each_form, dtypes=FLOAT32)
def test_stages(subject: Subject, case: Case) -> None:
    stages_agree(subject, case)


@covers("DINO-17", cases=whole_images, dtypes=FLOAT32)
def test_images_without_padding(subject: Subject, case: Case) -> None:
    require(any(not image.any() for image in case["mask"]), "an image without padding")
    agrees(subject, case)


@covers("DINO-18", cases=other_sizes, dtypes=FLOAT32)
def test_sizes(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("DINO-22", cases=decoder_image, dtypes=FLOAT32)
def test_dropout_in_the_decoder(subject: Subject, case: Case) -> None:
    drops_in_the_decoder(subject, case)


@covers("DINO-22", cases=encoder_image, dtypes=FLOAT32)
def test_dropout_in_the_encoder(subject: Subject, case: Case) -> None:
    drops_in_the_encoder(subject, case)
