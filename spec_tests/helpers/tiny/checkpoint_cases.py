"""What the tests of every checkpoint format do: read a recorded model, exchange parameters, find what is not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.renaming import original_names
from detr_reference.detectors.postprocess import postprocess
from helpers import published_models as published

CLOSE = 1e-11  # relative; both sides are float64, and differ in the order of sums alone


def config_of(kind: Callable[..., Any], record: Mapping[str, Any]) -> Any:
    """The reference's configuration of a recorded model; JSON has lists for tuples."""
    return kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in record["config"].items()}
    )


def predictions(model: nn.Module) -> dict[str, Tensor]:
    """What the model makes of the recorded images."""
    with torch.no_grad():
        return model.eval()(*published.images())


def distance(record: Mapping[str, Any], model: nn.Module) -> float:
    """The largest distance of any prediction from the recorded one, relative to the largest recorded."""
    return max(published.furthest(record, predictions(model)).values())


def exchanged(state_dict: Mapping[str, Tensor], first: str, second: str) -> dict[str, Tensor]:
    """The state dict with the tensors of two modules exchanged; they have the same names and shapes below them."""
    changed = dict(state_dict)
    below = [name.removeprefix(first) for name in state_dict if name.startswith(first)]
    assert below, first
    for rest in below:
        assert state_dict[first + rest].shape == state_dict[second + rest].shape
        changed[first + rest], changed[second + rest] = state_dict[second + rest], state_dict[first + rest]
    return changed


def unread(model: nn.Module) -> list[str]:
    """Tensors of the model, buffers too, that no prediction depends on: a record cannot say whether they are right."""
    tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in model.state_dict().items()}
    outputs = functional_call(model.eval(), tensors, published.images())
    total = torch.stack(
        [(output * (0.5 + published.uniform(name, output.shape))).sum() for name, output in outputs.items()]
    )
    gradients = torch.autograd.grad(total.sum(), list(tensors.values()), allow_unused=True)
    return [
        name
        for name, gradient in zip(tensors, gradients, strict=True)
        if gradient is None or gradient.abs().max() < 1e-9
    ]


def distance_of_detections(record: Mapping[str, Any], outputs: Mapping[str, Tensor], **settings: Any) -> float:
    """Of what post-processing makes of the last layer's predictions, in images of the recorded sizes."""
    found = postprocess(outputs["pred_logits"][-1], outputs["pred_boxes"][-1], published.ORIGINAL_SIZES, **settings)
    return max(published.furthest(record, {f"postprocess/{name}": t for name, t in found.items()}).values())


def wrong_gradients(record: Mapping[str, Any], model: nn.Module, table: NameTable) -> list[str]:
    """Their names of parameters whose gradient is not the recorded one, or is recorded and missing.

    A record has of each gradient its product with numbers of the rule. What is detached, and where, shows in it. What
    the published code does not train, the model here may.
    """
    ours = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    expected = {name: number for name, number in record["gradients"].items() if number is not None}
    wrong = []
    for name, gradient in original_names(table, ours, expected).items():
        found = float((gradient * (published.uniform(name, gradient.shape) - 0.5)).sum())
        if abs(found - expected[name]) > 1e-8 * (float(gradient.norm()) + abs(expected[name])) + 1e-12:
            wrong.append(f"{name}: {found} and not {expected[name]}")
    assert len(expected) > 100
    return wrong
