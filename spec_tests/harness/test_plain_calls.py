"""A clause about how a call is made is undecided where an ordinary call is wrong; a replay asks several times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_conformance.harness.drive import Failure, Undecided
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.running.mutants import MUTANTS
from detr_conformance.running.trial import Judge, suite_test_of, suite_tests
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, inside
from detr_reference import ms_deform_attn

QUICK = Settings(profile="smoke", shrink=False)


def judges(operation: str, clause: str) -> Iterator[Judge]:
    for judge in suite_tests()[operation]:
        test = suite_test_of(judge)
        if clause in test.clauses and test.runs_in("smoke") and not test.costly:
            yield judge


def failure_of(implementation: Callable[..., Any], operation: str, clause: str) -> Failure | None:
    for judge in judges(operation, clause):
        try:
            judge(Subject(operation, implementation, settings=QUICK))
        except Failure as failure:
            return failure
    return None


def negative(*arguments: Tensor) -> Tensor:
    return -ms_deform_attn(*arguments)


@pytest.mark.parametrize("clause", ["MSDA-38", "MSDA-44", "MSDA-46", "MSDA-53", "MSDA-62", "MSDA-67"])
def test_of_a_wrong_kernel_it_is_undecided_how_it_takes_its_arguments(clause: str) -> None:
    failure = failure_of(negative, "ms_deform_attn", clause)
    assert isinstance(failure, Undecided)
    assert failure.mismatch.expected is not None


def reads_in_memory_order(*arguments: Tensor) -> Tensor:
    value = arguments[0]
    flat = value.as_strided(value.shape, torch.empty(value.shape).stride())
    return ms_deform_attn(flat, *arguments[1:])


def test_what_an_ordinary_call_does_right_is_decided() -> None:
    failure = failure_of(reads_in_memory_order, "ms_deform_attn", "MSDA-44")
    assert failure is not None
    assert not isinstance(failure, Undecided)


@pytest.mark.parametrize(
    ("name", "clause"), [("locations-detached", "MSDA-36"), ("no-graph", "MSDA-68"), ("block-without-graph", "BLK-34")]
)
def test_what_any_call_is_held_to_is_decided_by_its_own_clause(name: str, clause: str) -> None:
    mutant = MUTANTS[name]
    failure = failure_of(mutant.build(), mutant.operation, clause)
    assert failure is not None
    assert not isinstance(failure, Undecided)


class Scaled(nn.Module):
    """A multilayer perceptron that is wrong in whatever it computes."""

    def __init__(self, right: nn.Module) -> None:
        super().__init__()
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        return 1.1 * self.right(x)


@pytest.mark.parametrize("clause", ["BLK-1", "BLK-4", "BLK-6", "BLK-12", "BLK-20", "BLK-24"])
def test_of_a_wrong_block_it_is_undecided_how_it_is_called(clause: str) -> None:
    from detr_conformance.targets.reference import target

    def factory(config: Any, state_dict: Any) -> nn.Module:
        return Scaled(target.provides["mlp"](config, state_dict))

    assert isinstance(failure_of(factory, "mlp", clause), Undecided)


# -- replay ---------------------------------------------------------------------------------------------------


class NowAndThen:
    """Right but for every third call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *arguments: Tensor) -> Tensor:
        self.calls += 1
        output = ms_deform_attn(*arguments)
        return output * 2 if self.calls % 3 == 0 else output


@pytest.mark.parametrize(
    ("implementation", "said"), [(NowAndThen(), "(not every time: "), (negative, None), (ms_deform_attn, "passes")]
)
def test_a_replay_says_whether_a_case_fails_every_time(implementation: Callable[..., Any], said: str | None) -> None:
    (judge,) = [each for each in judges("ms_deform_attn", "MSDA-13") if suite_test_of(each).name == "test_bilinear"]
    subject = Subject("ms_deform_attn", implementation, settings=QUICK)
    case = case_at(subject, Structure(), inside, note="again")
    subject.settings = replace(QUICK, replay=case)
    if said == "passes":
        judge(subject)
        assert subject.cases == 5
        return
    with pytest.raises(Failure) as caught:
        judge(subject)
    assert ("not every time" in str(caught.value.mismatch)) == (said is not None)
