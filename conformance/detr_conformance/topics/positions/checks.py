"""How far from the formula a right position embedding may be (spec chapter 8, "The operations")."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block import expectations, forward
from detr_conformance.harness.block_case import reference_callable, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.subject import Subject
from detr_reference.positions.sine_position_embedding import cell_positions

YXWH = (1, 0, 2, 3)  # the coordinates in the order of the channels; its own inverse


def sine_right(subject: Subject, case: Case, precise: bool = False) -> Expectation:
    """The formula in float64 and the limit of chapter 8; no limit where the chapter specifies no position."""
    settings, mask = settings_of(case), case["mask"]
    offset, normalize = settings["offset"], settings["normalize"]
    roundings = []
    for axis in (1, 2):
        position = cell_positions(mask, axis, offset, normalize, torch.float64)
        if offset and normalize:
            position = position.masked_fill(mask.all(axis, keepdim=True), math.inf)
        roundings.append(_roundings(position, settings))
    return _expectation(subject, case, mask, torch.cat(roundings, -1).permute(0, 3, 1, 2), precise)


def box_right(subject: Subject, case: Case, precise: bool = False) -> Expectation:
    """The formula in float64 and the limit of chapter 8."""
    boxes, settings = case["boxes"].double(), settings_of(case)
    roundings = _roundings(2 * math.pi * boxes[..., YXWH[: boxes.shape[-1]]], settings)
    return _expectation(subject, case, boxes, roundings.flatten(-2), precise)


def sine_agrees(subject: Subject, case: Case, precise: bool = False) -> None:
    """The output lies within its limits; what the chapter leaves open may even be NaN, which POS-10 alone forbids."""
    right = sine_right(subject, case, precise)
    output = forward(subject, case)
    specified = torch.where(right.limit.isinf().to(output.device), right.expected.to(output), output)
    subject.compare("output", specified, right.expected, right.limit)


def box_agrees(subject: Subject, case: Case, precise: bool = False) -> None:
    right = box_right(subject, case, precise)
    subject.compare("output", forward(subject, case), right.expected, right.limit)


def box_gradient_right(subject: Subject, case: Case) -> Expectation:
    """A coordinate collects a gradient from each wave, with the slope 2 pi / wavelength and the error of its value."""
    settings, boxes = settings_of(case), case["boxes"].double()
    order = YXWH[: boxes.shape[-1]]
    slopes = case["grad_output"].double().unflatten(-1, (len(order), -1)) * 2 * math.pi / _wavelengths(settings)
    roundings = _roundings(2 * math.pi * boxes[..., order], settings) + slopes.shape[-1]
    expected = expectations(subject, case)["boxes"].expected
    limit = _limit(subject, expected, (slopes.abs() * roundings).sum(-1)[..., order], precise=False)
    return Expectation(expected, limit)


def _wavelengths(settings: dict[str, Any]) -> Tensor:
    """T ** (2 k / n) of channels 2 k and 2 k + 1, in units of the first wave."""
    feats = settings["num_pos_feats"]
    pair = torch.arange(feats, dtype=torch.float64).div(2, rounding_mode="floor")
    return settings["temperature"] ** (2 * pair / feats)


def _roundings(position: Tensor, settings: dict[str, Any]) -> Tensor:
    """How many units of round-off the waves of a position may be wrong by."""
    wavelength = _wavelengths(settings)
    return (8 + 3 * wavelength.log().abs()) * (position[..., None] / wavelength).abs() + 4


def _expectation(subject: Subject, case: Case, argument: Tensor, roundings: Tensor, precise: bool) -> Expectation:
    expected = reference_callable(subject.operation, case, torch.float64)(argument)
    return Expectation(expected, _limit(subject, expected, roundings, precise))


def _limit(subject: Subject, expected: Tensor, roundings: Tensor, precise: bool) -> Tensor:
    """So many round-offs of the arithmetic, and one of the result."""
    result = torch.finfo(subject.torch_dtype)
    arithmetic = torch.float32 if precise or subject.dtype == "float64" else subject.torch_dtype
    once = 1.01 * result.eps / 2 * expected.abs() + result.smallest_normal * result.eps
    return torch.finfo(arithmetic).eps / 2 * roundings + once
