"""Functions and modules of a runner that holds nothing, called and differentiated like those of this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.isolation.ahead import first_of, next_times, prepared
from detr_conformance.isolation.greeting import Hello, target_of
from detr_conformance.isolation.plain import Answer, Given, Plain, Step
from detr_conformance.isolation.process import NotDone
from detr_conformance.isolation.values import encode, encode_config
from detr_conformance.operations import OPERATIONS
from detr_conformance.target import Target, TargetError

CLAIMS = ("backward", "deterministic")  # the other features are about torch
RANDOM = ("contrastive_denoising",)
MODULE = "module"


class WrongAnswer(Exception):
    """What came has not the form of what was asked for."""


@dataclass(frozen=True)
class Request:
    """The steps of a call, in which tensors are names; with them it can be asked again."""

    runner: Plain
    steps: list[Step]
    names: tuple[str, ...]
    seed: int

    def call(self, tensors: tuple[Given, ...]) -> Answer:
        times = self.steps[-1].get("times", 1)
        return self.runner.run(self.steps, dict(zip(self.names, tensors, strict=True)), self.seed, times)

    def backward(
        self, tensors: list[Given], incoming: list[Tensor | None], wanted: tuple[str, ...]
    ) -> list[Tensor | None]:
        given = dict(zip(self.names, tensors, strict=True))
        given |= {f"g{place}": Given.of(each) for place, each in enumerate(incoming) if each is not None}
        step = {
            "do": "backward",
            "of": len(self.steps) - 1,
            "gradients": {"list": [None if each is None else {"tensor": f"g{i}"} for i, each in enumerate(incoming)]},
            "inputs": {"list": [{"tensor": name} for name in wanted]},
        }
        found = self.runner.run([*self.steps, step], given, self.seed).decoded()
        if not isinstance(found, list) or len(found) != len(wanted):
            raise WrongAnswer(f"{len(wanted)} gradients were asked for, in a list")
        for name, each in zip(wanted, found, strict=True):
            _check_form(name, given[name].tensor, each)
        return found


def _check_form(name: str, argument: Tensor, gradient: Any) -> None:
    if gradient is None:
        return
    if not isinstance(gradient, Tensor):
        raise WrongAnswer(f"the gradient of {name} is a {type(gradient).__name__}")
    if gradient.shape != argument.shape or gradient.dtype != argument.dtype:
        raise WrongAnswer(
            f"the gradient of {name} is {gradient.dtype} of shape {tuple(gradient.shape)}, "
            f"it is {argument.dtype} of shape {tuple(argument.shape)}"
        )


class Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, request: Request, given: tuple[Given, ...], found: list[Answer], *inputs: Tensor) -> Any:
        found.append(request.call(given))
        answer, names = found[0], found[0].names()
        outputs = tuple(answer.tensors[name] for name in names)
        ctx.constant = [name in answer.constant or not answer.tensors[name].is_floating_point() for name in names]
        ctx.mark_non_differentiable(*(each for each, is_one in zip(outputs, ctx.constant, strict=True) if is_one))
        ctx.set_materialize_grads(False)
        # Here autograd itself notices whether an argument has changed since.
        ctx.save_for_backward(*(each.tensor for each in given))
        ctx.request, ctx.flags = request, [(each.requires_grad, each.leaf) for each in given]
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        asking = [name for name, (asks, _) in zip(ctx.request.names, ctx.flags, strict=True) if asks]
        needed = ctx.needs_input_grad[3:]
        wanted = tuple(name for name, is_one in zip(asking, needed, strict=True) if is_one)
        incoming = [None if is_one else each for each, is_one in zip(gradients, ctx.constant, strict=True)]
        if not wanted or all(each is None for each in incoming):
            return (None,) * (3 + len(asking))
        if torch.is_grad_enabled():
            raise NotDone("second derivatives cannot be asked of a runner that holds nothing")
        tensors = [Given(each, *flags) for each, flags in zip(ctx.saved_tensors, ctx.flags, strict=True)]
        found = iter(ctx.request.backward(tensors, incoming, wanted))
        return (None, None, None, *(next(found) if is_one else None for is_one in needed))


class Calls:
    """What is called in the same way of a runner: an operation, after the steps that make it."""

    def __init__(self, runner: Plain, operation: str) -> None:
        self.runner, self.operation = runner, operation

    def named(self, positional: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        names = OPERATIONS[self.operation].inputs
        if len(positional) > len(names):
            raise TypeError(f"{self.operation} takes {len(names)} arguments, not {len(positional)}")
        return {**dict(zip(names, positional, strict=False)), **named}

    def call(self, arguments: Mapping[str, Any], of: str, names: Names, before: list[Step], draws: bool) -> Any:
        """The result; it hangs in the graph if something that it depends on asks for gradients."""
        if waiting := prepared():
            return waiting.popleft()
        times = next_times()
        step = {"do": "call", "of": of, "arguments": encode(arguments, names.of)}
        step |= {"times": times} if times > 1 else {}
        seed = int(torch.randint(1 << 31, ())) if draws else 0  # like whatever draws: another one for each call
        request = Request(self.runner, [*before, step], tuple(names.tensors), seed)
        given = tuple(Given.of(each) for each in names.tensors.values())
        result = _called(request, given)
        if times == 1:
            return result
        if not isinstance(result, list) or len(result) != times:
            raise WrongAnswer(f"{times} calls were asked for, whose results are in a list")
        return first_of(result)


def _called(request: Request, given: tuple[Given, ...]) -> Any:
    inputs = [each.tensor for each in given if each.requires_grad]
    if not inputs or not torch.is_grad_enabled():
        return request.call(given).decoded()
    found: list[Answer] = []
    outputs = Node.apply(request, given, found, *inputs)
    return found[0].decoded(dict(zip(found[0].names(), outputs, strict=True)))


class Names:
    """Names of the tensors of a message, each tensor one."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def of(self, tensor: Tensor) -> str:
        known = next((name for name, each in self.tensors.items() if each is tensor), None)
        name = known or f"t{len(self.tensors)}"
        self.tensors[name] = tensor
        return name


class Function(Calls):
    """A stateless operation."""

    def __call__(self, *positional: Any, **named: Any) -> Any:
        draws = self.operation in RANDOM
        return self.call(self.named(positional, named), self.operation, Names(), [], draws)


class Factory(Calls):
    """A stateful operation: makes modules."""

    def __call__(self, config: Any, state_dict: Mapping[str, Tensor] | None) -> Module:
        if state_dict is None:
            raise NotImplementedError("a runner that holds nothing initialises no parameters")
        fields = {name: each for name, each in encode_config(self.operation, config).items() if name}
        return Module(self, fields, state_dict)


class Module(nn.Module):
    """Its parameters are here, under the reference's names, and go along with each call."""

    def __init__(self, calls: Calls, config: dict[str, Any], state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.runner_calls, self.runner_config = calls, config
        names = Names()
        making = [self._making(names, state)]
        given = {name: Given.of(each) for name, each in names.tensors.items()}
        fixed = calls.runner.run(making, given, seed=0).decoded() or []
        for name, tensor in state.items():
            _place(self, name, tensor, trained=tensor.is_floating_point() and name not in fixed)

    def _making(self, names: Names, state: Mapping[str, Tensor]) -> Step:
        coded = {"config": self.runner_config, "state": encode(dict(state), names.of)}
        return {"do": "make", "id": MODULE, "operation": self.runner_calls.operation, **coded}

    def forward(self, *positional: Any, **named: Any) -> Any:
        names = Names()
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        before = [self._making(names, own), {"do": "mode", "of": MODULE, "train": self.training}]
        arguments = self.runner_calls.named(positional, named)
        return self.runner_calls.call(arguments, MODULE, names, before, draws=self.training)


def _place(module: nn.Module, path: str, tensor: Tensor, trained: bool) -> None:
    """Puts a tensor of the state where its name says, in modules that only hold others."""
    *parts, name = path.split(".")
    for part in parts:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if trained:
        module.register_parameter(name, nn.Parameter(tensor.detach().clone()))
    else:
        module.register_buffer(name, tensor.detach().clone())


def plain_target(runner: Plain, said: Hello) -> Target:
    """What a runner provides that holds nothing.

    Raises:
        TargetError: it claims what it cannot be asked for.
    """
    for name in said["features"]:
        if name not in CLAIMS:
            raise TargetError(f"a runner that holds nothing can claim {' and '.join(CLAIMS)}, not {name!r}")
    if said["devices"] != ["cpu"]:
        raise TargetError(
            "a runner that holds nothing is given tensors as bytes, so its devices are ['cpu'], not "
            f"{said['devices']}; where it computes is its own affair"
        )
    return target_of(said, {name: _provided(runner, name) for name in said["operations"]})


def _provided(runner: Plain, operation: str) -> Function | Factory:
    kind = Factory if operation in OPERATIONS and OPERATIONS[operation].kind == "module" else Function
    return kind(runner, operation)
