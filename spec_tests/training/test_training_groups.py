"""Which parameters learn at which rate."""

from __future__ import annotations

import pytest
from torch import nn

from detr_reference.training.learning.models import MODELS
from detr_reference.training.learning.parameter_groups import parameter_groups
from helpers.tiny.training_cases import SMALL, small_model, small_recipe


def groups_of(case: str, model: nn.Module, **training: float) -> dict[str, list[str]]:
    """The names of the parameters of each group."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, small_recipe(case, **training))
    return {group["name"]: [name_of[id(parameter)] for parameter in group["params"]] for group in groups}


@pytest.mark.parametrize("case", SMALL)
def test_every_parameter_that_learns_is_in_one_group(case: str) -> None:
    model = small_model(case)
    learning = sorted(name for name, each in model.named_parameters() if each.requires_grad)
    for training in ({}, {"slow_learning_rate": 1e-5}) if MODELS[SMALL[case][0]].takes_core else ({},):
        groups = groups_of(case, model, **training)
        assert sorted(name for group in groups.values() for name in group) == learning
        assert set(groups) == {"main", "backbone"} | ({"slow"} if training else set())
        assert sorted(groups["backbone"]) == [name for name in learning if name.startswith("backbone.")]


def test_a_slow_rate_needs_parameters_that_are_slow() -> None:
    with pytest.raises(ValueError, match=r"slow_learning_rate: detr has no reference_points or sampling_offsets"):
        groups_of("detr", small_model("detr"), slow_learning_rate=1e-5)


def test_what_is_slow_in_deformable_detr() -> None:
    slow = groups_of("deformable_detr", small_model("deformable_detr"), slow_learning_rate=1e-5)["slow"]
    attentions = [f"transformer.encoder.layers.{i}.attentions.0" for i in range(2)]
    attentions += [f"transformer.decoder.layers.{i}.attentions.1" for i in range(2)]
    layers = [f"{attention}.sampling_offsets" for attention in attentions] + ["transformer.reference_points"]
    assert sorted(slow) == sorted(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))


def test_rates_and_decay_are_the_recipes() -> None:
    recipe = small_recipe(
        "deformable_detr",
        learning_rate=2e-4,
        backbone_learning_rate=2e-5,
        slow_learning_rate=3e-5,
        weight_decay=1e-2,
    )
    groups = parameter_groups(small_model("deformable_detr"), recipe)
    assert {group["name"]: group["lr"] for group in groups} == {"main": 2e-4, "backbone": 2e-5, "slow": 3e-5}
    assert {group["weight_decay"] for group in groups} == {1e-2}


def test_what_is_frozen_is_in_no_group() -> None:
    groups = groups_of("detr", small_model("detr", backbone_frozen_stages=4))
    assert set(groups) == {"main"}
    groups = groups_of("detr", small_model("detr", backbone_frozen_stages=0))
    assert "backbone.conv1.weight" in groups["backbone"]
