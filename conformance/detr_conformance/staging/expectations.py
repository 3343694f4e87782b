"""What every stage of the reference computes in a call, and how far a right implementation may be off there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.block import STRUCTURAL
from detr_conformance.harness.block_case import call_with, inputs_of, reference_callable
from detr_conformance.harness.case import TORCH_DTYPES, Case, digest_of, mixed_seed
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.random_rounding import RandomRounding, spread
from detr_conformance.harness.subject import Subject
from detr_conformance.isolation.stage_values import StageCalls, by_stage, stage_calls
from detr_conformance.stages import PARTS, STAGES, pattern_of, stages_of

REMEMBERED = 16  # cases: the tests that a broken model fails share theirs

Expected = list[tuple[str, Expectation, slice]]  # a call of a stage: its name, all numbers of the stage, which are its

_known: dict[tuple[str, str, str], Expected] = {}


def stage_expectations(subject: Subject, case: Case) -> Expected:
    """The stages of a whole model in the order in which the reference calls them: name, all the numbers of the stage
    in float64 with limits measured as those of an output (spec chapter 3), and which of them are this call's.

    A later call of a shared norm or head depends on what ran since the first one, and is compared in its turn.
    """
    return [each for each in every_expectation(subject, case) if pattern_of(each[0]) in STAGES[subject.operation]]


def every_expectation(subject: Subject, case: Case) -> Expected:
    """The same of all stages that are told of the operation, and of the parts inside them."""
    key = (subject.operation, subject.dtype, digest_of(case))
    if key not in _known:
        while len(_known) >= REMEMBERED:
            del _known[next(iter(_known))]
        _known[key] = _expect(subject.operation, case, TORCH_DTYPES[subject.dtype])
    return _known[key]


def _expect(operation: str, case: Case, dtype: torch.dtype) -> Expected:
    tried = tried_in(dtype)
    return with_limits(
        reference_stages(operation, case, torch.float64),
        lambda: reference_stages(operation, case, tried),
        STRUCTURAL,
        tried,
        mixed_seed("stages", case.note) >> 8,
    )


def tried_in(dtype: torch.dtype) -> torch.dtype:
    """What float64 may be computed in, as everywhere but where a clause is about precision."""
    return torch.float32 if dtype == torch.float64 else dtype


def with_limits(
    calls: StageCalls,
    run: Callable[[], StageCalls],
    runs: tuple[int, float],
    tried: torch.dtype,
    seed: int,
    kind: type[RandomRounding] = RandomRounding,
) -> Expected:
    """The calls with the limits of their stages.

    Args:
        calls: of the reference in float64.
        run: the reference once more, in the dtype `tried`, under random roundings.
        runs: how often, and how many of the deviations an implementation may be off.
    """
    right = _joined(calls)
    times, deviations = runs
    spreads = spread(lambda: _joined(run()), right, runs=times, seed=seed, coarsest=tried, kind=kind)
    unit, tiny = torch.finfo(tried).eps / 2, torch.finfo(tried).tiny
    whole = {
        name: Expectation(value, deviations * spreads.pop(name) + 2 * unit * value.abs() + tiny)
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


def reference_stages(operation: str, case: Case, dtype: torch.dtype) -> StageCalls:
    """What the reference computes in this dtype, stage by stage."""
    module = reference_callable(operation, case, dtype)
    assert isinstance(module, nn.Module)
    inputs = in_dtype(inputs_of(operation, case), dtype)
    return stage_calls(module, told_of(operation), lambda: call_with(operation, module, inputs))


def told_of(operation: str) -> dict[str, str]:
    """The reference's paths of all stages and parts of an operation."""
    return stages_of(operation) | PARTS.get(operation, {})


def in_dtype(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
