"""Sampling functions that pass a check and would win a race that they do not run: each a class of its own.

Each is made anew by its factory, so that none remembers another test.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from detr_reference import ms_deform_attn

Function = Callable[..., Tensor]
CHEATS: dict[str, Callable[[], Function]] = {}


def cheat(factory: Callable[[], Function]) -> Callable[[], Function]:
    CHEATS[factory.__name__.replace("_", "-")] = factory
    return factory


def shape_of(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> tuple[int, ...]:
    """Of a right output."""
    return (*locations.shape[:2], value[0, 0].numel())


def remembering(key: Callable[..., Any]) -> Function:
    """Returns what it returned for the same key; a gradient goes to the arguments of the first call."""
    known: dict[Any, Tensor] = {}

    def function(*tensors: Tensor) -> Tensor:
        told = key(*tensors)
        if told not in known:
            known[told] = ms_deform_attn(*tensors).detach()
        return known[told].clone()

    return function


@cheat
def remembered_by_shape() -> Function:
    return remembering(lambda value, *rest: value.shape)


@cheat
def remembered_by_its_sizes_and_weights_first_element() -> Function:
    """A hash that new numbers move, but coarsely: many contents have the same one."""
    return remembering(lambda value, *rest: (value.shape, bool(rest[-1].flatten()[0] > 2)))


@cheat
def remembered_by_version() -> Function:
    return remembering(lambda value, *rest: (value.shape, value._version))


@cheat
def the_last_result_again_from_the_third_call_on() -> Function:
    calls, last = [0], [torch.empty(0)]

    def function(*tensors: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] < 3:
            last[0] = ms_deform_attn(*tensors).detach()
        return last[0].clone()

    return function


@cheat
def right_only_beside_its_check() -> Function:
    """Returns early where the bench is on the stack, or any frame of its package."""

    def function(*tensors: Tensor) -> Tensor:
        frame = sys._getframe()
        while frame := frame.f_back:  # type: ignore[assignment]
            if str(frame.f_globals.get("__name__")).startswith("detr_bench"):
                return tensors[0].new_empty(shape_of(*tensors))
        return ms_deform_attn(*tensors)

    return function


@cheat
def computed_after_the_call_has_returned() -> Function:
    pool = ThreadPoolExecutor(1)

    def function(*tensors: Tensor) -> Tensor:
        output = tensors[0].new_zeros(shape_of(*tensors))
        gate = threading.Event()

        def work() -> None:
            gate.wait(0.05)
            output.copy_(ms_deform_attn(*(t.detach() for t in tensors)))

        pool.submit(work)
        return output

    return function


class Lazy(Tensor):
    """Holds the arguments, and calls the function when it is read."""

    arguments: tuple[Tensor, ...]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.is_floating_point, Tensor.shape.__get__, Tensor.detach):  # type: ignore[attr-defined]
            return super().__torch_function__(func, types, args, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            args = [ms_deform_attn(*a.arguments) if isinstance(a, Lazy) else a for a in args]
            return func(*args, **(kwargs or {}))


@cheat
def computed_when_it_is_read() -> Function:
    def function(*tensors: Tensor) -> Tensor:
        output = tensors[0].new_empty(shape_of(*tensors)).as_subclass(Lazy)
        output.arguments = tensors
        return output

    return function


@cheat
def a_view_of_an_argument() -> Function:
    """Its result is right and lies in the memory of the weights and locations, where there is room."""

    def function(*tensors: Tensor) -> Tensor:
        with torch.no_grad():
            output = ms_deform_attn(*tensors)
            room = tensors[0].view(-1)[: output.numel()]
            return room.copy_(output.flatten()).view_as(output)

    return function


@cheat
def every_other_query() -> Function:
    def function(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        half = ms_deform_attn(value, shapes, starts, locations[:, ::2].contiguous(), weights[:, ::2].contiguous())
        return half.repeat_interleave(2, 1)[:, : locations.shape[1]]

    return function


@cheat
def in_bfloat16() -> Function:
    def function(*tensors: Tensor) -> Tensor:
        narrow = [t.bfloat16() if i in (0, 4) else t for i, t in enumerate(tensors)]
        narrow[3] = narrow[3].bfloat16()
        return ms_deform_attn(*narrow).to(tensors[0].dtype)

    return function


# -- of the backward ------------------------------------------------------------------------------------------

BACKWARD: dict[str, Callable[[], Function]] = {}


def backward_cheat(factory: Callable[[], Function]) -> Callable[[], Function]:
    BACKWARD[factory.__name__.replace("_", "-")] = factory
    return factory


def with_backward(gradients: Callable[[list[Tensor], Tensor], list[Tensor]]) -> Function:
    class Sampled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Tensor) -> Tensor:
            ctx.save_for_backward(*tensors)
            return ms_deform_attn(*tensors)

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
            value, locations, weights = gradients(list(ctx.saved_tensors), grad_output)
            return value, None, None, locations, weights

    return Sampled.apply  # type: ignore[no-any-return]


def right_gradients(tensors: list[Tensor], grad_output: Tensor) -> list[Tensor]:
    value, shapes, starts, locations, weights = (t.detach() for t in tensors)
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    with torch.enable_grad():
        output = ms_deform_attn(leaves[0], shapes, starts, leaves[1], leaves[2])
    return list(torch.autograd.grad(output, leaves, grad_output))


@backward_cheat
def gradients_remembered() -> Function:
    known: dict[torch.Size, list[Tensor]] = {}

    def gradients(tensors: list[Tensor], grad_output: Tensor) -> list[Tensor]:
        if grad_output.shape not in known:
            known[grad_output.shape] = right_gradients(tensors, grad_output)
        return [t.clone() for t in known[grad_output.shape]]

    return with_backward(gradients)


@backward_cheat
def location_gradient_remembered() -> Function:
    known: dict[torch.Size, Tensor] = {}

    def gradients(tensors: list[Tensor], grad_output: Tensor) -> list[Tensor]:
        found = right_gradients(tensors, grad_output)
        return [found[0], known.setdefault(grad_output.shape, found[1]).clone(), found[2]]

    return with_backward(gradients)


@backward_cheat
def gradients_of_the_first_cotangent() -> Function:
    """In the forward, whose time of "backward" alone is not counted, for the gradient that came last time."""
    last: dict[torch.Size, Tensor] = {}

    def gradients(tensors: list[Tensor], grad_output: Tensor) -> list[Tensor]:
        return right_gradients(tensors, last.setdefault(grad_output.shape, grad_output.clone()))

    return with_backward(gradients)


@backward_cheat
def gradients_computed_after_the_call() -> Function:
    pool = ThreadPoolExecutor(1)

    def gradients(tensors: list[Tensor], grad_output: Tensor) -> list[Tensor]:
        found = [torch.zeros_like(tensors[i]) for i in (0, 3, 4)]

        def work() -> None:
            threading.Event().wait(0.05)
            for empty, right in zip(found, right_gradients(tensors, grad_output), strict=True):
                empty.copy_(right)

        pool.submit(work)
        return found

    return with_backward(gradients)


@backward_cheat
def gradients_in_bfloat16() -> Function:
    def gradients(tensors: list[Tensor], grad_output: Tensor) -> list[Tensor]:
        narrow = [t.bfloat16() if t.is_floating_point() else t for t in tensors]
        found = right_gradients(narrow, grad_output.bfloat16())
        return [found[0].float(), right_gradients(tensors, grad_output)[1], found[2].float()]

    return with_backward(gradients)
