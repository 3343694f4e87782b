"""Functions of JAX as functions of tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr_conformance.adapters.arrays import Arrays, adapted
from detr_conformance.adapters.numpy_arrays import array_of, dtype_of, tensor_of


def from_jax(
    function: Callable[..., Any], *, jit: bool = False, static: tuple[int, ...] = (), gradients: bool = True
) -> Callable[..., Any]:
    """`function`, which takes and returns arrays of JAX, as the suite calls it: with tensors.

    Gradients are those of `jax.vjp`. Arrays are copies. JAX has 64 bits only where it is told so: it is for calls in
    float64, and integers of other calls have 32. Keyword settings pass through.

    Args:
        function: returns an array, or a tuple or dict of them, as the operation has it.
        jit: compile the function and its pullback; `detr-spec check --shapes few` then keeps compilations few.
        static: places of arguments that the function takes as tuples of Python numbers, such as (1, 2) for the shapes
            and starts of levels; what is compiled is compiled anew for each.
        gradients: without them the function is forward only: its target says `features=()`.
    """

    @functools.cache
    def prepared(pulls: bool, settings: tuple[str, ...]) -> Callable[..., Any]:
        made = pullback if pulls else function
        if not jit:
            return made
        import jax

        return jax.jit(made, static_argnums=tuple(place + pulls for place in static), static_argnames=settings)

    @functools.wraps(function)
    def call(*positional: Any, **named: Any) -> Any:
        return prepared(False, _settings(named))(*_given(positional, static), **_named(named))

    def pull(gradient: Any, *positional: Any, **named: Any) -> Any:
        import jax

        return prepared(True, _settings(named))(
            jax.tree.map(_as_jax, gradient), *_given(positional, static), **_named(named)
        )

    def pullback(gradient: Any, *positional: Any, **named: Any) -> Any:
        return _pulled_back(function, gradient, positional, named)

    return adapted(call, pull if gradients else None, Arrays(array_of, _tensor_of, dtype_of, _width))


def _pulled_back(
    function: Callable[..., Any], gradient: Any, positional: Sequence[Any], named: Mapping[str, Any]
) -> list[Any]:
    """Gradients of all arrays, None of integer ones, from those of the floating outputs."""
    import jax

    given: dict[Any, Any] = {**dict(enumerate(positional)), **named}

    def outputs(floating: dict[Any, Any]) -> list[Any]:
        filled = {**given, **floating}
        result = function(
            *(filled[place] for place in range(len(positional))), **{name: filled[name] for name in named}
        )
        return [each for each in jax.tree.leaves(result) if _is_floating(each)]

    floating = {key: each for key, each in given.items() if _is_floating(each)}
    keys = list(floating)
    _, back = jax.vjp(lambda values: outputs(dict(zip(keys, values, strict=True))), list(floating.values()))
    (found,) = back(jax.tree.leaves(gradient))  # without the None of integer outputs
    pulled = dict(zip(keys, found, strict=True))
    return [pulled.get(key) for key, each in given.items() if not isinstance(key, str) or isinstance(each, jax.Array)]


def _is_floating(each: Any) -> bool:
    import jax

    return isinstance(each, jax.Array) and jax.numpy.issubdtype(each.dtype, jax.numpy.floating)


def _as_jax(array: Any) -> Any:
    """A copy: JAX computes later, and what it was given may have changed by then."""
    import jax

    return jax.numpy.array(array, copy=True)


def _given(positional: Sequence[Any], static: tuple[int, ...]) -> list[Any]:
    return [_numbers(each.tolist()) if place in static else _as_jax(each) for place, each in enumerate(positional)]


def _numbers(nested: Any) -> Any:
    return tuple(map(_numbers, nested)) if isinstance(nested, list) else nested


def _named(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _as_jax(each) if isinstance(each, np.ndarray) else each for name, each in named.items()}


def _settings(named: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, each in named.items() if not isinstance(each, np.ndarray))


def _tensor_of(array: Any) -> Tensor:
    """A copy, as JAX's own memory is never written to; integers that were narrowed are wide again."""
    import jax

    tensor = tensor_of(array)
    return tensor.long() if tensor.dtype == torch.int32 and not jax.config.jax_enable_x64 else tensor


def _width(tensors: Sequence[Tensor], settings: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """64 bits for a call in float64."""
    import jax

    wide = any(each.dtype == torch.float64 for each in tensors) or torch.float64 in settings.values()
    return jax.enable_x64(True) if wide else nullcontext()
