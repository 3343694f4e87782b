"""The first stage of a whole model that leaves its limit: same input, same parameters, stage after stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detr_conformance.harness.block import STRUCTURAL, calling, make
from detr_conformance.harness.block_case import call_with, inputs_of, reference_callable
from detr_conformance.harness.case import TORCH_DTYPES, Case, digest_of, mixed_seed
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import Mismatch, compare
from detr_conformance.harness.random_rounding import spread
from detr_conformance.harness.subject import NotProvided, Subject, explained
from detr_conformance.isolation import remote
from detr_conformance.isolation.stage_values import StageCalls, by_stage, stage_calls
from detr_conformance.stages import STAGES

REMEMBERED = 16  # cases: the tests that a broken model fails share theirs

_known: dict[tuple[str, str, str], list[tuple[str, Expectation, slice]]] = {}


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
    if isinstance(module, remote.Module):
        with explained("the call"):
            got = by_stage(module.watched(paths, **bound.arguments(inputs)))
    else:
        got = by_stage(stage_calls(module, paths, lambda: bound.forward(inputs)))
    found: dict[str, Stage] = {}
    for name, right, part in stage_expectations(subject, case):
        if _pattern(name) not in paths:
            continue
        stage = _compared(name, paths[_pattern(name)], got.get(name, []), right, part)
        found[name] = max(found.get(name, stage), stage, key=lambda each: each.ratio)
        if stage.ratio > 1:
            found[name] = found.pop(name)  # last, whenever it was first called
            break
    return list(found.values())


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


def stage_expectations(subject: Subject, case: Case) -> list[tuple[str, Expectation, slice]]:
    """The reference's stages in float64, in the order in which it calls them: name, all the numbers of the stage with
    limits measured as those of an output (spec chapter 3), and which of them are this call's.

    A later call of a shared norm or head depends on what ran since the first one, and is compared in its turn.
    """
    key = (subject.operation, subject.dtype, digest_of(case))
    if key not in _known:
        while len(_known) >= REMEMBERED:
            del _known[next(iter(_known))]
        _known[key] = _expect(subject.operation, case, TORCH_DTYPES[subject.dtype])
    return _known[key]


def _expect(operation: str, case: Case, dtype: torch.dtype) -> list[tuple[str, Expectation, slice]]:
    calls = _reference_stages(operation, case, torch.float64)
    right = _joined(calls)
    tried = torch.float32 if dtype == torch.float64 else dtype
    runs, deviations = STRUCTURAL
    spreads = spread(
        lambda: _joined(_reference_stages(operation, case, tried)),
        right,
        runs=runs,
        seed=mixed_seed("stages", case.note) >> 8,
        coarsest=tried,
    )
    unit, tiny = torch.finfo(tried).eps / 2, torch.finfo(tried).tiny
    whole = {
        name: Expectation(value, deviations * spreads[name] + 2 * unit * value.abs() + tiny)
        for name, value in right.items()
    }
    ends = dict.fromkeys(whole, 0)
    found = []
    for name, numbers in calls:
        start, ends[name] = ends[name], ends[name] + numbers.numel()
        found.append((name, whole[name], slice(start, ends[name])))
    return found


def _joined(calls: StageCalls) -> dict[str, Tensor]:
    return {name: torch.cat(several) for name, several in by_stage(calls).items()}


def _reference_stages(operation: str, case: Case, dtype: torch.dtype) -> StageCalls:
    module = reference_callable(operation, case, dtype)
    assert isinstance(module, nn.Module)
    inputs = {n: t.to(dtype) if t.is_floating_point() else t for n, t in inputs_of(operation, case).items()}
    return stage_calls(module, STAGES[operation], lambda: call_with(operation, module, inputs))


def _compared(name: str, path: str, got: list[Tensor], right: Expectation, part: slice) -> Stage:
    """One call of a stage. The target may call a module for all layers at once, or in another order: the head that
    refines and predicts, say, may do first the one or the other."""
    if not got:
        return Stage(name, float("inf"), f"which never ran: there is no module {path}, or it was not called")
    whole = torch.cat(got)
    if whole.shape != right.expected.shape:
        return Stage(name, float("inf"), f"which has {whole.numel()} numbers instead of {right.expected.numel()}")
    expected, limit = right.expected[part], right.limit[part]
    others = [each for each in got if each.shape == expected.shape]
    return min((_of_call(name, each, expected, limit) for each in (whole[part], *others)), key=lambda each: each.ratio)


def _of_call(name: str, got: Tensor, expected: Tensor, limit: Tensor) -> Stage:
    try:
        return Stage(name, compare(name, got, expected, limit))
    except Mismatch as mismatch:
        ratio = mismatch.ratio if mismatch.ratio is not None else float("inf")
        return Stage(name, ratio, f"off by {ratio:.3g} limits ({mismatch.message})")


def _pattern(name: str) -> str:
    head, _, number = name.rpartition(".")
    return f"{head}.{{i}}" if number.isdecimal() else name
