"""What the stages of a whole model compute in one call, read by hooks from the modules that the paths name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

ANY = "{i}"


StageCalls = list[tuple[str, Tensor]]


def stage_calls(module: nn.Module, paths: Mapping[str, str], call: Callable[[], Any]) -> StageCalls:
    """The floating numbers of every stage, flattened, float64, in the order in which the stages ran.

    A module that is called several times, as a shared head or norm is, comes several times.

    Args:
        paths: stage name -> path of a module (what it returns), or `path>argument` (what it is given).
        call: runs the model once.
    """
    found: StageCalls = []
    hooks = [_hook(inner, argument, found, name) for name, inner, argument in _modules(module, paths)]
    try:
        with torch.no_grad():
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def by_stage(calls: StageCalls) -> dict[str, list[Tensor]]:
    """The calls of each stage."""
    found: dict[str, list[Tensor]] = {}
    for name, numbers in calls:
        found.setdefault(name, []).append(numbers)
    return found


def _modules(module: nn.Module, paths: Mapping[str, str]) -> Iterator[tuple[str, nn.Module, str]]:
    inner = dict(module.named_modules())
    for name, entry in paths.items():
        path, _, argument = entry.partition(">")
        numbers = range(len(inner)) if ANY in path else range(1)
        for number in numbers:
            if path.replace(ANY, str(number)) in inner:
                yield name.replace(ANY, str(number)), inner[path.replace(ANY, str(number))], argument


def _hook(module: nn.Module, argument: str, found: StageCalls, name: str) -> Any:
    def given(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        bound = inspect.signature(module.forward).bind(*positional, **named).arguments
        see(bound.get(argument, bound.get("kwargs", {}).get(argument)))

    def returned(_: nn.Module, __: Any, output: Any) -> None:
        see(output)

    def see(value: Any) -> None:
        numbers = _numbers(value)
        if numbers:
            found.append((name, torch.cat(numbers)))

    if argument:
        return module.register_forward_pre_hook(given, with_kwargs=True)
    return module.register_forward_hook(returned)


def _numbers(value: Any) -> list[Tensor]:
    """All floating tensors in what a module takes or returns, however they are packed."""
    if isinstance(value, Tensor):
        return [value.detach().to(torch.float64, copy=True).flatten().cpu()] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for each in value for tensor in _numbers(each)]
    return []
