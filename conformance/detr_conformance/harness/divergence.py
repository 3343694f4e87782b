"""The first stage of a whole model that leaves its limit: same input, same parameters, stage after stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detr_conformance.harness.block import STRUCTURAL, calling, make
from detr_conformance.harness.block_case import call_with, inputs_of, reference_callable
from detr_conformance.harness.case import TORCH_DTYPES, Case, mixed_seed
from detr_conformance.harness.mismatch import Mismatch, compare
from detr_conformance.harness.msda_oracle import Expectation
from detr_conformance.harness.random_rounding import spread
from detr_conformance.harness.stage_values import stage_values
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.stages import STAGES


@dataclass(frozen=True)
class Stage:
    """A stage that was compared: its largest error over its limit, or what else is wrong with it."""

    name: str
    ratio: float
    message: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.ratio:.2g})"


def compared_stages(subject: Subject, case: Case) -> list[Stage]:
    """The stages that the target names, in the order in which the reference runs them, up to the first that diverges.

    Raises:
        NotProvided: the target names no stage of this operation.
        Mismatch: the call raises, or the target is no nn.Module.
    """
    paths = {name: path for name, path in (subject.stages or {}).items() if name in STAGES[subject.operation]}
    if not paths:
        raise NotProvided("the target names no stages")
    module = make(subject, case)
    if not isinstance(module, nn.Module):
        raise Mismatch(f"stages can be read of an nn.Module alone, not of a {type(module).__name__}")
    bound, inputs = calling(subject, module, case)
    got = stage_values(module, paths, lambda: bound.forward(inputs))
    found: list[Stage] = []
    for name, right in stage_expectations(subject, case).items():
        if _pattern(name) not in paths:
            continue
        found.append(_compared(name, paths[_pattern(name)], got.get(name), right))
        if found[-1].ratio > 1:
            break
    return found


def first_divergence(subject: Subject, case: Case) -> str | None:
    """A sentence about where the target parts from the reference; None if it says nothing of its stages."""
    try:
        stages = compared_stages(subject, case)
    except (NotProvided, Mismatch):
        return None
    *before, last = stages
    told = ", ".join(map(str, before)) or "none"
    if last.ratio <= 1:
        return f"first divergence: behind all stages; error / limit of each: {', '.join(map(str, stages))}"
    return f"first divergence: stage {last.name}, {last.message}\nstages before it (error / limit): {told}"


def stage_expectations(subject: Subject, case: Case) -> dict[str, Expectation]:
    """The reference's stages in float64, with limits measured as those of an output (spec chapter 3)."""
    dtype = TORCH_DTYPES[subject.dtype]
    right = _reference_stages(subject.operation, case, torch.float64)
    tried = torch.float32 if dtype == torch.float64 else dtype
    runs, deviations = STRUCTURAL
    spreads = spread(
        lambda: _reference_stages(subject.operation, case, tried),
        right,
        runs=runs,
        seed=mixed_seed("stages", case.note) >> 8,
        coarsest=tried,
    )
    unit, tiny = torch.finfo(tried).eps / 2, torch.finfo(tried).tiny
    return {
        name: Expectation(value, deviations * spreads[name] + 2 * unit * value.abs() + tiny)
        for name, value in right.items()
    }


def _reference_stages(operation: str, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    module = reference_callable(operation, case, dtype)
    assert isinstance(module, nn.Module)
    inputs = {n: t.to(dtype) if t.is_floating_point() else t for n, t in inputs_of(operation, case).items()}
    return stage_values(module, STAGES[operation], lambda: call_with(operation, module, inputs))


def _compared(name: str, path: str, got: Tensor | None, right: Expectation) -> Stage:
    if got is None:
        return Stage(name, float("inf"), f"which never ran: there is no module {path}, or it was not called")
    if got.shape != right.expected.shape:
        return Stage(name, float("inf"), f"which has {got.numel()} numbers instead of {right.expected.numel()}")
    try:
        return Stage(name, compare(name, got, right.expected, right.limit))
    except Mismatch as mismatch:
        ratio = mismatch.ratio if mismatch.ratio is not None else float("inf")
        return Stage(name, ratio, f"off by {ratio:.3g} limits ({mismatch.message})")


def _pattern(name: str) -> str:
    head, _, number = name.rpartition(".")
    return f"{head}.{{i}}" if number.isdecimal() else name
