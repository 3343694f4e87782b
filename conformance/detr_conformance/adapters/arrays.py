"""A function of another library's arrays as one of tensors, with its gradients where it has a `vjp`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


def _as_it_is(setting: Any) -> Any:
    return setting


def _nothing_special(tensors: Sequence[Tensor], settings: Mapping[str, Any]) -> AbstractContextManager[Any]:
    return nullcontext()


@dataclass(frozen=True)
class Arrays:
    """How tensors and a library's arrays become each other.

    Attributes:
        give: an array of a tensor.
        take: a tensor of an array.
        setting: a keyword setting as the library understands it.
        during: entered around each call.
    """

    give: Callable[[Tensor], Any]
    take: Callable[[Any], Tensor]
    setting: Callable[[Any], Any] = _as_it_is
    during: Callable[[Sequence[Tensor], Mapping[str, Any]], AbstractContextManager[Any]] = _nothing_special


def adapted(function: Callable[..., Any], vjp: Callable[..., Any] | None, arrays: Arrays) -> Callable[..., Any]:
    """The function of tensors; what it returns asks for gradients only where there is a vjp."""

    @functools.wraps(function)
    def call(*positional: Any, **named: Any) -> Any:
        tensors = [each for each in (*positional, *named.values()) if isinstance(each, Tensor)]
        made = Call(function, vjp, arrays, positional, named, tensors[0].device if tensors else torch.device("cpu"))
        if vjp is None or not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
            return made.rebuilt(made.outputs(tensors))
        return made.rebuilt(Differentiated.apply(made, *tensors))

    return call


@dataclass
class Call:
    """One call, and the form of its arguments and of what it returned."""

    function: Callable[..., Any]
    vjp: Callable[..., Any] | None
    arrays: Arrays
    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    device: torch.device
    form: Any = None
    floating: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The tensors themselves are saved by autograd, which notices changes; kept here they would outlive it.
        marks = [each for each in (*self.positional, *self.named.values()) if isinstance(each, Tensor)]
        self.count = len(marks)
        self.positional = tuple(MARK if isinstance(each, Tensor) else each for each in self.positional)
        self.named = {name: MARK if isinstance(each, Tensor) else each for name, each in self.named.items()}

    def outputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the function returns for these tensors, one after another."""
        positional, named = self._filled(tensors)
        with self.arrays.during(tensors, self.named), torch.no_grad():
            found: list[Any] = []
            self.form = flattened(self.function(*positional, **named), found)
            outputs = [self.arrays.take(each).to(self.device) for each in found]
        self.floating = [each.is_floating_point() for each in outputs]
        return outputs

    def rebuilt(self, outputs: Sequence[Any]) -> Any:
        """The outputs in the form in which the function returned them."""
        return restored(self.form, iter(outputs))

    def gradients(self, gradients: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """Of the tensors, from those of the outputs."""
        assert self.vjp is not None
        positional, named = self._filled(tensors)
        given = zip(gradients, self.floating, strict=True)
        with self.arrays.during(tensors, self.named), torch.no_grad():
            pulled = self.rebuilt([self.arrays.give(each) if floating else None for each, floating in given])
            found = self.vjp(pulled, *positional, **named)
            found = list(found) if isinstance(found, tuple | list) else [found]
            if len(found) != self.count:
                raise ValueError(
                    f"the vjp returned {len(found)} gradients for {self.count} arrays; "
                    "it returns one for each, in their order, and None for an integer array"
                )
            return [self._gradient(*each) for each in zip(range(self.count), found, tensors, strict=True)]

    def _gradient(self, place: int, found: Any, tensor: Tensor) -> Tensor | None:
        if found is None or not tensor.is_floating_point():
            return None
        gradient = self.arrays.take(found).to(self.device)
        if gradient.shape != tensor.shape:
            raise ValueError(
                f"the vjp returned a gradient of shape {tuple(gradient.shape)} for array {place}, "
                f"which has shape {tuple(tensor.shape)}"
            )
        return gradient

    def _filled(self, tensors: Sequence[Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with arrays where tensors were."""
        given = iter(tensors)

        def fill(each: Any) -> Any:
            return self.arrays.give(next(given)) if each is MARK else self.arrays.setting(each)

        return [fill(each) for each in self.positional], {name: fill(each) for name, each in self.named.items()}


class Differentiated(torch.autograd.Function):
    """A call whose gradients are those of its vjp; differentiated a second time, it raises."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(*tensors)
        outputs = call.outputs(tensors)
        ctx.mark_non_differentiable(*(each for each in outputs if not each.is_floating_point()))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        found = ctx.call.gradients(gradients, ctx.saved_tensors)
        if torch.is_grad_enabled():
            found = [each if each is None else Once.apply(each, *gradients, *ctx.saved_tensors) for each in found]
        return None, *found


class Once(torch.autograd.Function):
    """A gradient, and an error where it is differentiated: without it a second derivative would silently be zero."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *came_from: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError("a function with a vjp can be differentiated once")


class _Mark:
    """Stands where an array does."""


MARK = _Mark()


def flattened(result: Any, found: list[Any]) -> Any:
    """The form of a result, whose arrays are appended to `found`."""
    if isinstance(result, Mapping):
        return {name: flattened(each, found) for name, each in result.items()}
    if isinstance(result, tuple | list):
        return [flattened(each, found) for each in result]
    found.append(result)
    return MARK


def restored(form: Any, given: Any) -> Any:
    """The result of this form with what is given in the place of its arrays."""
    if isinstance(form, dict):
        return {name: restored(each, given) for name, each in form.items()}
    if isinstance(form, list):
        return tuple(restored(each, given) for each in form)
    return next(given)
