"""The reference's trajectory, and at each of its steps what is right there and how far roundings may lead away.

The trajectory is AdamW's on the reference in float64, whose parameters are rounded to float32 after every step: they
can then be handed to anybody exactly, and no machine's float32 decides where the training goes. What is discrete is
fixed by it: the assignment of queries to boxes is the reference's own, and a step where two cells compete for the
last place of the selection is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.block_case import reference_callable, trained
from detr_conformance.harness.case import Case, digest_of, mixed_seed
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.random_rounding import RandomRounding
from detr_conformance.topics.training.cases import (
    Batch,
    as_model_case,
    batch_of,
    call_inputs,
    config_of_training,
    model_of,
    steps_of,
    training_case,
)
from detr_conformance.topics.training.checks.losses import Pairs, assignments, losses_of, total_of

LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 2e-3, 1e-4, 0.1
# Roundings this much larger than float32's, so that a kink which a right implementation might cross is crossed here,
# and how many of such runs' largest deviations an implementation may be off.
AMPLIFIED, RUNS, DEVIATIONS = 8.0, 2, 2.0
# Cells without a proposal hold equal numbers, and so equal roundings, which add up where the first stage learns from
# all cells: so many roundings of a gradient's norm.
OF_EQUAL_CELLS = 32
MARGIN = 1e-3  # between the scores of neighbours in the order of selection
COMPARED = 0.7  # of the steps at least
SHARP, SHARP_SHARE = 3e-3, 0.9  # limits relative to the gradient's norm: so small, for so many parameters and steps
ATTEMPTS = 40
REMEMBERED = 8

_trajectories: OrderedDict[str, Trajectory] = OrderedDict()
_chosen: dict[tuple[Any, ...], Case] = {}


@dataclass(frozen=True)
class Found:
    """Losses by name and gradients by parameter; None for parameters that the losses do not depend on."""

    losses: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


@dataclass(frozen=True)
class Step:
    """One step of the trajectory.

    Attributes:
        number: from 0.
        parameters: those that are trained, before the step; float32.
        shapes: of the predictions, by name.
        pairs: the assignment of each set of predictions that is matched, by the suffix of its losses.
        right: in float64.
        loss_limits, gradient_limits: how far a loss, and in norm a gradient, may be off.
        compared: False where a rounding might select other queries.
    """

    number: int
    batch: Batch
    parameters: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    pairs: Pairs
    right: Found
    loss_limits: dict[str, float]
    gradient_limits: dict[str, float]
    compared: bool


@dataclass(frozen=True)
class Trajectory:
    steps: tuple[Step, ...]

    def compared(self) -> list[Step]:
        return [step for step in self.steps if step.compared]


def case_with_margins(model: str, seed: int, **settings: Any) -> Case:
    """The first start from which enough steps can be compared, and sharply."""
    key = (model, seed, repr(sorted(settings.items())))
    if key not in _chosen:
        for attempt in range(ATTEMPTS):
            case = training_case(model, seed, attempt, **settings)
            if _tells(trajectory(case)):
                _chosen[key] = case
                break
        else:
            require(False, f"{ATTEMPTS} trainings of {model}, none with {COMPARED:.0%} of its steps to compare")
    return _chosen[key]


def trajectory(case: Case) -> Trajectory:
    """The reference's training from this case; remembered, as many tests ask for it."""
    key = digest_of(case)
    if key not in _trajectories:
        _trajectories[key] = _followed(case)
        if len(_trajectories) > REMEMBERED:
            _trajectories.popitem(last=False)
    return _trajectories[key]


def sharp_share(found: Trajectory) -> float:
    """The share of (step, parameter) whose gradient's limit is small against the gradient; it never is for biases of
    keys, which cancel in the softmax and have a gradient of rounding alone."""
    ratios = [
        step.gradient_limits[name] <= SHARP * float(gradient.norm())
        for step in found.compared()
        for name, gradient in step.right.gradients.items()
        if gradient is not None and gradient.any()
    ]
    return sum(ratios) / max(1, len(ratios))


def _tells(found: Trajectory) -> bool:
    enough = len(found.compared()) >= COMPARED * len(found.steps)
    return enough and sharp_share(found) >= SHARP_SHARE


# -- one training ---------------------------------------------------------------------------------------------


def _followed(case: Case) -> Trajectory:
    model = model_of(case)
    own = as_model_case(case)
    module = reference_callable(model, own, torch.float64)
    assert isinstance(module, nn.Module)
    module.train()
    names = trained(model, own)
    learned = {name: parameter for name, parameter in module.named_parameters() if name in names}
    optimiser = torch.optim.AdamW(learned.values(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = []
    for number in range(steps_of(case)):
        step = _step(case, number, module, learned)
        steps.append(step)
        for name, parameter in learned.items():
            gradient = step.right.gradients[name]
            parameter.grad = None if gradient is None else gradient.clone()
        torch.nn.utils.clip_grad_norm_(learned.values(), CLIP_NORM)
        optimiser.step()
        with torch.no_grad():
            for parameter in learned.values():
                parameter.copy_(parameter.float())
    return Trajectory(tuple(steps))


def _step(case: Case, number: int, module: nn.Module, learned: Mapping[str, nn.Parameter]) -> Step:
    model, batch = model_of(case), batch_of(case, number)
    inputs = call_inputs(model, batch, torch.float64)

    def predict() -> dict[str, Tensor]:
        found: dict[str, Tensor] = module(**inputs)
        return found

    scores: list[Tensor] = []
    hooks = []
    config = config_of_training(case)
    if getattr(config, "two_stage", False):
        head = module.class_embed[-1]  # type: ignore[index]
        assert isinstance(head, nn.Module)
        hooks.append(head.register_forward_hook(lambda *call: scores.append(call[2])))
    outputs = predict()
    for hook in hooks:
        hook.remove()
    pairs = assignments(model, outputs, batch)
    right = gradients_of(model, outputs, batch, pairs, learned)
    all_cells = "enc_logits" in outputs and outputs["enc_logits"].shape[1] > config.num_queries
    loss_limits, gradient_limits = _limits(
        case, number, right, lambda: gradients_of(model, predict(), batch, pairs, learned), all_cells
    )
    return Step(
        number,
        batch,
        {name: parameter.detach().float() for name, parameter in learned.items()},
        {name: tuple(output.shape) for name, output in outputs.items()},
        pairs,
        right,
        loss_limits,
        gradient_limits,
        _margin(model, config.num_queries, scores) > MARGIN,
    )


def _margin(model: str, queries: int, scores: list[Tensor]) -> float:
    if not scores:
        return torch.inf
    surest = scores[0][..., 0] if model == "deformable_detr" else scores[0].amax(-1)
    best = surest.detach().topk(queries + 1, dim=-1).values
    return float((best[:, :-1] - best[:, 1:]).min())


# -- right results and limits -----------------------------------------------------------------------------------


def gradients_of(
    model: str, outputs: Mapping[str, Tensor], batch: Batch, pairs: Pairs, learned: Mapping[str, Tensor]
) -> Found:
    losses = losses_of(model, outputs, batch, pairs)
    gradients = torch.autograd.grad(total_of(model, losses), list(learned.values()), allow_unused=True)
    return Found({n: loss.detach() for n, loss in losses.items()}, dict(zip(learned, gradients, strict=True)))


class AmplifiedRounding(RandomRounding):
    """Random roundings some times as large as float32's."""

    def _rounded(self, value: Any, times: float = 1.0, in_sum: bool = False) -> Any:
        return super()._rounded(value, AMPLIFIED * times, in_sum)


def _limits(
    case: Case, number: int, right: Found, run: Callable[[], Found], all_cells: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """DEVIATIONS times the largest deviation under amplified roundings, and two roundings of the result itself."""
    unit = torch.finfo(torch.float32).eps
    losses = {name: unit * float(loss.abs()) for name, loss in right.losses.items()}
    of_norm = unit * (OF_EQUAL_CELLS if all_cells else 1)
    norms = {name: of_norm * float(g.norm()) for name, g in right.gradients.items() if g is not None}
    widest_loss, widest = dict.fromkeys(losses, 0.0), dict.fromkeys(norms, 0.0)
    for index in range(RUNS):
        generator = torch.Generator().manual_seed(mixed_seed(case.options["seed"], number, index) >> 8)
        with AmplifiedRounding(generator, torch.float32):
            tried = run()
        for name, loss in tried.losses.items():
            widest_loss[name] = max(widest_loss[name], float((loss - right.losses[name]).abs()))
        for name in norms:
            gradient, expected = tried.gradients[name], right.gradients[name]
            assert gradient is not None
            assert expected is not None
            widest[name] = max(widest[name], float((gradient - expected).norm()))
    tiny = torch.finfo(torch.float32).tiny
    return (
        {name: DEVIATIONS * widest_loss[name] + losses[name] + tiny for name in losses},
        {name: DEVIATIONS * widest[name] + norms[name] + tiny for name in norms},
    )
