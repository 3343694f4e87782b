"""The target at every step of the reference's trajectory: one module, taught in place, never made anew.

The module stays the same over all steps, as in a training, so that what it keeps from call to call shows. After the
last step it is taken back to earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.block import parameters_by_name
from detr_conformance.harness.block_case import parameters_of
from detr_conformance.harness.case import Case, digest_of
from detr_conformance.harness.mismatch import Mismatch, check_form
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.topics.detectors.checks.models import training
from detr_conformance.topics.training.cases import Batch, as_model_case, call_inputs, config_of_training, model_of
from detr_conformance.topics.training.checks.losses import losses_of, total_of
from detr_conformance.topics.training.checks.trajectory import Found, Step, trajectory

Parts = dict[str, tuple[Tensor, ...]]
REMEMBERED = 6  # walks: of every form of a model


@dataclass(frozen=True)
class Visit:
    """What the target had at a step: its losses and gradients there, or the way in which it failed."""

    step: Step
    found: Found | None = None
    failed: Mismatch | None = None


@dataclass(frozen=True)
class Walk:
    """All visits of one training.

    Attributes:
        forward: the compared steps in their order, up to the first that failed.
        back: earlier steps again, after the last one, with the same module.
    """

    forward: list[Visit]
    back: list[Visit]


_last: list[tuple[Callable[..., Any], str, str, Walk]] = []  # the tests of one target share a walk


def walk(subject: Subject, case: Case) -> Walk:
    """The target's way along the reference's trajectory."""
    key = (digest_of(case), f"{subject.device}/{subject.dtype}")
    for implementation, *known, found in _last:
        if implementation is subject.implementation and tuple(known) == key:
            return found
    found = _walked(subject, case)
    _last[:] = [*_last[1 - REMEMBERED :], (subject.implementation, *key, found)]
    return found


def _walked(subject: Subject, case: Case) -> Walk:
    made = learner(subject, case)
    steps = trajectory(case).compared()
    forward: list[Visit] = []
    for step in steps:
        forward.append(visit(case, made, step))
        if forward[-1].failed:
            return Walk(forward, [])
    return Walk(forward, [visit(case, made, step) for step in (steps[len(steps) // 2], steps[0])])


# -- the module that is trained -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learner:
    """A module in training mode, and where its parameters of the reference's names lie."""

    module: nn.Module
    parts: Parts
    dtype: torch.dtype
    device: str


def learner(subject: Subject, case: Case) -> Learner:
    """The target's model; or the reference's in float64, with the target's sampling function inside."""
    model, own = model_of(case), as_model_case(case)
    if subject.operation != model:
        entry = OPERATIONS[model]
        parameters = {name: tensor.double() for name, tensor in parameters_of(own).items()}
        module: nn.Module = resolve(entry.reference)(config_of_training(case), parameters, core=_core(subject)).train()
        return Learner(module, parameters_by_name(model, module, own), torch.float64, "cpu")
    made = training(subject, own)
    return Learner(made, parameters_by_name(model, made, own), subject.torch_dtype, subject.device)


def _core(subject: Subject) -> Callable[..., Tensor]:
    """The target's function on its own device and in its own dtype; what is around it rounds nothing."""

    def core(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        def there(tensor: Tensor) -> Tensor:
            return tensor.to(device=subject.device, dtype=subject.torch_dtype if tensor.is_floating_point() else None)

        output = subject.implementation(*map(there, (value, shapes, starts, locations, weights)))
        check_form("output", output, value.new_empty(*locations.shape[:2], value.shape[2] * value.shape[3]))
        return output.to(value)

    return core


def teach(made: Learner, values: Mapping[str, Tensor]) -> None:
    """New values in the same storage, as an optimiser writes them."""
    with torch.no_grad():
        for name, parts in made.parts.items():
            rows = values[name].split([len(part) for part in parts]) if len(parts) > 1 else (values[name],)
            for part, row in zip(parts, rows, strict=True):
                part.copy_(row.to(part))


def forget_gradients(made: Learner) -> None:
    for parts in made.parts.values():
        for part in parts:
            part.grad = None


def visit(case: Case, made: Learner, step: Step) -> Visit:
    """Losses and gradients of one batch at the step's parameters."""
    forget_gradients(made)
    teach(made, step.parameters)
    try:
        losses = backward(case, made, step)
    except Mismatch as mismatch:
        mismatch.message = f"step {step.number}: {mismatch.message}"
        return Visit(step, failed=mismatch)
    return Visit(step, Found(losses, gradients(made)))


def backward(case: Case, made: Learner, step: Step) -> dict[str, Tensor]:
    """One backward pass, whose gradients are added to what is there; the losses."""
    model = model_of(case)
    outputs = predictions_checked(predictions(model, made, step.batch), step)
    losses = losses_of(model, outputs, step.batch, step.pairs)
    total = total_of(model, losses)
    if total.requires_grad:  # otherwise no parameter is reached, and none has a gradient
        with explained("backward"):
            total.backward()
    return {name: loss.detach() for name, loss in losses.items()}


def gradients(made: Learner) -> dict[str, Tensor | None]:
    """What lies in `.grad`, under the reference's names, in float64."""
    found: dict[str, Tensor | None] = {}
    for name, parts in made.parts.items():
        several = [part.grad for part in parts]
        if all(gradient is None for gradient in several):
            found[name] = None
        else:
            filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parts, several, strict=True)]
            wide = [gradient.detach().to("cpu", torch.float64, copy=True) for gradient in filled]
            found[name] = torch.cat(wide) if len(wide) > 1 else wide[0]
    return found


def predictions(model: str, made: Learner, batch: Batch) -> dict[str, Tensor]:
    """What the model predicts in training, in float64: what is computed of it rounds nothing."""
    with explained("the call"):
        found = made.module(**call_inputs(model, batch, made.dtype, made.device))
    return {name: output.to("cpu", torch.float64) for name, output in found.items()}


def predictions_checked(outputs: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
    """The predictions that are trained, finite and of the right shapes."""
    found: dict[str, Tensor] = {}
    for name, shape in step.shapes.items():
        if name not in outputs and 0 in shape:
            found[name] = torch.zeros(shape, dtype=torch.float64)  # predictions of no denoising query may be left out
            continue
        if name not in outputs:
            raise Mismatch(f"in training there is no {name}", where=name, expected=str(shape), got="nothing")
        output = outputs[name]
        check_form(name, output, torch.empty(shape))
        if not output.isfinite().all():
            raise Mismatch(f"{name} is not finite", where=name, expected="finite numbers", got="inf or nan")
        found[name] = output
    return found
