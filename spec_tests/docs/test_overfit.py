"""The saved run on a handful of photographs: what it says of itself, and which photographs those are."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from detr_reference.training.learning.models import make_model
from detr_reference.training.recipes.recipe import Recipe
from helpers.places import ROOT

DOCS = ROOT / "docs"


@pytest.fixture
def saved() -> dict[str, Any]:
    return json.loads((DOCS / "runs" / "overfit.json").read_text(encoding="utf-8"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("overfit")


def test_the_photographs_are_learnt(saved: dict[str, Any]) -> None:
    assert len(saved["image_ids"]) == 6
    assert saved["boxes"] == 23
    assert len(saved["figures"]) == 12
    assert saved["figures"]["AP"] >= 0.9


def test_the_saved_run_is_of_the_recipe_that_the_script_has(saved: dict[str, Any], script: ModuleType) -> None:
    assert (saved["recipe"], saved["changes"]) == (script.RECIPE, script.CHANGES)
    recipe = Recipe.read(script.RECIPE).with_values(script.CHANGES)
    with torch.device("meta"):
        model = make_model(recipe.model.name, recipe.model.settings)
    assert saved["parameters"] == sum(each.numel() for each in model.parameters())
    assert saved["steps"] == recipe.training.epochs * 3
    augmentation = recipe.data.augmentation
    assert (augmentation.flip, augmentation.crop_scales, len(augmentation.scales)) == (0, (), 1)


def test_the_photographs_are_the_first_with_a_few_boxes(
    saved: dict[str, Any], script: ModuleType, shared_data: Path
) -> None:
    file = shared_data / "tiny_coco" / "annotations" / "instances_train2017.json"
    chosen = script.chosen(json.loads(file.read_text(encoding="utf-8")))
    assert [image["id"] for image in chosen["images"]] == saved["image_ids"]
    assert len(chosen["annotations"]) == saved["boxes"]
    assert not any(each["iscrowd"] for each in chosen["annotations"])
