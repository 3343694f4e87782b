"""The published recipes: what their sources say, read a second time, and that the models they ask for are those."""

from __future__ import annotations

import json
from functools import cache
from typing import NamedTuple

import pytest
import torch
from test_parameter_counts import PUBLISHED as PARAMETERS
from torch import nn

from detr_reference.training.dry_run.plan import COCO_IMAGES
from detr_reference.training.learning.models import make_model
from detr_reference.training.learning.parameter_groups import parameter_groups
from detr_reference.training.learning.schedule import rate_factor
from detr_reference.training.recipes.recipe import Recipe, names

R50_TRAINED = 23_232_512  # ResNet-50 without its classifier has 23,454,912 weights, of which 222,400 are frozen


class Published(NamedTuple):
    model: str
    epochs: int
    drop: int
    batch: int
    rate: float
    backbone_rate: float
    slow_rate: float | None
    ap: float | None
    parameters: str | None  # a name in test_parameter_counts


RECIPES = {
    "detr-r50-300": Published("detr", 300, 200, 64, 1e-4, 1e-5, None, None, "DETR, 91 classes and no object"),
    "detr-r50-500": Published("detr", 500, 400, 64, 1e-4, 1e-5, None, 42.0, "DETR, 91 classes and no object"),
    "detr-dc5-r50-500": Published("detr", 500, 400, 64, 1e-4, 1e-5, None, 43.3, "DETR, 91 classes and no object"),
    "deformable-detr-r50-50": Published(
        "deformable_detr", 50, 40, 32, 2e-4, 2e-5, 2e-5, 44.5, "Deformable DETR, 91 classes"
    ),
    "deformable-detr-refine-r50-50": Published(
        "deformable_detr", 50, 40, 32, 2e-4, 2e-5, 2e-5, 46.2, "Deformable DETR, box refinement"
    ),
    "deformable-detr-two-stage-r50-50": Published(
        "deformable_detr", 50, 40, 32, 2e-4, 2e-5, 2e-5, 46.9, "Deformable DETR, two-stage"
    ),
    "dab-detr-r50-50": Published("dab_detr", 50, 40, 16, 1e-4, 1e-5, None, 42.2, None),
    "dn-detr-r50-50": Published("dn_detr", 50, 40, 16, 1e-4, 1e-5, None, 44.4, None),
    "dino-r50-4scale-12": Published(
        "dino", 12, 11, 16, 1e-4, 1e-5, None, 49.0, "DINO, shared heads, 91 classes (original)"
    ),
    "dino-r50-4scale-24": Published(
        "dino", 24, 20, 16, 1e-4, 1e-5, None, 50.4, "DINO, shared heads, 91 classes (original)"
    ),
    "dino-r50-4scale-36": Published(
        "dino", 36, 30, 16, 1e-4, 1e-5, None, 50.9, "DINO, shared heads, 91 classes (original)"
    ),
    "dino-r50-5scale-12": Published("dino", 12, 11, 16, 1e-4, 1e-5, None, 49.4, None),
}


def built(recipe: Recipe) -> nn.Module:
    """The model without memory for its parameters; once for recipes that differ in their training alone."""
    return _built(recipe.model.name, json.dumps(dict(recipe.model.settings)))


@cache
def _built(name: str, settings: str) -> nn.Module:
    with torch.device("meta"):
        return make_model(name, json.loads(settings))


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_says_what_is_published(name: str) -> None:
    recipe, published = Recipe.read(name), RECIPES[name]
    training = recipe.training
    assert recipe.name == name
    assert recipe.source
    assert (recipe.model.name, training.epochs, training.batch_size, recipe.published_ap) == (
        published.model,
        published.epochs,
        published.batch,
        published.ap,
    )
    rates = (training.learning_rate, training.backbone_learning_rate, training.slow_learning_rate)
    assert rates == (published.rate, published.backbone_rate, published.slow_rate)
    assert (training.weight_decay, training.clip_norm, training.warmup_steps) == (1e-4, 0.1, 0)
    assert training.ema_decay is None
    assert not training.autocast


@pytest.mark.parametrize("name", RECIPES)
def test_the_rate_drops_once_and_by_ten(name: str) -> None:
    training, published = Recipe.read(name).training, RECIPES[name]
    factors = [
        rate_factor(
            epoch * 100,
            steps_per_epoch=100,
            drops=training.drops,
            drop_factor=training.drop_factor,
            warmup_steps=training.warmup_steps,
        )
        for epoch in range(published.epochs)
    ]
    assert factors == [1.0] * published.drop + [0.1] * (published.epochs - published.drop)


@pytest.mark.parametrize("name", RECIPES)
def test_the_images_are_augmented_as_published(name: str) -> None:
    data = Recipe.read(name).data
    assert data.scales == tuple(range(480, 801, 32))
    assert (data.max_size, data.evaluation_scale, data.crop_scales, data.crop_range, data.flip) == (
        1333,
        800,
        (400, 500, 600),
        (384, 600),
        0.5,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_is_the_published_one_and_its_groups_learn_at_their_rates(name: str) -> None:
    recipe, published = Recipe.read(name), RECIPES[name]
    model = built(recipe)
    assert vars(model.config)["num_classes"] == 91
    trained = {id(each) for each in model.parameters() if each.requires_grad}
    groups = {group["name"]: group for group in parameter_groups(model, recipe)}
    sizes = {group: sum(each.numel() for each in groups[group]["params"]) for group in groups}
    rates = {group: groups[group]["lr"] for group in groups}

    if published.parameters is not None:
        assert (sum(sizes.values()), sum(each.numel() for each in model.parameters())) == PARAMETERS[
            published.parameters
        ]
    grouped = [id(each) for group in groups.values() for each in group["params"]]
    assert len(grouped) == len(trained)
    assert set(grouped) == trained
    assert sizes["backbone"] == R50_TRAINED
    expected = {"main": published.rate, "backbone": published.backbone_rate}
    if published.slow_rate is not None:
        expected["slow"] = published.slow_rate
    assert rates == expected
    assert {group["weight_decay"] for group in groups.values()} == {1e-4}


def test_the_slow_parameters_of_deformable_detr() -> None:
    """12 attentions, each with 8 heads x 4 levels x 4 points of 2 coordinates, and one layer of reference points."""
    recipe = Recipe.read("deformable-detr-r50-50")
    slow = {group["name"]: group["params"] for group in parameter_groups(built(recipe), recipe)}["slow"]
    offsets, references = (256 + 1) * 8 * 4 * 4 * 2, (256 + 1) * 2
    assert sum(each.numel() for each in slow) == 12 * offsets + references


def test_five_scales_differ_from_four_in_their_levels_alone() -> None:
    four, five = Recipe.read("dino-r50-4scale-12"), Recipe.read("dino-r50-5scale-12")
    assert {**four.model.settings, "num_levels": 5, "backbone_stages": (1, 2, 3, 4)} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in five.model.settings.items()
    }
    assert four.training == five.training


def test_steps_of_detr_are_those_of_detrex() -> None:
    """detrex, projects/detr/configs/detr_r50_300ep.py: max_iter 554400, the drop at 369600, batch 64."""
    training = Recipe.read("detr-r50-300").training
    steps = COCO_IMAGES // training.batch_size
    assert (training.epochs * steps, training.drops[0] * steps) == (554_400, 369_600)


def test_every_published_recipe_is_tested() -> None:
    published = {name for name in names() if Recipe.read(name).data.set == "coco"}
    assert published == set(RECIPES)
