"""What a property of the suite does with the reference: the calls it makes and the comparisons it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from detr_conformance.harness.subject import MODES, Subject
from detr_conformance.operations import OPERATIONS

Results = dict[str, Tensor]
Answer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Given:
    """A tensor that a call was given: its numbers, and how they lay in memory."""

    numbers: Tensor
    strides: tuple[int, ...]
    offset: int

    @property
    def plain(self) -> bool:
        return self.offset == 0 and self.strides == self.numbers.stride()


@dataclass
class Made:
    """What a module was made from, and how often it was called.

    Attributes:
        parameters: copies of those that the factory was given; None if it made its own.
        given: these themselves.
        trained: the names of what requires a gradient in a new module.
    """

    config: Any
    parameters: dict[str, Tensor] | None
    given: Mapping[str, Tensor]
    trained: frozenset[str]
    calls: int = 0


@dataclass
class Call:
    """One call, and all that was read of it.

    Attributes:
        made: of a module.
        inputs: the tensors by name.
        settings: of a function.
        unlike: why it cannot be repeated by itself, in words; None if it can.
        results: "output", or each of several; "grad_<name>" of inputs and parameters.
        incoming: the gradient that was sent back, joined where there are several outputs.
    """

    made: Made | None
    inputs: dict[str, Given]
    settings: dict[str, Any]
    training: bool = False
    unlike: str | None = None
    results: Results = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    incoming: Given | None = None


@dataclass(frozen=True)
class Comparison:
    """What a property asked to be compared; no limit where it must be exact."""

    name: str
    got: Tensor
    expected: Tensor
    limit: Tensor | None = None
    interval: Tensor | None = None


@dataclass
class Tape:
    """A record of one property on one case.

    Attributes:
        answer: what is returned in the place of each result of the reference.
    """

    answer: Answer
    calls: list[Call] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    thread: int = field(default_factory=get_ident)
    threaded: bool = False  # calls came from other threads too, in any order
    modes: dict[str, Any] = field(default_factory=lambda: {name: read() for name, (read, _) in MODES.items()})
    _of_module: WeakKeyDictionary[nn.Module, Made] = field(default_factory=WeakKeyDictionary)
    _given: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # kept, so that no address comes again
    _differentiable: list[tuple[Tensor, Call]] = field(default_factory=list)

    # -- calls ----------------------------------------------------------------------------------------------

    def watched(self, operation: str, implementation: Callable[..., Any]) -> Callable[..., Any]:
        """The reference's callable, whose calls are recorded and whose results are replaced by the tape's answers."""
        if OPERATIONS[operation].kind == "module":
            return lambda config, state_dict=None: self._module(implementation, config, state_dict)
        inputs = OPERATIONS[operation].inputs

        def function(*tensors: Tensor, **named: Any) -> Any:
            arguments = dict(zip(inputs, tensors, strict=False)) | named
            settings = {name: value for name, value in arguments.items() if name not in inputs}
            unlike = self._surroundings() or self._tied(arguments)
            call = Call(None, given(arguments), settings, unlike=unlike)
            generator = torch.random.get_rng_state()
            return self._answered(call, generator, implementation(*tensors, **named))

        return function

    def _module(
        self, factory: Callable[..., nn.Module], config: Any, state_dict: Mapping[str, Tensor] | None
    ) -> nn.Module:
        module = factory(config, state_dict)
        parameters = None if state_dict is None else {name: t.detach().clone() for name, t in state_dict.items()}
        self._of_module[module] = Made(config, parameters, dict(state_dict or {}), _trained(module))
        begun: list[tuple[Call, Tensor]] = []

        def before(module: nn.Module, _: tuple[Any, ...], inputs: dict[str, Any]) -> None:
            made = self._of_module.get(module)  # a copy is not there
            unlike = self._surroundings() or _otherwise_made(made, module) or self._tied(inputs)
            call = Call(made, given(inputs), {}, module.training, unlike)
            begun.append((call, torch.random.get_rng_state()))

        def after(module: nn.Module, _: tuple[Any, ...], __: dict[str, Any], output: Any) -> Any:
            return self._answered(*begun.pop(), output)

        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after, with_kwargs=True)
        return module

    def _answered(self, call: Call, generator: Tensor, output: Any) -> Any:
        self.threaded |= get_ident() != self.thread
        if not torch.equal(generator, torch.random.get_rng_state()):
            call.unlike = "is random"
        if call.made is not None:
            call.made.calls += 1
        self.calls.append(call)
        if isinstance(output, Tensor):
            call.outputs = ("output",)
            return self._result(call, "output", output)
        if not isinstance(output, Mapping):
            call.unlike = f"returns a {type(output).__name__}"
            return output
        call.outputs = tuple(name for name, tensor in output.items() if isinstance(tensor, Tensor))
        return {n: self._result(call, n, t) if isinstance(t, Tensor) else t for n, t in output.items()}

    def _result(self, call: Call, name: str, tensor: Tensor) -> Tensor:
        answer = self.answer(tensor)
        call.results[name] = answer.detach().clone()
        return answer

    def _tied(self, arguments: Mapping[str, Any]) -> str | None:
        """Whether its arguments have a past: they were computed, or other numbers stood in their memory."""
        found = None
        if any(isinstance(each, Tensor) and not each.is_leaf for each in arguments.values()):
            return "is given what was computed in the same graph"
        for tensor in (each for each in arguments.values() if isinstance(each, Tensor) and each.numel()):
            earlier = self._given.get(tensor.data_ptr())
            if earlier is not None and not torch.equal(earlier[1].nan_to_num(), tensor.detach().nan_to_num()):
                found = "is given other numbers in the memory of an earlier one"
            self._given[tensor.data_ptr()] = (tensor, tensor.detach().clone())
        return found

    def _surroundings(self) -> str | None:
        changed = [name for name, (read, _) in MODES.items() if read() != self.modes[name]]
        if torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu"):
            changed.append("an inference or autocast mode")
        return f"is made under {', '.join(changed)}" if changed else None

    # -- gradients ------------------------------------------------------------------------------------------

    def called(self, output: Tensor, calls_before: int) -> None:
        """The output as a subject returns it, which gradients may be asked of."""
        if len(self.calls) == calls_before + 1:
            self._differentiable.append((output, self.calls[-1]))

    def pulled_back(
        self, output: Tensor, incoming: Tensor, gradients: dict[str, Tensor | None]
    ) -> dict[str, Tensor | None]:
        call = next((call for known, call in self._differentiable if known is output), None)
        if call is None or call.incoming is not None:
            return gradients
        call.incoming = given({"incoming": incoming})["incoming"]
        answered: dict[str, Tensor | None] = {}
        for name, gradient in gradients.items():
            whole = name.removesuffix("/0") if f"{name.rpartition('/')[0]}/1" not in gradients else name
            strided = gradient is not None and gradient.layout == torch.strided
            answered[name] = self._result(call, f"grad_{whole}", gradient) if strided else gradient  # type: ignore[arg-type]
        return answered


def given(arguments: Mapping[str, Any]) -> dict[str, Given]:
    return {
        name: Given(t.detach().cpu().clone(memory_format=torch.contiguous_format), t.stride(), int(t.storage_offset()))
        for name, t in arguments.items()
        if isinstance(t, Tensor)
    }


def _otherwise_made(made: Made | None, module: nn.Module) -> str | None:
    if made is None:
        return "is one of a copied module"
    if made.parameters is None:
        return "is one of a module that initialised itself"
    if made.calls:
        return "is not the first of its module"
    now = module.state_dict()
    if any(not _same(now[name], tensor) for name, tensor in made.parameters.items()):
        return "is one of a module whose parameters were changed"
    if any(not _same(made.given[name], tensor) for name, tensor in made.parameters.items()):
        return "is one of a module whose state dict was changed since"
    return None if _trained(module) == made.trained else "is one of a module with frozen parameters"


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _trained(module: nn.Module) -> frozenset[str]:
    return frozenset(name for name, parameter in module.named_parameters() if parameter.requires_grad)


@dataclass
class Recording(Subject):
    """A subject that writes down what is compared instead of judging it."""

    tape: Tape = field(default_factory=lambda: Tape(torch.clone))

    def call(self, arguments: dict[str, Tensor]) -> Tensor:
        before = len(self.tape.calls)
        output = super().call(arguments)
        self.tape.called(output, before)
        return output

    def pull_back(
        self,
        output: Tensor,
        grad_output: Tensor,
        inputs: dict[str, Tensor],
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> dict[str, Tensor | None]:
        gradients = super().pull_back(output, grad_output, inputs, retain_graph, create_graph)
        return gradients if create_graph else self.tape.pulled_back(output, grad_output, gradients)

    def compare(self, name: str, got: Tensor, expected: Tensor, limit: Tensor, interval: Tensor | None = None) -> None:
        self.tape.comparisons.append(Comparison(name, _kept(got), _kept(expected), _kept(limit), interval))

    def compare_exactly(self, name: str, got: Tensor, expected: Tensor) -> None:
        self.tape.comparisons.append(Comparison(name, _kept(got), _kept(expected)))


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()
