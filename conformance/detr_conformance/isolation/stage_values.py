"""What the stages of a model compute in one call, read by hooks from the modules that the paths name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

ANY = "{i}"


StageCalls = list[tuple[str, Tensor]]
See = Callable[[Any], Any]  # what stands in the place of a value that a stage has


def stage_calls(
    module: nn.Module,
    paths: Mapping[str, str],
    call: Callable[[], Any],
    given: Mapping[str, Sequence[Tensor]] | None = None,
) -> StageCalls:
    """The floating numbers of every stage, flattened, float64, in the order in which the stages ran.

    A module that is called several times, as a shared head or norm is, comes several times.

    Args:
        paths: stage name -> path of a module (what it returns), or `path>argument` (what it is given).
        call: runs the model once.
        given: the numbers of each call of a stage that go on in the place of its own, once these have been read.
    """
    watch = _Watch({name: iter(calls) for name, calls in (given or {}).items()})
    with ExitStack() as hooks, torch.no_grad():
        for name, place, argument in _places(module, paths):
            hooks.enter_context(_hooked(place, argument, functools.partial(watch.see, name)))
        for inner in module.modules() if given else ():
            hooks.enter_context(
                _removed(inner.register_forward_pre_hook(watch.swapped, with_kwargs=True, prepend=True))
            )
        call()
    return watch.found


def by_stage(calls: StageCalls) -> dict[str, list[Tensor]]:
    """The calls of each stage."""
    found: dict[str, list[Tensor]] = {}
    for name, numbers in calls:
        found.setdefault(name, []).append(numbers)
    return found


@dataclass
class _Watch:
    given: Mapping[str, Iterator[Tensor]]
    found: StageCalls = field(default_factory=list)
    swaps: dict[int, tuple[Tensor, Tensor]] = field(
        default_factory=dict
    )  # the former too, so that its id stays its own

    def see(self, name: str, value: Any) -> Any:
        numbers = _numbers(value)
        if not numbers:
            return value
        own = torch.cat(numbers)
        self.found.append((name, own))
        other = next(self.given.get(name, iter(())), None)
        if other is None or other.shape != own.shape:
            return value
        replaced = _replaced(value, other)
        if isinstance(value, Tensor):
            self.swaps[id(value)] = (value, replaced)
        return replaced

    def swapped(self, _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What one module was given instead of a tensor, positions say, every later one is given too."""

        def swap(value: Any) -> Any:
            return self.swaps[id(value)][1] if id(value) in self.swaps else value

        return tuple(map(swap, positional)), {name: swap(value) for name, value in named.items()}


@dataclass(frozen=True)
class _Function:
    """A plain function that a module holds as an attribute."""

    owner: nn.Module
    attribute: str


def _places(module: nn.Module, paths: Mapping[str, str]) -> Iterator[tuple[str, nn.Module | _Function, str]]:
    inner = dict(module.named_modules())
    for name, entry in paths.items():
        path, _, argument = entry.partition(">")
        for number in map(str, range(len(inner)) if ANY in path else range(1)):
            place = _place(inner, path.replace(ANY, number))
            if place is not None:
                yield name.replace(ANY, number), place, argument


def _place(inner: Mapping[str, nn.Module], path: str) -> nn.Module | _Function | None:
    if path in inner:
        return inner[path]
    owner, _, attribute = path.rpartition(".")
    if owner in inner and inspect.isroutine(getattr(inner[owner], attribute, None)):
        return _Function(inner[owner], attribute)
    return None


@contextmanager
def _hooked(place: nn.Module | _Function, argument: str, see: See) -> Iterator[None]:
    """Shows the stage's value in each call, and lets what comes back go on in its place."""
    if isinstance(place, _Function):
        with _wrapped(place, argument, see):
            yield
        return

    def given(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return _with_argument(module.forward, argument, see, positional, named)

    def returned(_: nn.Module, __: Any, output: Any) -> Any:
        return see(output)

    if argument:
        hook = place.register_forward_pre_hook(given, with_kwargs=True)
    else:
        hook = place.register_forward_hook(returned)
    with _removed(hook):
        yield


@contextmanager
def _removed(hook: RemovableHandle) -> Iterator[None]:
    """The hook for as long as the block runs."""
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _wrapped(place: _Function, argument: str, see: See) -> Iterator[None]:
    own = vars(place.owner).get(place.attribute)  # None: it is the class's
    function = getattr(place.owner, place.attribute)

    @functools.wraps(function)
    def watched(*positional: Any, **named: Any) -> Any:
        if argument:
            positional, named = _with_argument(function, argument, see, positional, named)
            return function(*positional, **named)
        return see(function(*positional, **named))

    setattr(place.owner, place.attribute, watched)
    try:
        yield
    finally:
        if own is None:
            delattr(place.owner, place.attribute)
        else:
            setattr(place.owner, place.attribute, own)


def _with_argument(
    function: Callable[..., Any], argument: str, see: See, positional: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the call; the named one shown, and replaced if it shall be."""
    try:
        signature = inspect.signature(function)
        bound = signature.bind(*positional, **named)
    except ValueError:  # a builtin may have no signature
        return positional, named
    rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), "")
    holder = bound.arguments if argument in bound.arguments else bound.arguments.get(rest, {})
    if argument not in holder:
        return positional, named
    value = holder[argument]
    other = see(value)
    if other is value:
        return positional, named
    holder[argument] = other
    return bound.args, bound.kwargs


def _numbers(value: Any) -> list[Tensor]:
    """All floating tensors in what a module takes or returns, however they are packed."""
    if isinstance(value, Tensor):
        return [value.detach().to(torch.float64, copy=True).flatten().cpu()] if value.is_floating_point() else []
    return [tensor for each in _contents(value) for tensor in _numbers(each)]


def _contents(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list | tuple) else []


def _replaced(value: Any, numbers: Tensor) -> Any:
    """The value with these numbers, in its own form, dtype and place."""
    if isinstance(value, Tensor):
        return numbers.to(value.device, value.dtype).view(value.shape) if value.is_floating_point() else value
    contents, start = [], 0
    for each in _contents(value):
        end = start + sum(part.numel() for part in _numbers(each))
        contents.append(_replaced(each, numbers[start:end]) if end > start else each)
        start = end
    if isinstance(value, Mapping):
        return type(value)(zip(value, contents, strict=True))  # type: ignore[call-arg]
    return type(value)(*contents) if hasattr(value, "_fields") else type(value)(contents)
