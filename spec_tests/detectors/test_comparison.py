"""`compare` names stage and part of planted mistakes, and calls right ports right, whatever rounding selects."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_conformance import PARTS, STAGES
from detr_conformance.comparing import reference
from detr_conformance.comparing.comparison import AGREES, DIFFERS, FOLLOWS, INHERITS, Comparison, compare
from detr_conformance.comparing.inputs import layer_inputs, random_images
from detr_conformance.comparing.reference import Reference
from detr_conformance.comparing.selecting import Candidates, exchanged, judged_selection, selected_by_the_target
from detr_conformance.comparing.table import as_json
from detr_conformance.harness.block import STRUCTURAL
from detr_conformance.harness.case import PARAMETER, Case, digest_of
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import Subject
from detr_conformance.isolation.stage_values import StageCalls
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.stages import LAYERS
from detr_conformance.staging.expectations import Expected
from detr_conformance.topics.detectors.cases.models import SETTINGS, model_parameters
from helpers.ports.dino import MISTAKES, RIGHT, Build

SIZES = {**SETTINGS["dino"], "shared_heads": True, "label_embedding_size": 5, "num_queries": 12}
FINER = STAGES["dino"] | PARTS["dino"]
NEARLY_EQUAL = 1e-6  # how far the scores of cells are apart, in units of what is usual


def case_of(settings: Mapping[str, Any], scores: float = 1.0, operation: str = "dino") -> Case:
    fill = Filler("float64", 3, "a comparison")
    parameters = model_parameters(operation, settings, fill)
    last = max((name for name in parameters if name.startswith("class_embed.")), default="")
    if last:
        parameters[last] = parameters[last] * scores
    tensors = {**random_images((64, 96), 0), **{PARAMETER + name: tensor for name, tensor in parameters.items()}}
    given = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    return Case(given, note="tiny", options={name: json.dumps(value) for name, value in settings.items()})


@pytest.fixture(autouse=True)
def one_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits do not depend on the target but for its selection, and take nearly all of the time."""
    actual = Reference.expected

    def expected(self: Reference, calls: StageCalls, indices: Tensor | None) -> Expected:
        key = (digest_of(self.case), str(sorted(self.paths)), "" if indices is None else str(indices.tolist()))
        if key not in _expected:
            _expected[key] = actual(self, calls, indices)
        return _expected[key]

    monkeypatch.setattr(Reference, "expected", expected)
    monkeypatch.setattr(reference, "ROUNDINGS", STRUCTURAL)  # these are small


_expected: dict[tuple[str, str, str], Expected] = {}


def compared(build: Build, case: Case, stages: Mapping[str, str] | None = None) -> Comparison:
    subject = Subject("dino", build, "float32", "cpu", stages=FINER if stages is None else stages)
    with torch.no_grad():
        return compare(subject, case, lambda what, done: None)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name: str) -> None:
    build, stage, part = MISTAKES[name]
    found = compared(build, case_of(SIZES))
    assert found.first is not None
    assert (found.first.name, found.part and found.part.name) == (stage, part)
    verdicts = [found.verdict(each) for each in found.stages]
    if not stage.startswith("box_head"):  # one for all layers, which stands where it was called last
        assert verdicts[: verdicts.index(DIFFERS)] == [AGREES] * verdicts.index(DIFFERS)
    assert verdicts.count(DIFFERS) == 1 or "whole boxes" in name  # the one that is wrong in every layer


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_one_is_right(name: str) -> None:
    found = compared(RIGHT[name], case_of(SIZES, scores=NEARLY_EQUAL))
    assert {found.verdict(stage) for stage in found.stages} == {AGREES}
    if "permuted" in name:
        (said,) = found.told()
        assert said.startswith("selection: places ")
        assert said.endswith("hold cells whose scores are equal but for rounding")


def test_the_same_exchange_is_wrong_where_scores_are_apart() -> None:
    found = compared(RIGHT["selection permuted by rounding"], case_of(SIZES))
    assert found.first is not None
    assert found.first.name == "selection"
    assert "2 places that hold other cells, 2 for no rounding's sake: place " in found.told()[0]
    assert found.told()[1] == "what comes behind it is judged with the cells that the target took"
    assert {found.verdict(stage) for stage in found.stages if stage.name.startswith("decoder")} == {AGREES}


def test_the_selection_is_seen_in_the_outputs_too() -> None:
    """Of a target that names no stages."""
    found = compared(MISTAKES["selection by the first class"][0], case_of(SIZES), {})
    assert found.first is not None
    assert found.first.name == "selection"
    assert compared(RIGHT["selection permuted by rounding"], case_of(SIZES, scores=NEARLY_EQUAL), {}).first is None


def test_what_is_not_on_the_references_input_follows() -> None:
    found = compared(MISTAKES["two norms of a decoder layer exchanged"][0], case_of(SIZES))
    verdicts = {stage.name: found.verdict(stage) for stage in found.stages}
    assert verdicts["decoder.2"] == INHERITS
    assert verdicts["pred_logits"] == FOLLOWS
    plain = as_json(found)
    assert (plain["verdict"], plain["first_divergence"], plain["part"]) == ("differ", "decoder.1", "decoder.1.norm_0")
    assert "Infinity" not in json.dumps(plain)


def test_a_wrong_box_is_no_exchange() -> None:
    """A selection whose boxes are of no cell."""

    def build(config: Any, state_dict: Any) -> nn.Module:
        model = RIGHT["right"](config, state_dict)
        model.transformer.decoder.register_forward_pre_hook(
            lambda _, given: (*given[:2], (given[2] * 1.05).clamp(max=1), *given[3:])
        )
        return model

    found = compared(build, case_of(SIZES))
    assert found.first is not None
    assert found.first.name == "selection"


CELLS = torch.tensor(
    [[[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]]]
).double()
CANDIDATES = Candidates(torch.tensor([[4.0, 3.0, 1.0, 2.0]]).double(), CELLS, torch.tensor([[0, 1, 3]]))


def test_the_cell_of_a_box() -> None:
    """The nearest one; of equal boxes the one whose score is that of the place."""
    boxes = CELLS[:, [3, 2, 0]] + 1e-9
    found = selected_by_the_target(CANDIDATES, boxes, 1e-7)
    assert found is not None
    assert found.tolist() == [[3, 1, 0]]
    assert selected_by_the_target(CANDIDATES, boxes + 0.01, 1e-7) is None


def test_a_place_may_hold_what_scores_as_much() -> None:
    taken = torch.tensor([[1, 0, 3]])
    assert judged_selection(CANDIDATES, taken, torch.full((1, 4), 0.5)).agrees
    wrong = judged_selection(CANDIDATES, taken, torch.full((1, 4), 0.4))
    assert not wrong.agrees
    assert wrong.message is not None
    assert "place 0 of image 0 has cell 1, whose score is 3, instead of 4" in wrong.message
    assert exchanged(taken, CANDIDATES.indices) == ("places 0, 1 hold cells whose scores are equal but for rounding")
    assert exchanged(taken, taken) is None


@pytest.mark.parametrize("operation", ["ms_deform_attn_module", "encoder_layer", "decoder_layer"])
def test_a_layer(operation: str) -> None:
    """Right, and with one of its linear layers rounded to half precision."""
    sizes: dict[str, Any] = {"embed_dim": 16, "num_heads": 2}
    if operation == "decoder_layer":
        sizes["operation_order"] = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")
    config = resolve(str(OPERATIONS[operation].config))(**sizes)
    parameters = model_parameters(operation, sizes, Filler("float64", 3, "a layer"))
    tensors = {**layer_inputs(operation, config, (64, 96), 0), **{PARAMETER + n: t for n, t in parameters.items()}}
    given = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    case = Case(given, note="tiny", options={name: json.dumps(value) for name, value in sizes.items()})
    right_one = resolve(OPERATIONS[operation].reference)

    def rounded(config: Any, state_dict: Mapping[str, Tensor]) -> nn.Module:
        return right_one(config, {name: tensor.half().float() for name, tensor in state_dict.items()})

    for build, right in ((right_one, True), (rounded, False)):
        subject = Subject(operation, build, "float32", "cpu", stages=LAYERS[operation])
        with torch.no_grad():
            found = compare(subject, case, lambda what, done: None)
        assert (found.first is None) == right
        if found.first is not None:
            first: Callable[[str], bool] = found.first.name.startswith
            assert first("attention")


def test_a_model_that_cannot_be_called() -> None:
    def build(config: Any, state_dict: Any) -> nn.Module:
        return nn.Linear(2, 2)

    with pytest.raises(Mismatch, match="the call raised TypeError"):
        compared(build, case_of(SIZES), {})
