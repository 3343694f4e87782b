"""Where a whole model parts from the reference: a defect planted in any stage is found in that stage, none before it.

The stages, and what may hide one: a norm and heads that serve all layers, heads that are called twice in a layer, and
implementations that call them in another order than the reference.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_conformance.harness import divergence
from detr_conformance.harness.case import Case
from detr_conformance.harness.divergence import Stage, compared_stages, first_divergence, stage_expectations
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.model_cases import forms, model_case
from detr_conformance.harness.stage_values import stage_calls
from detr_conformance.harness.subject import NotProvided, Settings, Subject
from detr_conformance.stages import STAGES
from detr_reference import dino
from detr_reference.dino import DINO
from detr_reference.dino_config import DINOConfig
from detr_reference.dino_decoder import DINODecoder
from detr_reference.look_forward_twice import initial_references, next_references, predicted_boxes
from detr_reference.reference_points import decoder_reference_points

NUMBERS = {"encoder": 2, "class_head": 4, "box_head": 4}  # the last heads are the first stage's; of all others there are 3
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


@pytest.fixture(autouse=True)
def expected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right depends on the case alone."""
    monkeypatch.setattr(divergence, "stage_expectations", _expectations)


def _expectations(subject: Subject, case: Case) -> Any:
    if case.note not in _known:
        _known[case.note] = stage_expectations(subject, case)
    return _known[case.note]


_known: dict[str, Any] = {}


# -- defects ----------------------------------------------------------------------------------------------------


def scaled(tensor: Tensor) -> Tensor:
    return tensor * 1.01


def without_a_channel(tensor: Tensor) -> Tensor:
    return tensor.index_fill(-1, torch.tensor([1]), 0)


def planted(path: str, change: Change) -> Build:
    """The reference with the output of a module, or one of its arguments, changed."""

    def build(config: DINOConfig, state_dict: dict[str, Tensor]) -> nn.Module:
        model = dino.build(config, state_dict)
        inner, _, argument = path.partition(">")
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
    return list(dict.fromkeys(name for name, *_ in _expectations(subject, case)))


def assert_found(stages: list[Stage], wanted: str, order: list[str]) -> None:
    """The last one is the one, off its limits, and all that ran before are within theirs."""
    assert stages[-1].name == wanted
    assert stages[-1].ratio > 1
    assert all(stage.ratio <= 1 for stage in stages[:-1])
    before = [stage.name for stage in stages[:-1]]
    assert before == [name for name in order[: len(stages)] if name != wanted]


# -- tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_reference_diverges_nowhere(form: str) -> None:
    subject = subject_of(dino.build)
    case = case_of(subject, form)
    stages = compared_stages(subject, case)
    assert all(stage.ratio <= 1 for stage in stages)
    assert [stage.name for stage in stages] == reference_order(case, subject)
    said = first_divergence(subject, case)
    assert said is not None
    assert said.startswith("first divergence: behind all stages; error / limit of each: backbone (")
    if form == FORMS[0]:
        assert {stage.name for stage in stages} == {name for name, _ in every_stage()}


@pytest.mark.parametrize(("stage", "path"), list(every_stage()))
@pytest.mark.parametrize("change", [scaled, without_a_channel])
def test_a_defect_of_each_stage(stage: str, path: str, change: Change) -> None:
    subject = subject_of(planted(path, change))
    case = case_of(subject)
    assert_found(compared_stages(subject, case), stage, reference_order(case, subject))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("number", range(3))
def test_norm_and_heads_that_ran_before_do_not_hide_a_layer(form: str, number: int) -> None:
    """What layer i - 1 called is called again by layer i, and errs then."""
    stage = f"decoder.{number}"
    subject = subject_of(planted(f"transformer.decoder.layers.{number}", scaled))
    case = case_of(subject, form)
    assert_found(compared_stages(subject, case), stage, reference_order(case, subject))


@pytest.mark.parametrize("number", range(3))
def test_exchanged_norms(number: int) -> None:
    """The exchange of Deformable DETR's norm1 and norm2, which a strict load does not notice."""
    subject = subject_of(swapped(f"transformer.decoder.layers.{number}"))
    case = case_of(subject)
    assert_found(compared_stages(subject, case), f"decoder.{number}", reference_order(case, subject))


def test_the_message() -> None:
    """Stage, error over limit, the worst element, and what is right before it."""
    subject = subject_of(swapped("transformer.decoder.layers.1"))
    case = case_of(subject)
    said = first_divergence(subject, case)
    assert said is not None
    first, before = said.splitlines()
    worst = compared_stages(subject, case)[-1].ratio
    assert first.startswith(f"first divergence: stage decoder.1, off by {worst:.3g} limits (decoder.1[")
    for word in ("expected", "got", "limit"):
        assert word in first
    assert before.startswith("stages before it (error / limit): backbone (0.")
    assert before.split(", ")[-1].startswith("decoder_references.1 (")


@pytest.mark.parametrize("path", ["transformer.decoder.final", "class_embed"])  # a list of modules is never called
def test_a_stage_that_never_runs(path: str) -> None:
    subject = subject_of(dino.build, stages=STAGES["dino"] | {"decoder_norm": path})
    case = case_of(subject)
    assert_found(compared_stages(subject, case), "decoder_norm", reference_order(case, subject))
    said = first_divergence(subject, case)
    assert said is not None
    assert f"stage decoder_norm, which never ran: there is no module {path}, or it was not called" in said


def test_a_stage_of_another_size() -> None:
    subject = subject_of(dino.build, stages={"decoder_norm": "class_embed.0"})
    said = first_divergence(subject, case_of(subject))
    assert said is not None
    assert said.splitlines() == [
        "first divergence: stage decoder_norm, which has 40 numbers instead of 480",
        "stages before it (error / limit): none",
    ]


def test_a_model_that_raises() -> None:
    subject = subject_of(planted("transformer.decoder.layers.1", lambda output: output[:, :-1]))
    with pytest.raises(Mismatch, match="the call raised"):
        compared_stages(subject, case_of(subject))
    assert first_divergence(subject, case_of(subject)) is None


def test_only_some_stages_are_named() -> None:
    """The first of those that are named and come behind the defect."""
    some = {"encoder.{i}": "transformer.encoder.layers.{i}", "decoder.{i}": "transformer.decoder.layers.{i}"}
    for path, found in (("neck", "encoder.0"), ("transformer.enc_output", "decoder.0")):
        subject = subject_of(planted(path, without_a_channel), stages=some)
        assert compared_stages(subject, case_of(subject))[-1].name == found


def test_without_stages() -> None:
    for stages in (None, {}, {"input_proj": "input_proj"}):  # the last one is no stage of DINO
        subject = subject_of(dino.build, stages=stages)
        with pytest.raises(NotProvided, match="names no stages"):
            compared_stages(subject, case_of(subject))
        assert first_divergence(subject, case_of(subject)) is None
    function = subject_of(lambda config, state_dict: lambda **inputs: dino.build(config, state_dict).eval()(**inputs))
    assert first_divergence(function, case_of(function)) is None


class PredictsAfterwards(DINODecoder):
    """All layers, with their refinements; then all predictions, as in IDEA-Research/DINO and detrex."""

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        memory: Tensor,
        reference_points: Tensor,
        box_heads: list[nn.Module],
        class_heads: list[nn.Module],
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        *,
        valid_ratios: Tensor,
        learned_references: bool = False,
        **geometry: Tensor,
    ) -> dict[str, Tensor]:
        references, outputs = [initial_references(reference_points)], []
        for layer, head in zip(self.layers, box_heads, strict=True):
            fed = references[-1].fed
            position = self._query_pos(fed, valid_ratios)
            points = decoder_reference_points(fed, valid_ratios)
            query = layer(query, memory, position, attn_mask, key_padding_mask, reference_points=points, **geometry)
            references.append(next_references(head(query), references[-1], twice=True))
            outputs.append(query)
        states = [self.norm(output) for output in outputs]
        logits = [head(state) for head, state in zip(class_heads, states, strict=True)]
        boxes = [
            predicted_boxes(head(state), used)
            for head, state, used in zip(box_heads, states, references[:-1], strict=True)
        ]
        return {"pred_logits": torch.stack(logits), "pred_boxes": torch.stack(boxes)}


@pytest.mark.parametrize("form", FORMS)
def test_another_order_of_calls_is_right(form: str) -> None:
    def build(config: DINOConfig, state_dict: dict[str, Tensor]) -> DINO:
        model = dino.build(config, state_dict)
        model.transformer.decoder.__class__ = PredictsAfterwards
        return model

    subject = subject_of(build)
    assert all(stage.ratio <= 1 for stage in compared_stages(subject, case_of(subject, form)))


def test_a_stage_is_what_it_was_when_it_ran() -> None:
    """Whatever is done to it in place afterwards."""
    module = nn.Sequential(nn.Identity(), nn.Linear(2, 3).double())
    given = torch.ones(4, 2, dtype=torch.float64)

    def call() -> None:
        module(given).zero_()
        given.zero_()

    found = dict(stage_calls(module, {"in": "0>input", "out": "1"}, call))
    assert found["in"].eq(1).all()
    assert found["out"].ne(0).all()
