"""The comparison itself: which stage is the first to differ, in which part, and what inherits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detr_conformance.comparing.reference import Reference, Tick, named_outputs, numbers_of
from detr_conformance.comparing.selecting import (
    BEHIND_THE_SELECTION,
    SCORES,
    SELECTION,
    Candidates,
    boxes_of,
    judged_selection,
    scores_of_cells,
    selected_by_the_target,
)
from detr_conformance.harness.block import make
from detr_conformance.harness.block_case import call_with, inputs_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.isolation.stage_values import StageCalls, by_stage, stage_calls
from detr_conformance.stages import pattern_of, stages_of
from detr_conformance.staging.divergence import is_inside, told_handed, told_inside, up_to_the_first
from detr_conformance.staging.expectations import Expected, told_of, tried_in
from detr_conformance.staging.handing import on_the_references_input
from detr_conformance.staging.judging import Stage, judged, worst_of_each

AGREES, DIFFERS, INHERITS, FOLLOWS = "agrees", "differs", "inherits", "follows"


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        stages: every stage that the target names, and then its outputs; where several calls differ, the worst.
        outputs: which of these are outputs.
        first: the first call of a stage that differs, or else of an output; None if all agree.
        parts: of that stage, up to the first part that differs.
        handed: stages and parts on the reference's input; empty where nothing differs, or where it cannot be given.
    """

    stages: Sequence[Stage]
    outputs: frozenset[str]
    first: Stage | None = None
    parts: Sequence[Stage] = ()
    handed: Mapping[str, Stage] = field(default_factory=dict)

    @property
    def part(self) -> Stage | None:
        """The part of the first stage that differs."""
        return next((part for part in self.parts if not part.agrees), None)

    def verdict(self, stage: Stage) -> str:
        """What is said of a stage: whether it differs by itself is known where its input could be given."""
        if stage.agrees:
            return AGREES
        if self.first is not None and stage.name == self.first.name:
            return DIFFERS
        own = [each for name, each in self.handed.items() if name == stage.name or is_inside(name, stage.name)]
        if not own:
            return FOLLOWS
        return INHERITS if all(each.agrees for each in own) else DIFFERS

    def told(self) -> list[str]:
        """In sentences."""
        if self.first is None:
            return [f"{stage.name}: {stage.message}" for stage in self.stages if stage.message]
        what = "output" if self.first.name in self.outputs else "stage"
        said = [f"first divergence: {what} {self.first.name}, {self.first.message}"]
        if self.first.name == SELECTION:
            return [*said, "what comes behind it is judged with the cells that the target took"]
        return [*said, *told_inside(self.first, self.parts), *told_handed(self.first, self.handed)]


@dataclass(frozen=True)
class _Own:
    """What the target computed, and of which module."""

    module: Any
    calls: StageCalls
    outputs: dict[str, Tensor]

    def numbers(self) -> dict[str, list[Tensor]]:
        return by_stage(self.calls) | {name: [numbers_of(output)] for name, output in self.outputs.items()}


def compare(subject: Subject, case: Case, tick: Tick) -> Comparison:
    """The target beside the reference in this call.

    Raises:
        Mismatch: the target cannot be built or called.
    """
    paths = {name: path for name, path in (subject.stages or {}).items() if name in told_of(subject.operation)}
    tick("the target", 0.0)
    own = _computed(subject, case, paths)
    expected, selection = _expected(subject, case, own, {*paths, SCORES}, tick)
    numbers = own.numbers()
    calls = list(judged(expected, paths, numbers))
    stages = [each for each in calls if pattern_of(each.name) in stages_of(subject.operation)]
    stages = _with_selection(stages, selection)
    outputs = [each for each in expected if pattern_of(each[0]) not in told_of(subject.operation)]
    names = {name: f"the output {name}" for name, *_ in outputs}
    stages += judged(outputs, names, numbers)
    found = Comparison(list(worst_of_each(iter(stages)).values()), frozenset(names))
    first = up_to_the_first(stages)[-1]
    if first.agrees:
        return found
    parts = up_to_the_first([each for each in calls if is_inside(each.name, first.name)])
    tick("the target on the reference's input", 0.0)
    handed = on_the_references_input(own.module, paths, expected, own.calls, lambda: _call(subject, own.module, case))
    handed.pop(SELECTION, None)  # it then selects as the reference by itself, which may not be what is expected
    return Comparison(found.stages, found.outputs, first, parts, handed)


def _computed(subject: Subject, case: Case, paths: Mapping[str, str]) -> _Own:
    module = make(subject, case)
    outputs: dict[str, Tensor] = {}

    def call() -> None:
        outputs.update(named_outputs(_call(subject, module, case)))

    with explained("the call"), torch.no_grad():
        calls: StageCalls = []
        if isinstance(module, torch.nn.Module):
            calls = stage_calls(module, paths, call)
        else:
            call()
    return _Own(module, calls, outputs)


def _call(subject: Subject, module: Any, case: Case) -> Any:
    inputs = {name: tensor.to(subject.device) for name, tensor in inputs_of(subject.operation, case).items()}
    return call_with(subject.operation, module, inputs)


def _expected(subject: Subject, case: Case, own: _Own, wanted: set[str], tick: Tick) -> tuple[Expected, Stage | None]:
    """What is right, given the target's selection, and whether that is right; None where none is known."""
    reference = Reference(subject.operation, case, wanted, tried_in(subject.torch_dtype), tick)
    seen: list[Candidates] = []
    calls = reference.run("the reference in float64", torch.float64, seen)
    if not seen:
        return reference.expected(calls, None), None
    right = seen[0].indices
    boxes = boxes_of(by_stage(own.calls), own.outputs, right)
    unit = torch.finfo(subject.torch_dtype).eps / 2
    indices = None if boxes is None else selected_by_the_target(seen[0], boxes, unit)
    if indices is None:
        return reference.expected(calls, right), None
    if not torch.equal(indices, right):
        calls = reference.run("the reference with the target's selection", torch.float64, [], indices)
    expected = reference.expected(calls, indices)
    return expected, judged_selection(
        seen[0], indices, scores_of_cells(subject.operation, expected, seen[0].scores.shape)
    )


def _with_selection(stages: Sequence[Stage], selection: Stage | None) -> list[Stage]:
    """The worse of what is said of the selected boxes and of the choice, in front of what is made of it."""
    if selection is None:
        return list(stages)
    boxes = next((stage for stage in stages if stage.name == SELECTION), selection)
    others = [stage for stage in stages if stage.name != SELECTION]
    behind = (place for place, stage in enumerate(others) if stage.name.startswith(BEHIND_THE_SELECTION))
    place = next(behind, len(others))
    return [*others[:place], selection if boxes.agrees else boxes, *others[place:]]
