"""DINO with a defect in one stage, and the assertion that it is found there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.stages import STAGES
from detr_conformance.staging.expectations import stage_expectations
from detr_conformance.staging.judging import Stage
from detr_conformance.topics.detectors.cases.models import forms, model_case
from detr_reference.detectors import dino
from detr_reference.detectors.config import DINOConfig

NUMBERS = {"encoder": 2, "class_head": 4, "box_head": 4}  # the fourth heads are the first stage's, of others 3
FORMS = ("separate heads", "shared heads")

Build = Callable[[DINOConfig, dict[str, Tensor]], nn.Module]
Change = Callable[[Tensor], Tensor]


def every_stage() -> Iterator[tuple[str, str]]:
    """Each stage of DINO and its path, with numbers for {i}."""
    for name, path in STAGES["dino"].items():
        for number in range(NUMBERS.get(name.partition(".")[0], 3) if "{i}" in name else 1):
            yield name.replace("{i}", str(number)), path.replace("{i}", str(number))


def subject_of(build: Build, **settings: Any) -> Subject:
    stages = settings.pop("stages", STAGES["dino"])
    return Subject("dino", build, "float32", "cpu", stages=stages, settings=Settings("standard", 0), **settings)


def case_of(subject: Subject, form: str = FORMS[0]) -> Case:
    return model_case(subject, form, **forms(subject)[form])


def scaled(tensor: Tensor) -> Tensor:
    return tensor * 1.01


def without_a_channel(tensor: Tensor) -> Tensor:
    return tensor.index_fill(-1, torch.tensor([1]), 0)


def planted(path: str, change: Change) -> Build:
    """The reference with the output of a module, or one of its arguments, changed."""

    def build(config: DINOConfig, state_dict: dict[str, Tensor]) -> nn.Module:
        model = dino.build(config, state_dict)
        inner, _, argument = path.partition(">")
        if inner.endswith(".core"):
            attention = model.get_submodule(inner.removesuffix(".core"))
            method = {"sampling_locations": "_sampling_locations", "attention_weights": "_softmax_weights"}[argument]
            actual = getattr(attention, method)
            setattr(attention, method, lambda *given: change(actual(*given)))
            return model
        module = model.get_submodule(inner)

        def given(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
            bound = inspect.signature(module.forward).bind(*positional, **named)
            bound.arguments[argument] = change(bound.arguments[argument])
            return bound.args, bound.kwargs

        def returned(_: nn.Module, __: Any, output: Any) -> Any:
            return change(output) if isinstance(output, Tensor) else tuple(map(change, output))

        if argument:
            module.register_forward_pre_hook(given, with_kwargs=True)
        else:
            module.register_forward_hook(returned)
        return model

    return build


def swapped(prefix: str) -> Build:
    """The reference with the parameters of the first two norms of a layer exchanged: all shapes are right."""
    other = {f"{prefix}.norms.0.": f"{prefix}.norms.1.", f"{prefix}.norms.1.": f"{prefix}.norms.0."}

    def build(config: DINOConfig, state_dict: dict[str, Tensor]) -> nn.Module:
        given = dict(state_dict)
        for name in state_dict:
            for one, another in other.items():
                if name.startswith(one):
                    given[name] = state_dict[name.replace(one, another)]
        return dino.build(config, given)

    return build


def reference_order(case: Case, subject: Subject) -> list[str]:
    return list(dict.fromkeys(name for name, *_ in stage_expectations(subject, case)))


def assert_found(stages: list[Stage], wanted: str, order: list[str]) -> None:
    """The last one is the one, off its limits, and all that ran before are within theirs."""
    assert stages[-1].name == wanted
    assert stages[-1].ratio > 1
    assert all(stage.ratio <= 1 for stage in stages[:-1])
    before = [stage.name for stage in stages[:-1]]
    assert before == [name for name in order[: len(stages)] if name != wanted]
