"""The moving average of a model."""

from __future__ import annotations

import copy

import torch
from torch import nn

from detr_reference.training.learning.ema import moving_average
from helpers.tiny.training_cases import small_batch, small_model


class Numbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        self.register_buffer("buffer", torch.tensor([4.0], dtype=torch.float64))

    def set(self, parameter: float, buffer: float) -> None:
        with torch.no_grad():
            self.parameter.fill_(parameter)
            self.buffer.fill_(buffer)


def test_it_begins_with_the_first_model_and_moves_towards_the_later_ones() -> None:
    model = Numbers()
    average = moving_average(model, 0.75)
    model.set(1.0, 8.0)
    average.update_parameters(model)
    assert (average.module.parameter.tolist(), average.module.buffer.tolist()) == ([1.0, 1.0], [8.0])
    model.set(5.0, 0.0)
    average.update_parameters(model)
    assert (average.module.parameter.tolist(), average.module.buffer.tolist()) == ([2.0, 2.0], [6.0])
    model.set(-2.0, 2.0)
    average.update_parameters(model)
    assert (average.module.parameter.tolist(), average.module.buffer.tolist()) == ([1.0, 1.0], [5.0])


def test_the_model_itself_does_not_change_and_what_is_frozen_stays_to_the_bit() -> None:
    model = small_model("dino").eval()
    before = copy.deepcopy(model.state_dict())
    average = moving_average(model, 0.999)
    for _ in range(3):
        average.update_parameters(model)
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert torch.equal(model.state_dict()[name], before[name]), name
    batch = small_batch()
    assert torch.equal(
        average.module(batch.images, batch.mask)["pred_boxes"], model(batch.images, batch.mask)["pred_boxes"]
    )


def test_it_goes_on_from_its_state() -> None:
    model = Numbers()
    average, again = moving_average(model, 0.9), moving_average(model, 0.9)
    average.update_parameters(model)
    again.load_state_dict(copy.deepcopy(average.state_dict()))
    model.set(7.0, 7.0)
    for each in (average, again):
        each.update_parameters(model)
    assert torch.equal(average.module.parameter, again.module.parameter)
    assert average.module.parameter[0] != 7.0  # a second update, not a first one, which copies
