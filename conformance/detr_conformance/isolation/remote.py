"""Operations and modules of a target in another process, called like those of this one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.isolation.ahead import first_of, next_times, prepared
from detr_conformance.isolation.client import Client, Returned
from detr_conformance.isolation.differentiated import Job, call
from detr_conformance.isolation.greeting import Hello, greeting, target_of
from detr_conformance.isolation.process import Died, Limits, Process, python_command
from detr_conformance.isolation.values import decode, encode_config
from detr_conformance.operations import OPERATIONS
from detr_conformance.target import Target


class Remote:
    """Something callable in the target's process."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self.generation = client.ready()

    def check(self) -> None:
        if self.client.ready() != self.generation:
            raise Died("what the call needs was made in a process that has ended", "no process")

    def called(self, positional: tuple[Any, ...], named: Mapping[str, Any], own: Mapping[str, Tensor]) -> Any:
        """The result of a call; `own` are the parameters that it depends on."""
        self.check()
        if waiting := prepared():
            return waiting.popleft()
        times = next_times()
        job = Job(self.client, self._step(positional, named, times), (positional, dict(named), tuple(own.values())))
        result = call(job)
        return result if times == 1 else first_of(result)

    def _step(self, positional: tuple[Any, ...], named: Mapping[str, Any], times: int) -> Callable[[], dict[str, Any]]:
        def step() -> dict[str, Any]:
            arguments = self.client.coded((positional, dict(named)))
            return {"do": "call", "of": self.name, "arguments": arguments} | ({"times": times} if times > 1 else {})

        return step

    def captured(self, backend: str) -> Made:
        """What torch.compile makes of it, there."""
        self.check()
        name = _new_name(self.client)
        self.client.run(lambda: {"do": "compile", "id": name, "of": self.name, "backend": backend})
        return Made(self.client, name)

    def exported(self, positional: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> Made:
        """The program that torch.export makes of it, there."""
        self.check()
        name, given = _new_name(self.client), (positional, dict(named))
        self.client.run(lambda: {"do": "export", "id": name, "of": self.name, "arguments": self.client.coded(given)})
        return Made(self.client, name)


class Function(Remote):
    """A stateless operation. One that is asked again after its process has ended finds a new one."""

    def __init__(self, client: Client, name: str, signature: inspect.Signature | None) -> None:
        super().__init__(client, name)
        if signature is not None:
            self.__signature__ = signature

    def check(self) -> None:
        self.generation = self.client.ready()

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self.called(positional, named, {})

    def bound(self, settings: Mapping[str, Any]) -> Made:
        """The function with these settings, there."""
        self.check()
        name = _new_name(self.client)
        coded = self.client.coded(dict(settings))
        self.client.run(lambda: {"do": "bind", "id": name, "of": self.name, "settings": coded})
        return Made(self.client, name)


class Factory(Function):
    """A stateful operation: makes modules."""

    def __call__(self, config: Any, state_dict: Mapping[str, Tensor] | None) -> Any:
        name = _new_name(self.client)
        self.check()

        def step() -> dict[str, Any]:
            state = self.client.coded(None if state_dict is None else dict(state_dict))
            coded = encode_config(self.name, config)
            return {"do": "make", "id": name, "operation": self.name, "config": coded, "state": state}

        return made_of(self.client, name, self.client.run(step))


class Made(Remote):
    """A callable that was made in the target's process and lives as long as it is referred to here."""

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self.called(positional, named, {})

    def __del__(self) -> None:
        self.client.lost.append(self.name)


class Module(nn.Module):
    """A module in the target's process: its parameters are mirrored here, its calls happen there."""

    own_parameters: dict[str, nn.Parameter]
    own_buffers: dict[str, Tensor]
    own_state: dict[str, Tensor]

    def __init__(self, client: Client, name: str, returned: Returned) -> None:
        super().__init__()
        self.remote = Made(client, name)
        self._see(returned)

    def _see(self, returned: Returned) -> None:
        seen = decoded(self.remote.client, returned, parameters=True)
        self.__dict__ |= {name: seen[name] for name in ("own_parameters", "own_buffers", "own_state", "training")}
        if "spec_parameters" in seen:
            self.__dict__["spec_parameters"] = lambda: seen["spec_parameters"]

    def forward(self, *positional: Any, **named: Any) -> Any:
        return self.remote.called(positional, named, self.own_parameters)

    def _ask(self, do: str, **more: Callable[[], Any]) -> Module:
        self.remote.check()
        self._see(
            self.remote.client.run(
                lambda: {"do": do, "of": self.remote.name} | {key: make() for key, make in more.items()}
            )
        )
        return self

    def train(self, mode: bool = True) -> Module:
        return self._ask("mode", train=lambda: mode)

    def to(self, **where: Any) -> Module:  # type: ignore[override]
        given = {name: str(each) if isinstance(each, torch.device) else each for name, each in where.items()}
        return self._ask("move", to=lambda: self.remote.client.coded(given))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self._ask("load", state=lambda: self.remote.client.coded(dict(state_dict)), assign=lambda: assign)

    def _look(self) -> None:
        """Looks again, if a call has replaced a parameter or a buffer."""
        if self.remote.name in self.remote.client.changed:
            self.remote.client.changed.discard(self.remote.name)
            self._ask("describe")

    def state_dict(self, *_: Any, **__: Any) -> Any:
        self._look()
        return {name: tensor.detach() for name, tensor in self.own_state.items()}

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Parameter]]:
        self._look()
        yield from self.own_parameters.items()

    def named_buffers(self, *_: Any, **__: Any) -> Iterator[tuple[str, Tensor]]:
        self._look()
        yield from self.own_buffers.items()

    def __deepcopy__(self, memo: Any) -> Module:
        self.remote.check()
        client, name = self.remote.client, _new_name(self.remote.client)
        return Module(client, name, client.run(lambda: {"do": "copy", "id": name, "of": self.remote.name}))

    def captured(self, backend: str) -> Made:
        return self.remote.captured(backend)

    def exported(self, positional: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> Made:
        return self.remote.exported(positional, named)

    def watched(self, paths: Mapping[str, str], **named: Any) -> list[tuple[str, Tensor]]:
        """What the stages on these paths compute in a call."""
        self.remote.check()
        client = self.remote.client
        returned = client.run(
            lambda: {
                "do": "watch",
                "of": self.remote.name,
                "paths": dict(paths),
                "arguments": client.coded(((), named)),
            }
        )
        return [(str(name), numbers) for name, numbers in decoded(client, returned)]


class Instance(Made):
    """What a factory made that is no nn.Module."""

    def __init__(self, client: Client, name: str, returned: Returned) -> None:
        super().__init__(client, name)
        seen = decoded(client, returned, parameters=True)
        if "spec_parameters" in seen:
            self.spec_parameters = lambda: seen["spec_parameters"]


def made_of(client: Client, name: str, returned: Returned) -> Module | Instance:
    """The judge's side of what a factory made."""
    return (Module if dict(returned.coded["dict"])["module"] else Instance)(client, name, returned)


def decoded(client: Client, returned: Returned, parameters: bool = False) -> Any:
    """A result with its tensors; those that ask for gradients as parameters, so that they are leaves."""
    made: dict[str, Tensor] = {}

    def tensor_of(name: Any) -> Tensor:
        if name not in returned.tensors:
            return client.mirrors.tensor(name)
        if name not in made:
            tensor, mirror, described = returned.tensors[name]
            made[name] = nn.Parameter(tensor) if parameters and described["requires_grad"] else tensor
            client.mirrors.remember(made[name], mirror)
        return made[name]

    with client.lock:
        return decode(returned.coded, tensor_of)


def _new_name(client: Client) -> str:
    return f"made-{next(client.process.numbers)}"


def isolated(name: str, limits: Limits) -> Target:
    """The target of this name, all of whose operations happen in a process of its own.

    Raises:
        TargetError: it does not load there, or ends before it has said what it provides.
    """
    client = Client(Process(python_command(name, limits), limits))
    return served(client, greeting(client.hello))


def served(client: Client, said: Hello) -> Target:
    """What a runner provides that holds tensors and modules for the judge."""
    return target_of(said, {name: _provided(client, name, about) for name, about in said["operations"].items()})


def _provided(client: Client, operation: str, parameters: list[list[Any]] | None) -> Function:
    kind = Factory if operation in OPERATIONS and OPERATIONS[operation].kind == "module" else Function
    return kind(client, operation, _signature(parameters))


def _signature(parameters: list[list[Any]] | None) -> inspect.Signature | None:
    if parameters is None:
        return None
    return inspect.Signature(
        [
            inspect.Parameter(name, inspect._ParameterKind(kind), default=None if default else inspect.Parameter.empty)
            for name, kind, default in parameters
        ]
    )
