"""Programs that speak the protocol and hold nothing: judged like a target, and never worse than a verdict."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import strategies

from detr_conformance.harness.case import Case
from detr_conformance.harness.drive import Failure, run_cases
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.isolation.plain_calls import Module, WrongAnswer
from detr_conformance.isolation.process import Died, Limits, NotDone, Process
from detr_conformance.isolation.runners import started
from detr_conformance.running.placing import words_of
from detr_conformance.running.session import Parameter, Session
from detr_conformance.running.trial import suite_test_of, suite_tests, trials
from detr_conformance.target import Target, TargetError
from detr_reference.feed_forward.config import FeedForwardConfig
from helpers.commands import run
from helpers.places import ROOT
from helpers.runners.hostile import HELLO as GREETING
from helpers.runners.hostile import KINDS
from helpers.suite_options import suite_options

RUNNERS = ROOT / "spec_tests" / "helpers" / "runners"
PLAIN = RUNNERS / "plain.py"

pytestmark = [
    pytest.mark.usefixtures("unchecked_shapes"),
    pytest.mark.skipif(sys.platform != "linux", reason="signals and limits as Linux has them"),
]


def python_runner(file: Path, *arguments: str, seconds: float = 60.0) -> Target:
    return started([sys.executable, str(file), *arguments], Limits(seconds))


def hostile(kind: str, seconds: float = 20.0) -> Any:
    return python_runner(RUNNERS / "hostile.py", kind, seconds=seconds).provides["ms_deform_attn"]


@pytest.fixture(scope="module")
def plain() -> Target:
    return python_runner(PLAIN, "ms_deform_attn", "feed_forward")


def rows(count: int) -> torch.Tensor:
    return torch.arange(4.0 * count).view(count, 1, 2, 2)


# -- what is judged -------------------------------------------------------------------------------------------


def test_ordinary_clauses_hold(plain: Target) -> None:
    """Strides, expanded arguments and gradients, several calls for a message, no queries, what has no answer."""
    asked = {"MSDA-6", "MSDA-38", "MSDA-42", "MSDA-46", "MSDA-57", "MSDA-60"}
    core = Target("core", {"ms_deform_attn": plain.provides["ms_deform_attn"]})
    found = [(test.clauses, failure) for test, _, failure in trials(core, asked, ("float32",))]
    assert {clause for clauses, _ in found for clause in clauses} >= asked
    assert [failure for _, failure in found if failure] == []


def test_a_module_has_its_parameters_here(plain: Target) -> None:
    asked = {"BLK-3", "BLK-9", "BLK-22", "FFN-1", "FFN-6"}
    network = Target("network", {"feed_forward": plain.provides["feed_forward"]})
    found = [(test.clauses, failure) for test, _, failure in trials(network, asked, ("float32",))]
    assert {clause for clauses, _ in found for clause in clauses} >= asked
    assert [failure for _, failure in found if failure] == []


def test_training_draws_again_in_each_call_and_alike_in_its_backward_pass(plain: Target) -> None:
    config = FeedForwardConfig(embed_dim=4, feedforward_dim=8, ffn_drop=0.5)
    state = {
        "layers.0.0.weight": torch.ones(8, 4),
        "layers.0.0.bias": torch.zeros(8),
        "layers.1.weight": torch.ones(4, 8),
        "layers.1.bias": torch.zeros(4),
    }
    module: Any = plain.provides["feed_forward"](config, state)
    assert isinstance(module, Module)
    module.train()
    x = torch.ones(1, 50, 4, requires_grad=True)
    torch.manual_seed(1)
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), x)
    kept = first.detach() - x.detach() != 0  # of linear layers on equal numbers: what was dropped has no gradient
    assert torch.equal(gradient[..., 0] > 1, kept.any(-1))


@pytest.mark.parametrize("grad_enabled", [True, False])
def test_second_derivatives_are_not_asked_for(grad_enabled: bool) -> None:
    x = rows(1).requires_grad_()
    output = hostile("garbage")(x)
    if grad_enabled:
        with pytest.raises(NotDone, match="second derivatives"):
            torch.autograd.grad(output.sum(), x, create_graph=True)
    else:
        assert torch.equal(torch.autograd.grad(output.sum(), x)[0], torch.ones(1, 1, 2, 2))


def test_a_gradient_of_another_form_is_refused() -> None:
    x = torch.zeros(1, 2, requires_grad=True)
    first = torch.zeros(2, 2)
    with pytest.raises(WrongAnswer, match=r"float32 of shape \(2, 2\).* of shape \(1, 2\)"):
        torch.autograd.grad(hostile("fractional-shape")(first, x).sum(), x)


def test_a_refusal_leaves_its_clause_open() -> None:
    """Whoever refuses is neither right nor wrong, and the report says why."""
    command = f"{sys.executable} {PLAIN} ms_deform_attn"
    session = Session.from_options(suite_options("--detr-runner", command))
    test = next(test for test in map(suite_test_of, suite_tests()["ms_deform_attn"]) if test.clauses == ("MSDA-62",))
    item: Any = SimpleNamespace(
        function=SimpleNamespace(suite_test=test),
        callspec=SimpleNamespace(params={"subject": Parameter("ms_deform_attn", "cpu", "float32")}),
        nodeid="test_ms_deform_attn_over_time.py::test_threads[cpu-float32]",
    )
    subject = session.subject(Parameter("ms_deform_attn", "cpu", "float32"))
    judge = next(judge for judge in suite_tests()["ms_deform_attn"] if suite_test_of(judge) is test)
    with pytest.raises(NotDone) as refused:
        judge(subject)
    event = session.outcome(item, refused.value).event
    assert (event["outcome"], event["message"]) == (
        "not-exercised",
        "a runner that holds nothing does one message after another",
    )
    assert session.start_event()["environment"]["isolated"] is True


def test_a_refusal_of_a_smaller_case_hides_no_failure() -> None:
    """What fails is reduced; that the runner refuses something smaller is no news of the clause."""
    failed: list[Case] = []

    def check(case: Case) -> None:
        if failed:
            raise NotDone("too small")
        failed.append(case)
        raise Mismatch("wrong")

    cases = strategies.integers(5, 9).map(lambda size: Case({"x": torch.zeros(size)}))
    with pytest.raises(Failure, match="wrong"):
        run_cases(cases, check, examples=5, seed_value=0, shrink=True)


def test_a_runner_may_also_hold_what_it_is_given() -> None:
    served = started(
        [sys.executable, "-P", "-m", "detr_conformance.running.serve", "reference", str(8 << 30)], Limits()
    )
    assert served.provides["ms_deform_attn"].bound is not None  # type: ignore[attr-defined]


# -- what befalls it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "never-reading"])
def test_nothing_that_a_runner_says_is_worse_than_a_verdict(kind: str) -> None:
    core = hostile(kind, seconds=0.5 if kind in SLOW else 20)
    if kind == "never-reading":
        with pytest.raises(Died, match=r"no answer within 0\.5 s"):
            core(rows(1), [torch.zeros(1) for _ in range(3_000)])  # more than a pipe holds
        return
    assert torch.equal(core(rows(1)), rows(1))
    with pytest.raises(Died) as died:
        [core(rows(3)) for _ in range(2)]  # by then it has answered twice
    assert SAID.get(kind, "the runner's answer is none") in died.value.message
    assert torch.equal(core(rows(2)), rows(2)), "another process answers"


SLOW = {"hanging", "never-reading"}
SAID = {
    **dict.fromkeys(("garbage", "half-a-line", "no-object", "other-id", "no-id", "twice"), "wrote what is no message"),
    "nested": "wrote what is no message",
    "dying": "died of SIGSEGV in the call",
    "exiting": "exited with status 3 in the call",
    "hanging": "gave no answer within 0.5 s and was ended",
    "pipe-for-a-file": "the file of tensors is no file",
    "huge-by-strides": "is too large",
    "oversized": "were announced",
}


def test_a_second_answer_is_noticed_when_nobody_waits_for_it() -> None:
    core = hostile("twice")
    core(rows(3))
    time.sleep(0.3)
    with pytest.raises(Died, match="wrote what is no message"):
        core(rows(1))


def test_what_a_runner_changes_in_its_arguments_is_seen() -> None:
    argument = rows(3)
    assert torch.equal(hostile("writing")(argument), rows(3))
    assert not argument.any()


def test_a_result_on_the_memory_of_an_argument_is_seen() -> None:
    argument = rows(3)
    result = hostile("returning-its-argument")(argument)
    assert result.data_ptr() == argument.data_ptr()


def test_a_result_that_cannot_be_differentiated_hangs_in_no_graph() -> None:
    assert hostile("constant")(rows(2).requires_grad_()).requires_grad
    assert not hostile("constant")(rows(3).requires_grad_()).requires_grad


def test_a_refusal_says_why() -> None:
    with pytest.raises(NotDone, match="the runner refuses: three rows are too many"):
        hostile("refusing")(rows(3))


def test_other_processes_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    core = hostile("refusing")
    monkeypatch.setattr("detr_conformance.isolation.two_ranks_group.to_hand_over", dict)
    with pytest.raises(NotDone, match="knows of no other process"):
        core(rows(1))


def test_more_arguments_than_there_are_names_are_noticed() -> None:
    with pytest.raises(TypeError, match="takes 5 arguments, not 6"):
        hostile("refusing")(*(rows(1) for _ in range(6)))


# -- what does not start --------------------------------------------------------------------------------------

HELLO = GREETING | {"name": "mine", "features": []}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"protocol": 0}, "not with hello of protocol 1"),
        ({"holds": None}, "has holds 'None', which is not true or false"),
        ({"name": 3}, "has name '3', which is not a string"),
        ({"devices": "cpu"}, "has devices 'cpu', which is not a list"),
        ({"devices": ["cuda"]}, r"its devices are \['cpu'\]"),
        ({"features": ["compile"]}, "can claim backward and deterministic, not 'compile'"),
        ({"operations": {"ms_deform_atn": None}}, "did you mean 'ms_deform_attn'"),
        ({"operations": {}}, "provides nothing"),
        ({"dtypes": [["float32"]]}, "which are no strings"),
        ({"variants": {"coordinates": []}}, "unknown value of variant"),
    ],
)
def test_a_hello_that_says_something_else_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(TargetError, match=said):
        started([sys.executable, "-c", f"print({json.dumps(HELLO | changed)!r})"], Limits(seconds=20))


def test_a_hello_that_lacks_something_is_named() -> None:
    said = json.dumps({name: each for name, each in HELLO.items() if name != "dtypes"})
    with pytest.raises(TargetError, match="hello lacks 'dtypes'"):
        started([sys.executable, "-c", f"print({said!r})"], Limits(seconds=20))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program --fast", "there is no program 'no-such-program'"),
        ("'unclosed", "cannot be read: No closing quotation"),
        (" ", "is empty"),
    ],
)
def test_one_that_does_not_start_says_why(command: str, said: str) -> None:
    result = run("check", "--runner", command)
    assert result.exit_code == 2
    assert said in result.output


def test_one_that_ends_at_once_is_named() -> None:
    with pytest.raises(TargetError, match="exited with status 3 when it was started"):
        started([sys.executable, "-c", "raise SystemExit(3)"], Limits(seconds=20))


def test_a_runner_stands_in_the_place_of_a_target() -> None:
    assert "--runner CMD in its place" in run("check").output
    assert "give one of them" in run("check", "reference", "--runner", "x").output


def test_no_shell_reads_the_command() -> None:
    assert words_of(f"{sys.executable} 'a b' $HOME;ls") == [sys.executable, "a b", "$HOME;ls"]


def test_fresh_memory_of_a_program_is_not_zero() -> None:
    """Where the C library can do it."""
    source = (
        "import ctypes, json; libc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p\n"
        f"print(json.dumps({HELLO!r} | {{'name': ctypes.string_at(libc.malloc(4096), 4096).hex()}}))"
    )
    assert set(started([sys.executable, "-c", source], Limits(seconds=20)).name) == {"f", "e"}


def test_one_constant_says_the_protocol() -> None:
    process = Process([sys.executable, "-c", f"print({json.dumps(HELLO)!r})"], Limits(seconds=20))
    assert process.start()["protocol"] == 1
