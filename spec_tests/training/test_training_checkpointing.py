"""Layers that are computed again: the same gradients, less memory."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from detr_reference.training.learning.activation_checkpointing import checkpoint_activations
from detr_reference.training.learning.ema import moving_average
from detr_reference.training.learning.models import MODELS
from detr_reference.training.learning.objective import loss_of
from helpers.tiny.training_cases import SMALL, small_batch, small_model

RATES = {"detr": {"dropout": 0.3}, "two_stage": {"dropout": 0.3}, "dino": {"dropout": 0.3}}


def gradients(case: str, model: nn.Module, *, autocast: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(5)
    model.zero_grad()
    total, _ = loss_of(MODELS[SMALL[case][0]], model, small_batch(), autocast=autocast)
    total.backward()
    return total, {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("case", ["detr", "dab_detr", "dn_detr", "deformable_detr", "two_stage", "dino", "dino_plain"])
def test_loss_and_gradients_are_the_same_to_the_bit(case: str) -> None:
    model = small_model(case, **RATES.get(case, {})).train()
    total, expected = gradients(case, model)
    names = list(model.state_dict())
    checkpoint_activations(model)
    again, found = gradients(case, model)
    assert torch.equal(total, again)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    assert list(model.state_dict()) == names


def test_under_autocast_too() -> None:
    model = small_model("dino").train()
    _, expected = gradients("dino", model, autocast=True)
    checkpoint_activations(model)
    _, found = gradients("dino", model, autocast=True)
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("case", ["dab_detr", "dino"])
def test_every_layer_is_computed_twice(case: str) -> None:
    model, calls = small_model(case).train(), Counter()
    layers = [(s, i) for s in ("encoder", "decoder") for i in range(2)]
    for stack, index in layers:
        network = model.get_submodule(f"transformer.{stack}.layers.{index}.ffns.0")
        network.register_forward_hook(lambda *_, key=(stack, index): calls.update([key]))
    gradients(case, model)
    assert calls == dict.fromkeys(layers, 1)
    checkpoint_activations(model)
    gradients(case, model)
    assert calls == dict.fromkeys(layers, 3)


@pytest.mark.parametrize("case", ["detr", "dino"])
def test_fewer_bytes_are_kept_for_the_backward_pass(case: str) -> None:
    """Of the layers nothing but their inputs is kept; with more layers the difference is most of all memory."""
    model = small_model(case, feedforward_dim=512).train()
    before = kept_bytes(case, model)
    checkpoint_activations(model)
    assert kept_bytes(case, model) < 0.6 * before


def kept_bytes(case: str, model: nn.Module) -> int:
    """Of the tensors that the forward pass keeps, parameters aside."""
    parameters = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in parameters:
            kept[place] = tensor  # held, so that no other tensor comes to lie there
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(MODELS[SMALL[case][0]], model, small_batch())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_copy_computes_with_its_own_parameters() -> None:
    """As the moving average does, which is a copy."""
    model = small_model("dino").eval()
    checkpoint_activations(model)
    batch = small_batch()
    before = model(batch.images, batch.mask)["pred_boxes"]
    average = moving_average(model, 0.9)
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            parameter.add_(1.0)
    assert torch.equal(average.module(batch.images, batch.mask)["pred_boxes"], before)
    assert not torch.equal(copy.deepcopy(model)(batch.images, batch.mask)["pred_boxes"], before)


def test_evaluation_works_without_gradients() -> None:
    model, batch = small_model("dino").eval(), small_batch()
    with torch.no_grad():
        before = model(batch.images, batch.mask)["pred_logits"]
        checkpoint_activations(model)
        assert torch.equal(model(batch.images, batch.mask)["pred_logits"], before)
