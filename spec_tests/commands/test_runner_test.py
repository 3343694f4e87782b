"""`detr-spec runner-test`: each rule holds for one that keeps the protocol, and is broken by one that does not."""

from __future__ import annotations

import sys

import pytest

from detr_conformance.isolation.process import Limits
from detr_conformance.target import TargetError
from helpers.commands import run
from helpers.places import ROOT
from helpers.runners.light import KINDS

pytest.importorskip("jsonschema", reason="runner-test needs the extra vectors")
from detr_conformance.running.runner_rules import RULES, tried

RUNNERS = ROOT / "spec_tests" / "helpers" / "runners"
BREAKS = {
    "strides-ignored": {"strides count", "expanded arguments have strides of 0"},
    "offset-ignored": {"an offset counts"},
    "without-a-dtype": set(RULES),
    "arguments-returned": set(RULES),
    "strict": {"unknown fields are ignored"},
    "raising-unknown-steps": {"an unknown step is refused"},
    "dying-of-the-unknown": {"an unknown operation is declined"},
    "computing-anything": {"wrong shapes are declined"},
    "once": {"three calls in one message"},
    "staying": {"stop ends it with status 0"},
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and limits as Linux has them")


def found(file: str, *arguments: str) -> dict[str, str]:
    command = [sys.executable, str(RUNNERS / file), *arguments]
    return {each.rule: each.verdict for each in tried(command, Limits(seconds=20))}


def test_every_rule_holds_for_one_that_keeps_them() -> None:
    assert set(found("plain.py", "feed_forward").values()) == {"pass"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_that_is_broken_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detr_conformance.running.runner_rules.PATIENCE", 0.5)
    broken = {rule for rule, verdict in found("light.py", kind).items() if verdict == "fail"}
    assert broken
    assert broken <= BREAKS[kind]


def test_without_backward_no_gradient_is_asked_for() -> None:
    verdicts = found("light.py", "right")
    assert {rule for rule, verdict in verdicts.items() if verdict == "not-exercised"} == {
        "gradients of all inputs",
        "gradients of one input",
        "an expanded gradient comes in",
    }
    assert set(verdicts.values()) == {"pass", "not-exercised"}


def test_of_one_that_holds_what_it_is_given_little_is_asked() -> None:
    command = [sys.executable, "-P", "-m", "detr_conformance.running.serve", "reference", str(8 << 30)]
    verdicts = {each.rule: each.verdict for each in tried(command, Limits())}
    assert {rule for rule, verdict in verdicts.items() if verdict == "pass"} == {
        "hello is as the schema has it",
        "stop ends it with status 0",
    }


def test_the_command_says_what_was_sent_and_got() -> None:
    result = run("runner-test", f"{sys.executable} {RUNNERS / 'light.py'} raising-unknown-steps")
    assert result.exit_code == 1
    assert 'sent {"message": "run"' in result.output
    assert '"do": "no_such_step"' in result.output
    assert 'got  {"message": "raised"' in result.output
    assert "broken rules: 1" in result.output


def test_one_that_does_not_start_is_named() -> None:
    result = run("runner-test", "no-such-program")
    assert result.exit_code == 2
    assert "there is no program 'no-such-program'" in result.output


def test_one_that_claims_nothing_is_named() -> None:
    command = [sys.executable, str(RUNNERS / "light.py"), "claiming-no-dtype"]
    with pytest.raises(TargetError, match="claims no dtype"):
        list(tried(command, Limits(seconds=20)))
