"""A stage that was compared, and how one is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import Mismatch, compare
from detr_conformance.stages import pattern_of
from detr_conformance.staging.expectations import Expected


@dataclass(frozen=True)
class Stage:
    """A stage that was compared: its largest error over its limit, or what else is wrong with it.

    Attributes:
        ratio: infinite where there is nothing to compare.
        error, limit: of the element with that ratio.
    """

    name: str
    ratio: float
    message: str | None = None
    error: float = math.nan
    limit: float = math.nan

    @property
    def agrees(self) -> bool:
        return self.ratio <= 1

    def __str__(self) -> str:
        return f"{self.name} ({self.ratio:.2g})"


def judged(expected: Expected, paths: Mapping[str, str], got: Mapping[str, Sequence[Tensor]]) -> Iterator[Stage]:
    """Each call of a stage that the target names, in the order in which the reference runs them.

    Args:
        paths: stage -> where the target has it.
        got: its numbers in each call.
    """
    for name, right, part in expected:
        if pattern_of(name) in paths:
            yield compared(name, paths[pattern_of(name)], got.get(name, []), right, part)


def worst_of_each(stages: Iterator[Stage]) -> dict[str, Stage]:
    """The worst call of each stage; a stage stands where it was called last."""
    found: dict[str, Stage] = {}
    for stage in stages:
        before = found.pop(stage.name, stage)
        found[stage.name] = max(before, stage, key=lambda each: each.ratio)
    return found


def compared(name: str, path: str, got: Sequence[Tensor], right: Expectation, part: slice) -> Stage:
    """One call of a stage. The target may call a module for all layers at once, or in another order: the head that
    refines and predicts, say, may do first the one or the other."""
    if not got:
        return Stage(name, math.inf, f"which never ran: there is no module {path}, or it was not called")
    whole = torch.cat(list(got))
    if whole.shape != right.expected.shape:
        return Stage(name, math.inf, f"which has {whole.numel()} numbers instead of {right.expected.numel()}")
    expected, limit = right.expected[part], right.limit[part]
    others = [each for each in got if each.shape == expected.shape]
    return min((of_call(name, each, expected, limit) for each in (whole[part], *others)), key=lambda each: each.ratio)


def of_call(name: str, got: Tensor, expected: Tensor, limit: Tensor) -> Stage:
    """These numbers beside those."""
    error = (got - expected).abs().nan_to_num(nan=math.inf)
    worst = int((error / limit).nan_to_num(nan=0.0).argmax()) if got.numel() else None
    numbers = (math.nan, math.nan) if worst is None else (float(error[worst]), float(limit[worst]))
    try:
        return Stage(name, compare(name, got, expected, limit), None, *numbers)
    except Mismatch as mismatch:
        ratio = mismatch.ratio if mismatch.ratio is not None else math.inf
        return Stage(name, ratio, f"off by {ratio:.3g} limits ({mismatch.message})", *numbers)
