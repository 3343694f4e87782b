"""A target of torch under torch.compile, and exported by torch.export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.operations import OPERATIONS
from detr_conformance.target import Target

GRAPHS = 64  # of a function or a module; torch.compile has a limit, beyond which it would not compile

EXPORTING = Lock()  # it changes what is global


def compiled(target: Target, backend: str = "inductor", name: str | None = None, dynamic: bool | None = None) -> Target:
    """What a target of torch provides under torch.compile, whole: a break in a graph is an error.

    Each module, and each function, is captured anew for every shape unless `dynamic` says otherwise; check it with
    `--shapes few`.
    """

    def capture(made: Callable[..., Any]) -> Callable[..., Any]:
        from torch._dynamo import config as dynamo
        from torch._functorch import config as autograd

        autograd.donated_buffer = False  # otherwise a second backward through a retained graph raises
        dynamo.recompile_limit = dynamo.accumulated_recompile_limit = GRAPHS
        return torch.compile(made, fullgraph=True, dynamic=dynamic, backend=backend)

    return _with(target, capture, name or f"compiled-{target.name}", target.features)


def exported(target: Target, name: str | None = None) -> Target:
    """What a target of torch provides as programs of torch.export, one for each shape: forward only."""
    return _with(target, Program, name or f"exported-{target.name}", ())


def _with(
    target: Target, capture: Callable[[Callable[..., Any]], Callable[..., Any]], name: str, features: tuple[str, ...]
) -> Target:
    def function(made: Callable[..., Any]) -> Callable[..., Any]:
        found: list[Callable[..., Any]] = []  # captured at the first call, so that a target loads without compiling
        forms: set[str] = set()

        def call(*tensors: Any, **settings: Any) -> Any:
            forms.add(_form(tensors, settings))
            if not found:
                with torch.no_grad():
                    made(*tensors, **settings)  # what a first call imports is no part of a graph
            if not found or len(forms) > GRAPHS:
                torch.compiler.reset()
                forms.clear()
                found[:] = [capture(made)]
            return found[0](*tensors, **settings)

        call.__wrapped__ = made  # type: ignore[attr-defined]
        return call

    def factory(made: Callable[..., Any]) -> Callable[..., Any]:
        def build(config: Any, state_dict: Any) -> Any:
            torch.compiler.reset()  # graphs of earlier modules count against the limit
            return capture(made(config, state_dict))

        return build

    provides = {
        operation: (factory if OPERATIONS[operation].kind == "module" else function)(made)
        for operation, made in target.provides.items()
    }
    kept = tuple(feature for feature in features if feature in ("backward", "deterministic"))
    return replace(target, name=name, provides=provides, features=kept, deviations=None, stages=None)


@dataclass
class Program:
    """A function or module as programs of torch.export, which hold for the shapes and settings of their call."""

    made: Callable[..., Any]
    programs: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.made, nn.Module):
            self.made.eval()

    def __call__(self, *positional: Any, **named: Any) -> Any:
        tensors = {key: each for key, each in named.items() if isinstance(each, Tensor)}
        settings = {key: each for key, each in named.items() if key not in tensors}
        given, key = [*positional, *tensors.values()], _form(positional, named)
        if isinstance(self.made, nn.Module):
            self.made.to(next((each.dtype for each in given if each.is_floating_point()), torch.float32))
        with EXPORTING:
            if key not in self.programs:
                module = self.made if isinstance(self.made, nn.Module) else _Module(self.made, settings)
                self.programs[key] = torch.export.export(module, positional, tensors).module()
        with torch.no_grad():
            return self.programs[key](*positional, **tensors)


def _form(positional: tuple[Any, ...], named: dict[str, Any]) -> str:
    """What a compiler sees of a call: shapes, dtypes, settings."""

    def seen(each: Any) -> Any:
        return (tuple(each.shape), each.dtype) if isinstance(each, Tensor) else each

    return repr(([seen(each) for each in positional], {key: seen(each) for key, each in named.items()}))


class _Module(nn.Module):
    """torch.export takes modules."""

    def __init__(self, function: Callable[..., Any], settings: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.settings = function, settings

    def forward(self, *tensors: Tensor, **named: Tensor) -> Any:
        return self.function(*tensors, **named, **self.settings)
