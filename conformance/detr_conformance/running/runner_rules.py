"""The rules of the protocol, each as a talk with a runner; what `detr-spec runner-test` goes through."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block import differentiable
from detr_conformance.harness.mismatch import Raised
from detr_conformance.harness.subject import Subject
from detr_conformance.isolation.ahead import ahead
from detr_conformance.isolation.client import RaisedThere
from detr_conformance.isolation.greeting import greeting
from detr_conformance.isolation.plain import Plain
from detr_conformance.isolation.plain_calls import RANDOM, plain_target
from detr_conformance.isolation.process import Died, Limits, NotDone, runner_command
from detr_conformance.running.runner_talk import Broken, Message, Observed, Talk, problem_of

PATIENCE = 5.0  # seconds for an end that was asked for
CLOSE = 1e-4  # of the largest number: two layouts may be summed in two orders


@dataclass(frozen=True)
class Found:
    """What came of a rule; what was sent and got last, if it is broken."""

    rule: str
    verdict: str  # "pass", "fail" or "not-exercised"
    said: str = ""
    sent: Message | None = None
    got: Message | None = None


def tried(command: Sequence[str], limits: Limits) -> Iterator[Found]:
    """Each rule, as it is tried.

    Raises:
        TargetError: the runner does not start, or what it says of itself cannot be used.
    """
    process = Observed(runner_command(command, limits), limits)
    said = greeting(process.start)
    problem = problem_of(process.got or {})
    yield Found("hello is as the schema has it", "fail" if problem else "pass", problem or "", None, process.got)
    if said["holds"]:
        reason = "it holds what it is given; its messages are those of targets in Python"
        yield from (Found(rule, "not-exercised", reason) for rule in RULES)
    else:
        yield from _rules_tried(process, said)
    yield _tried("stop ends it with status 0", process, lambda: _stops(process))


def _rules_tried(process: Observed, said: Message) -> Iterator[Found]:
    target = plain_target(Plain(process), said)
    operation = next(iter(target.provides))
    subject = Subject(operation, target.provides[operation], target.dtypes[0], features=target.features)
    talk = Talk.about(process, subject)
    for name, rule in RULES.items():
        if name in DIFFERENTIATED and not subject.backward:
            yield Found(name, "not-exercised", "the feature backward is not claimed")
        else:
            yield _tried(name, process, lambda rule=rule: rule(talk))  # type: ignore[misc]


def _tried(name: str, process: Observed, rule: Callable[[], None]) -> Found:
    try:
        if not process.running:
            process.start()
        rule()
    except (Broken, Died, NotDone, Raised) as error:
        return Found(name, "fail", _text(error), process.sent, process.got)
    except Exception as error:  # of the judge's own use of the answer
        return Found(name, "fail", f"{type(error).__name__}: {error}", process.sent, process.got)
    return Found(name, "pass")


def _text(error: BaseException) -> str:
    return "\n".join(filter(None, (str(error), error.detail if isinstance(error, Died) else "")))


# -- the rules ------------------------------------------------------------------------------------------------


def _answers(talk: Talk) -> None:
    if not talk.call(talk.inputs()):
        raise Broken("the result of an ordinary call holds no tensor")


def _leaves_arguments(talk: Talk) -> None:
    talk.call(talk.inputs())
    sent, got = talk.process.sent or {}, talk.process.got or {}
    if changed := sorted(sent["storages"].keys() & got["storages"].keys()):
        raise Broken(f"it hands back storages of the message as changed: {', '.join(changed)}")


def _strided(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def _offset(tensor: Tensor) -> Tensor:
    around = torch.full((7,), 3, dtype=tensor.dtype)
    return torch.cat((around, tensor.flatten(), around))[7:-7].view(tensor.shape)


def _expanded(tensor: Tensor) -> Tensor:
    return tensor[:1].expand_as(tensor)


def _laid_out(lay_out: Callable[[Tensor], Tensor]) -> Callable[[Talk], None]:
    def rule(talk: Talk) -> None:
        floating = {name: lay_out(each) for name, each in talk.inputs().items() if each.is_floating_point()}
        _same_numbers(talk, floating)

    return rule


def _one_storage(talk: Talk) -> None:
    floating = {name: each for name, each in talk.inputs().items() if each.is_floating_point()}
    joined = torch.cat([each.flatten() for each in floating.values()])
    parts = joined.split([each.numel() for each in floating.values()])
    _same_numbers(talk, {name: part.view(floating[name].shape) for name, part in zip(floating, parts, strict=True)})


def _same_numbers(talk: Talk, changed: Mapping[str, Tensor]) -> None:
    """These arguments give what their contiguous copies give."""
    inputs = {**talk.inputs(), **changed}
    right = talk.call({name: each.contiguous().clone() for name, each in inputs.items()})
    found = talk.call(inputs)
    if [each.shape for each in found] != [each.shape for each in right]:
        raise Broken("the result has another shape than for contiguous copies of the arguments")
    for one, other in zip(found, right, strict=True):
        if talk.subject.operation not in RANDOM and one.numel() and not _close(one.double(), other.double()):
            raise Broken("the result is another one than for contiguous copies of the arguments")


def _close(one: Tensor, other: Tensor) -> bool:
    most = float(other.nan_to_num(posinf=0, neginf=0).abs().max())
    return torch.allclose(one, other, rtol=CLOSE, atol=CLOSE * most, equal_nan=True)


def _repeats(talk: Talk) -> None:
    made = talk.made()
    with ahead(3):
        for _ in range(3):
            talk.call(talk.inputs(), made=made)
    if (talk.process.sent or {})["steps"][-1].get("times") != 3:
        raise Broken("three calls were asked for, and not in one message")


def _ignores_more(talk: Talk) -> None:
    def more(message: Message) -> Message:
        tensors = [{**each, "later": {}} for each in message["tensors"]]
        return {
            **message,
            "later": 1,
            "tensors": tensors,
            "steps": [{**each, "later": []} for each in message["steps"]],
        }

    with talk.process.altering(more):
        talk.call(talk.inputs())


def _differentiates(wanted: slice, expanded: bool) -> Callable[[Talk], None]:
    def rule(talk: Talk) -> None:
        inputs = talk.inputs()
        names = [name for name, each in inputs.items() if differentiable(talk.subject.operation, name, each)][wanted]
        leaves = [inputs[name].requires_grad_() for name in names]
        outputs = [each for each in talk.call(inputs, gradients=True) if each.requires_grad]
        if not outputs or not leaves:
            return
        incoming = [torch.ones(()).to(each).expand_as(each) if expanded else torch.randn_like(each) for each in outputs]
        torch.autograd.grad(outputs, leaves, incoming, allow_unused=True)

    return rule


def _unknown_operation(talk: Talk) -> None:
    def renamed(message: Message) -> Message:
        keys = {"call": "of", "make": "operation"}
        steps = [{**each, keys.get(each["do"], "do"): "no_such_operation"} for each in message["steps"]]
        return {**message, "steps": steps}

    _declines(talk, renamed, "an operation that there is not")


def _unknown_step(talk: Talk) -> None:
    _declines(talk, lambda message: {**message, "steps": [{"do": "no_such_step"}]}, "a step that there is not")
    if (talk.process.got or {}).get("message") != "refused":
        raise Broken("a step that there is not is raised; what a runner does not know it refuses")


def _wrong_shapes(talk: Talk) -> None:
    def flattened(message: Message) -> Message:
        tensors = [{**each, "shape": [0], "stride": [1]} for each in message["tensors"]]
        return {**message, "tensors": tensors}

    _declines(talk, flattened, "arguments without axes or numbers")


def _declines(talk: Talk, alter: Callable[[Message], Message], what: str) -> None:
    """A message is refused or raised, and the next ordinary one is answered by the same process."""
    generation = talk.process.generation
    try:
        with talk.process.altering(alter):
            talk.call(talk.inputs())
    except (NotDone, RaisedThere, Raised):
        said = talk.process.sent, talk.process.got
        talk.call(talk.inputs())
        if talk.process.generation != generation:
            raise Broken("another process had to be started") from None
        talk.process.sent, talk.process.got = said
        return
    raise Broken(f"{what}: neither refused nor raised")


def _stops(process: Observed) -> None:
    assert process.popen is not None
    process.sent, process.got = {"message": "stop"}, None
    process.outbox.put(b'{"message": "stop"}\n')
    try:
        status = process.popen.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.end()
        raise Broken(f"it is still there after {PATIENCE:g} s") from None
    if status != 0:
        raise Broken(f"it ended with status {status}")


RULES: dict[str, Callable[[Talk], Any]] = {
    "an ordinary call is answered": _answers,
    "the bytes of arguments stay": _leaves_arguments,
    "strides count": _laid_out(_strided),
    "an offset counts": _laid_out(_offset),
    "expanded arguments have strides of 0": _laid_out(_expanded),
    "arguments may share a storage": _one_storage,
    "three calls in one message": _repeats,
    "unknown fields are ignored": _ignores_more,
    "gradients of all inputs": _differentiates(slice(None), expanded=False),
    "gradients of one input": _differentiates(slice(1), expanded=False),
    "an expanded gradient comes in": _differentiates(slice(None), expanded=True),
    "an unknown operation is declined": _unknown_operation,
    "an unknown step is refused": _unknown_step,
    "wrong shapes are declined": _wrong_shapes,
}
DIFFERENTIATED = ("gradients of all inputs", "gradients of one input", "an expanded gradient comes in")
