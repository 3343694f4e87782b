"""The first stage of a model that leaves its limit: same input and parameters, stage after stage, then inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from detr_conformance.harness.block import calling, make
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Mismatch, SuiteError
from detr_conformance.harness.subject import NotProvided, Subject, explained
from detr_conformance.isolation import remote
from detr_conformance.isolation.stage_values import StageCalls, by_stage, stage_calls
from detr_conformance.stages import STAGES, pattern_of, stages_of
from detr_conformance.staging.expectations import every_expectation, told_of
from detr_conformance.staging.handing import on_the_references_input
from detr_conformance.staging.judging import Stage, judged


@dataclass(frozen=True)
class Look:
    """What a look at the stages of a call found.

    Attributes:
        stages: in the order in which the reference runs them, up to the first that diverges.
        parts: those inside that one, up to the first of them that diverges.
        handed: all stages and parts on the reference's input; empty where that could not be given.
    """

    stages: list[Stage]
    parts: list[Stage] = field(default_factory=list)
    handed: dict[str, Stage] = field(default_factory=dict)

    def told(self) -> str:
        """In sentences, one a line."""
        *before, last = self.stages
        if last.agrees:
            return f"first divergence: behind all stages; error / limit of each: {_listed(self.stages)}"
        said = [f"first divergence: stage {last.name}, {last.message}", *self.told_of_the_last()]
        return "\n".join([*said, f"stages before it (error / limit): {_listed(before)}"])

    def told_of_the_last(self) -> list[str]:
        """What was found inside the stage that diverges, and on the reference's input."""
        return [*told_inside(self.stages[-1], self.parts), *told_handed(self.stages[-1], self.handed)]


def look(subject: Subject, case: Case) -> Look:
    """The stages that the target names, up to the first that diverges, and what is found inside that one.

    Raises:
        NotProvided: the target names no stage of this operation.
        Mismatch: the call raises, or the target is no nn.Module.
    """
    paths = {name: path for name, path in (subject.stages or {}).items() if name in told_of(subject.operation)}
    if not any(name in stages_of(subject.operation) for name in paths):
        raise NotProvided("the target names no stages")
    module = make(subject, case)
    if not isinstance(module, nn.Module):
        raise Mismatch(f"stages can be read of an nn.Module alone, not of a {type(module).__name__}")
    bound, inputs = calling(subject, module, case)
    own = _watched(bound, module, paths, inputs)
    expected = every_expectation(subject, case)
    calls = list(judged(expected, paths, by_stage(own)))
    stages = up_to_the_first([each for each in calls if pattern_of(each.name) in stages_of(subject.operation)])
    if stages[-1].agrees:
        return Look(stages)
    parts = up_to_the_first([each for each in calls if is_inside(each.name, stages[-1].name)])
    if isinstance(module, remote.Module):
        return Look(stages, parts)
    handed = on_the_references_input(module, paths, expected, own, lambda: bound.forward(inputs))
    return Look(stages, parts, handed)


def compared_stages(subject: Subject, case: Case) -> list[Stage]:
    """The stages that the target names, in the order in which the reference runs them, up to the first that diverges.

    Raises:
        NotProvided, Mismatch: as `look`.
    """
    return look(subject, case).stages


def first_divergence(subject: Subject, case: Case) -> str | None:
    """Where the target parts from the reference; None if it says nothing of its stages."""
    try:
        return look(subject, case).told()
    except (NotProvided, Mismatch):
        return None


def divergence_details(subject: Subject, case: Case) -> list[str]:
    """The same for a report; of whole models also that nothing is known."""
    if subject.operation in STAGES:
        return [first_divergence(subject, case) or "no stages are named that could be compared"]
    try:
        said = first_divergence(subject, case) if stages_of(subject.operation) else None
    except (SuiteError, ValueError, TypeError, RuntimeError):
        return []  # cases of layers may be such as the reference refuses, or such as overflow
    return [said] if said else []


def is_inside(part: str, stage: str) -> bool:
    return part.startswith(f"{stage}.")


def up_to_the_first(calls: list[Stage]) -> list[Stage]:
    """The worst call of each, up to the first that diverges; that one last, whenever it was first called."""
    found: dict[str, Stage] = {}
    for stage in calls:
        found[stage.name] = max(found.get(stage.name, stage), stage, key=lambda each: each.ratio)
        if not stage.agrees:
            found[stage.name] = found.pop(stage.name)
            break
    return list(found.values())


def told_inside(stage: Stage, parts: Sequence[Stage]) -> list[str]:
    """What is known of the parts of a stage that diverges."""
    if not parts:
        return []
    *before, last = [_short(stage, part) for part in parts]
    if parts[-1].agrees:
        return [f"inside it no part diverges ({_listed([*before, last])}): it is what comes behind or between them"]
    return [f"inside it: {last.name}, {last.message}; parts before it (error / limit): {_listed(before)}"]


def told_handed(stage: Stage, handed: Mapping[str, Stage]) -> list[str]:
    """What becomes of a stage that diverges on the reference's input."""
    if stage.name not in handed:
        return []
    wrong = [each for each in handed.values() if not each.agrees]
    own = [each for each in wrong if each.name == stage.name or is_inside(each.name, stage.name)]
    if not own:
        return [f"{stage.name} is right on the reference's input: it inherits from what no named stage shows"]
    parts = [_short(stage, each).name for each in own if each.name != stage.name]
    said = f"given the reference's input, {stage.name} still differs" + (f", in {', '.join(parts)}" if parts else "")
    others = [each.name for each in wrong if each not in own]
    return [said + (f"; and so does {', '.join(others)}" if others else "; what comes behind it inherits")]


def _short(stage: Stage, part: Stage) -> Stage:
    """A part by its own name."""
    return Stage(part.name.removeprefix(f"{stage.name}."), part.ratio, part.message)


def _listed(stages: list[Stage]) -> str:
    return ", ".join(map(str, stages)) or "none"


def _watched(bound: Subject, module: nn.Module, paths: dict[str, str], inputs: Case) -> StageCalls:
    if isinstance(module, remote.Module):
        with explained("the call"):
            return module.watched(paths, **bound.arguments(inputs))
    return stage_calls(module, paths, lambda: bound.forward(inputs))
