"""The suite's cases of whole models enter what they are there for; emptied, one of these tests fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch

from detr_conformance.harness.block_case import settings_of, trained
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.topics.detectors.cases.models import forms
from detr_conformance.topics.detectors.cases.regimes import (
    as_published,
    canvases,
    frozen_otherwise,
    other_sizes,
    switched,
    whole_images,
)
from detr_conformance.topics.detectors.checks.dropping import CELLS, decoder_image, encoder_image
from detr_conformance.topics.detectors.test_detr import dilated
from detr_conformance.topics.detectors.test_dino_switches import silent
from detr_conformance.topics.queries.checks.dropping import IMAGES, Site, law, many_times
from detr_conformance.topics.training.test_training import trained_forms

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
MODELS = ("detr", "deformable_detr", "dino")
models = pytest.mark.parametrize("model", MODELS)
Cases = Callable[[Subject], Iterable[Case]]


def subject_of(model: str, **variants: str) -> Subject:
    return Subject(model, resolve(OPERATIONS[model].reference), variants=variants)


def is_padded(case: Case) -> list[bool]:
    """Of each image."""
    return [bool(image.any()) for image in case["mask"]]


@models
def test_each_form_is_called_without_padding_and_with_some(model: str) -> None:
    subject = subject_of(model)
    found = {case.note: is_padded(case) for case in whole_images(subject)}
    for form in forms(subject):
        own = [padded for note, padded in found.items() if note.startswith(f"{form},")]
        assert sorted(own) == [[False], [False, False], [False, True], [True, False]]
    for form in switched(subject):
        assert [False] in [padded for note, padded in found.items() if note.startswith(f"{form},")]


@models
def test_canvases_have_sides_that_no_stride_divides_and_long_rows(model: str) -> None:
    cases = list(canvases(subject_of(model)))
    sides = [tuple(case["images"].shape[-2:]) for case in cases]
    assert any(height % 8 and width % 8 for height, width in sides)
    assert any(width > 50 * 8 for _, width in sides)
    assert [False] in map(is_padded, cases)


def test_a_mask_of_every_32nd_pixel_is_another() -> None:
    differ = 0
    for case in canvases(subject_of("detr")):
        sliced = case["mask"][:, ::32, ::32].float()
        nearest = torch.nn.functional.interpolate(case["mask"][:, None].float(), sliced.shape[-2:])[:, 0]
        differ += not torch.equal(sliced, nearest)
    assert differ >= 2


@models
def test_six_and_six_layers(model: str) -> None:
    depths = [
        [settings_of(case)[f"num_{part}_layers"] for part in ("encoder", "decoder")]
        for case in as_published(subject_of(model))
    ]
    assert depths
    assert all(depth == [6, 6] for depth in depths)


@models
def test_other_sizes_are_other_in_every_form(model: str) -> None:
    subject = subject_of(model)
    usual = {case.note: settings_of(case) for case in whole_images(subject)}
    others = [settings_of(case) for case in other_sizes(subject)]
    assert len(others) >= len(forms(subject)) + (model == "dino")
    switches = {"box_refinement", "two_stage", "shared_heads", "label_embedding_size"}
    same = {"dropout", "denoising_number", "query_selection", "look_forward_twice", "denoising"} | switches
    for given in usual.values():
        assert all(other[name] != value for other in others for name, value in given.items() if name not in same)


@models
def test_more_and_less_of_the_backbone_is_frozen(model: str) -> None:
    stages = {settings_of(case)["backbone_frozen_stages"] for case in frozen_otherwise(subject_of(model))}
    assert stages == {0, 2, 4}
    counted = {len(trained(model, case)) for case in frozen_otherwise(subject_of(model))}
    assert counted != {len(trained(model, case)) for case in whole_images(subject_of(model))}


def test_the_last_stage_is_dilated_with_one_block_and_with_several() -> None:
    cases = [settings_of(case) for case in dilated(subject_of("detr"))]
    assert {case["backbone_blocks"][-1] for case in cases} == {1, 2, 3}
    assert all(case["backbone_dilation"] for case in cases)


def test_every_switch_of_dino_is_turned_where_the_target_can() -> None:
    turned = switched(subject_of("dino"))
    values = {(name, value) for settings in turned.values() for name, value in settings.items()}
    assert {("query_selection", "pure"), ("query_selection", "static"), ("look_forward_twice", False)} <= values
    assert {("denoising", "plain"), ("denoising", "none")} <= values
    assert switched(subject_of("dino", query_selection="mixed", look_forward="twice")) == {}
    kept = switched(subject_of("dino", denoising="contrastive")).values()
    assert kept
    assert not any("denoising" in settings for settings in kept)


@models
def test_every_form_is_trained(model: str) -> None:
    subject = subject_of(model)
    found = list(trained_forms(subject))
    assert [settings for settings in forms(subject).values() if settings not in found] == []
    if model == "dino":
        assert {settings.get("query_selection") for settings in found} == {None, "pure", "static"}


@models
def test_dropout_is_judged_with_several_queries_and_with_cells_of_their_own(model: str) -> None:
    subject = subject_of(model)
    (case,) = decoder_image(subject)
    many = many_times(model, case, IMAGES)
    assert many["images"].shape[0] == IMAGES
    assert case.shapes is not None
    assert case.shapes["pred_logits"][2] >= 5
    (alone,) = encoder_image(subject)
    assert many_times(model, alone, CELLS)["images"].shape[0] >= 200


@pytest.mark.parametrize("twice", [False, True])
def test_the_law_of_dropout_has_four_outcomes(twice: bool) -> None:
    rate = 0.4
    found = law(rate, twice)
    assert sum(share for _, share in found) == pytest.approx(1)
    mean = sum(factors[0] * share for factors, share in found)
    assert mean == pytest.approx(1)  # what is left is divided by the chance that it is left
    assert len({factors for factors, _ in found}) == 4
    assert Site("layers.0.ffns.0").twice is False


def test_denoising_without_noise_has_three_groups_and_more() -> None:
    for case in silent(subject_of("dino")):
        settings = settings_of(case)
        assert settings["label_noise_ratio"] == settings["box_noise_scale"] == 0
        assert settings["denoising_number"] // int(case["target_counts"].max()) >= 3
    assert {settings_of(case).get("denoising") for case in silent(subject_of("dino"))} == {None, "plain"}
