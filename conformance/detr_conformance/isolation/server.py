"""The runner of Python targets: takes steps, calls the target, and answers with what there is to see."""

from __future__ import annotations

import copy
import gc
import inspect
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from detr_conformance.isolation import ambient
from detr_conformance.isolation.held import Held
from detr_conformance.isolation.poison import poison
from detr_conformance.isolation.protocol import PROTOCOL
from detr_conformance.isolation.stage_values import stage_calls
from detr_conformance.isolation.two_ranks_group import pretended_again
from detr_conformance.isolation.values import decode, decode_config, encode
from detr_conformance.target import Target

REFUSING = ("DelayedError", "Error", "NotImplemented")  # nodes of torch
Step = dict[str, Any]


class Elsewhere(Protocol):
    """Calls a function where the target is to run: a thread on whose stack nothing of this package lies."""

    def __call__(self, function: Callable[..., Any], /, *positional: Any, **named: Any) -> Any: ...


def hello(target: Target) -> dict[str, Any]:
    """What the target says of itself."""
    return {
        "message": "hello",
        "protocol": PROTOCOL,
        "holds": True,
        "name": target.name,
        "version": target.version,
        "operations": {name: _parameters(made) for name, made in target.provides.items()},
        "devices": list(target.devices),
        "dtypes": list(target.dtypes),
        "features": list(target.features),
        "variants": dict(target.variants),
        "deviations": str(target.deviations) if target.deviations else None,
        "stages": dict(target.stages) if target.stages else None,
    }


def _parameters(made: Callable[..., Any]) -> list[list[Any]] | None:
    """Name, kind, and whether there is a default, of each parameter; None where a callable has no signature to show."""
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return None
    return [[each.name, int(each.kind), each.default is not each.empty] for each in parameters]


class Server:
    """Carries out the steps of a run on one target."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.held = Held()
        self.lock = Lock()  # for what is held; calls of several threads run at the same time
        self.made: dict[str, Any] = {}
        self.described: dict[str, dict[str, int]] = {}  # the parameters and buffers of modules, when last described

    def answer(self, message: Mapping[str, Any], there: Elsewhere) -> dict[str, Any]:
        """One run: take over what changed, do the steps, and tell what has changed since."""
        reply: dict[str, Any] = {"message": "done", "id": message["id"], "contributions": []}
        before, others = there(ambient.read), ambient.others()
        surroundings: list[AbstractContextManager[Any]] = [torch.inference_mode(message["inference"])]
        surroundings += [ambient.saving_elsewhere()] if message["saved_elsewhere"] else []
        for each in surroundings:
            there(each.__enter__)
        there(ambient.take, message["ambient"])
        results = []
        try:
            self._take_over(message)
            results = self._do_all(message, there, reply)
        except Exception as error:
            reply |= {"message": "raised", **told(error)}
        reply["ambient"] = there(ambient.read)
        reply["disturbed"] = [now != then for now, then in zip(ambient.others(), others, strict=True)]
        for each in reversed(surroundings):
            there(each.__exit__, None, None, None)
        there(ambient.take, before)
        with self.lock, torch.no_grad():
            reply["changed"] = [name for name, known in self.described.items() if _identities(self.made[name]) != known]
            reply["results"] = [encode(result, self.held.name_of) for result in results]
            reply |= self.held.hand_over(Path(message["folder"]), message["id"])
        return reply

    def _take_over(self, message: Mapping[str, Any]) -> None:
        with self.lock, torch.no_grad():
            self.held.take_over(Path(message["folder"]), message)
            for name in message["drop"]:
                self.made.pop(name, None)
                self.described.pop(name, None)

    def _do_all(self, message: Mapping[str, Any], there: Elsewhere, reply: dict[str, Any]) -> list[Any]:
        with pretended_again(message["group"]) as contributed:
            try:
                return [self._do(step, there) for step in message["steps"]]
            finally:
                reply["contributions"] = contributed()

    def _do(self, step: Step, there: Elsewhere) -> Any:
        return getattr(self, f"_{step['do']}")(step, there)

    # -- what is made -----------------------------------------------------------------------------------------

    def _callee(self, name: str) -> Callable[..., Any]:
        return self.made[name] if name in self.made else self.target.provides[name]

    def _make(self, step: Step, there: Elsewhere) -> Any:
        config, state = decode_config(step["config"]), self._value(step["state"])
        self.made[step["id"]] = there(self.target.provides[step["operation"]], config, state)
        return self._described(step["id"])

    def _copy(self, step: Step, there: Elsewhere) -> Any:
        self.made[step["id"]] = there(copy.deepcopy, self.made[step["of"]])
        return self._described(step["id"])

    def _bind(self, step: Step, there: Elsewhere) -> Any:
        """A function with its settings."""
        callee, settings = self._callee(step["of"]), self._value(step["settings"])
        self.made[step["id"]] = lambda *tensors, **named: callee(*tensors, **named, **settings)

    def _compile(self, step: Step, there: Elsewhere) -> Any:
        torch.compiler.reset()
        made = there(torch.compile, self._callee(step["of"]), fullgraph=True, backend=step["backend"])
        self.made[step["id"]] = made

    def _export(self, step: Step, there: Elsewhere) -> Any:
        made, (positional, named) = self._callee(step["of"]), self._value(step["arguments"])
        module = made if isinstance(made, nn.Module) else Module(made)
        self.made[step["id"]] = there(torch.export.export, module, positional, named).module()

    def _described(self, name: str) -> Any:
        """What can be seen of a module from outside."""
        made = self.made[name]
        found: dict[str, Any] = {"type": type(made).__name__, "module": isinstance(made, nn.Module)}
        if isinstance(made, nn.Module):
            self.described[name] = _identities(made)
            found |= {"own_parameters": dict(made.named_parameters()), "own_buffers": dict(made.named_buffers())}
            found |= {"own_state": dict(made.state_dict(keep_vars=True)), "training": made.training}
        if hasattr(made, "spec_parameters"):
            found["spec_parameters"] = made.spec_parameters()
        return found

    # -- modules ----------------------------------------------------------------------------------------------

    def _describe(self, step: Step, there: Elsewhere) -> Any:
        return self._described(step["of"])

    def _mode(self, step: Step, there: Elsewhere) -> Any:
        there(self.made[step["of"]].train, step["train"])
        return self._described(step["of"])

    def _move(self, step: Step, there: Elsewhere) -> Any:
        there(self.made[step["of"]].to, **self._value(step["to"]))
        return self._described(step["of"])

    def _load(self, step: Step, there: Elsewhere) -> Any:
        there(self.made[step["of"]].load_state_dict, self._value(step["state"]), assign=step["assign"])
        return self._described(step["of"])

    # -- calls ------------------------------------------------------------------------------------------------

    def _call(self, step: Step, there: Elsewhere) -> Any:
        """One call; or the same one some times in a row, and all results."""
        callee, (positional, named) = self._callee(step["of"]), self._value(step["arguments"])
        given = [each for each in (*positional, *named.values()) if isinstance(each, Tensor)]
        _poison([each for each in given if each.is_floating_point()])
        if "times" in step:
            return [there(callee, *positional, **named) for _ in range(step["times"])]
        return there(callee, *positional, **named)

    def _watch(self, step: Step, there: Elsewhere) -> Any:
        """The call with what the stages on the given paths computed in it."""
        made = self.made[step["of"]]
        return [list(each) for each in stage_calls(made, step["paths"], lambda: self._call(step, there))]

    def _backward(self, step: Step, there: Elsewhere) -> Any:
        outputs, inputs, gradients = (self._value(step[name]) for name in ("outputs", "inputs", "gradients"))
        _poison(inputs)
        again = step["create_graph"]
        if step["order"] > 1:
            refuse_as_autograd(outputs)
        return there(
            torch.autograd.grad, outputs, inputs, gradients, retain_graph=True, create_graph=again, allow_unused=True
        )

    def _alive(self, step: Step, there: Elsewhere) -> Any:
        """How many tensors there are beside those that are held for the judge."""
        gc.collect()
        alive = sum(issubclass(type(each), Tensor) for each in gc.get_objects())
        return alive - len(self.held.tensors) - len(self.held.agreed)

    def _value(self, coded: Any) -> Any:
        return decode(coded, self.held.tensors.__getitem__)


class Module(nn.Module):
    """torch.export takes modules."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor, **named: Tensor) -> Any:
        return self.function(*tensors, **named)


def refuse_as_autograd(outputs: list[Tensor]) -> None:
    """Raises where a whole backward pass would: `torch.autograd.grad` does not visit the nodes that refuse."""
    waiting, seen = [each.grad_fn for each in outputs], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name().rpartition("::")[2] in REFUSING:
            raise RuntimeError("trying to differentiate twice a function that can be differentiated once")
        seen.add(node)
        waiting += [each for each, _ in node.next_functions]


def _identities(module: nn.Module) -> dict[str, int]:
    return {name: id(tensor) for name, tensor in (*module.named_parameters(), *module.named_buffers())}


def _poison(tensors: list[Tensor]) -> None:
    if tensors:
        poison(str(tensors[0].device), {each.numel() for each in tensors}, tensors[0].dtype)


def told(error: BaseException) -> dict[str, Any]:
    """What of an exception is worth telling on the other side."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "kind": type(error).__name__,
        "text": str(error)[:4000],
        "where": f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "",
        "trace": "".join(traceback.format_exception(error)[-12:])[-8000:],
    }
