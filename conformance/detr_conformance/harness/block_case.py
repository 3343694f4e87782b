"""Cases of any operation but the sampling core: inputs, parameters and settings of one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.case import PARAMETER, TORCH_DTYPES, Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.packing import Shapes, packed, shapes_of
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import OPERATIONS, resolve


def block_case(
    subject: Subject,
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor] | None = None,
    settings: Mapping[str, Any] | None = None,
    note: str = "",
) -> Case:
    """A call of the subject's operation, in the claimed dtype, with a random gradient of its output.

    Args:
        inputs: tensors of the call by name; those that are left out are not given.
        parameters: the module's parameters under the reference's names.
        settings: fields of a module's configuration, or keyword settings of a function; defaults may be left out.
    """
    tensors = {**inputs, **{PARAMETER + name: tensor for name, tensor in (parameters or {}).items()}}
    dtype = TORCH_DTYPES[subject.dtype]
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    case = Case(tensors, note=note, options={name: json.dumps(value) for name, value in (settings or {}).items()})
    return _with_grad_output(subject, case)


def settings_of(case: Case) -> dict[str, Any]:
    """Configuration fields or keyword settings; lists become tuples, as dataclasses want them."""
    values = {name: json.loads(text) for name, text in case.options.items()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def config_of(operation: str, case: Case) -> Any:
    """The reference's configuration for a module."""
    config = OPERATIONS[operation].config
    if config is None:
        raise ValueError(f"{operation} is a function and has no configuration")
    return resolve(config)(**settings_of(case))


def parameters_of(case: Case) -> dict[str, Tensor]:
    return {name.removeprefix(PARAMETER): t for name, t in case.tensors.items() if name.startswith(PARAMETER)}


def with_parameters(case: Case, **changes: Tensor) -> Case:
    """The case with some parameters replaced; a name is written with "__" for "."."""
    renamed = {PARAMETER + name.replace("__", "."): tensor for name, tensor in changes.items()}
    for name, tensor in renamed.items():
        if name not in case.tensors or case[name].shape != tensor.shape:
            raise ValueError(f"the case has no {name} of shape {tuple(tensor.shape)}")
    return case.having(**{name: tensor.to(case[name].dtype) for name, tensor in renamed.items()})


def with_settings(subject: Subject, case: Case, **changes: Any) -> Case:
    """The case with other settings, under which its parameters must still fit."""
    options = case.options | {name: json.dumps(value) for name, value in changes.items()}
    return _with_grad_output(subject, replace(case, options=options))


def inputs_of(operation: str, case: Case) -> dict[str, Tensor]:
    """The tensors of the call, in the order of the signature; optional ones may be left out."""
    return {name: case[name] for name in OPERATIONS[operation].inputs if name in case.tensors}


def reference_callable(operation: str, case: Case, dtype: torch.dtype) -> Callable[..., Tensor]:
    """The reference with the case's parameters and settings, in evaluation mode."""
    entry = OPERATIONS[operation]
    made = resolve(entry.reference)
    if entry.kind == "module":
        parameters = {name: tensor.to(dtype) for name, tensor in parameters_of(case).items()}
        module: nn.Module = made(config_of(operation, case), parameters)
        return module.eval()
    settings = function_settings(operation, case, dtype)
    return lambda *tensors, **named: made(*tensors, **named, **settings)


def function_settings(operation: str, case: Case, dtype: torch.dtype) -> dict[str, Any]:
    """Keyword settings of a function; where it makes its tensors itself, the dtype too."""
    settings = settings_of(case)
    return settings | {"dtype": dtype} if "dtype" in OPERATIONS[operation].settings else settings


def call_with(operation: str, made: Callable[..., Any], inputs: Mapping[str, Tensor]) -> Any:
    """Calls a module by name, a function in the order of its signature; behind a tensor left out by name too."""
    if OPERATIONS[operation].kind == "module":
        return made(**inputs)
    ordered = list(takewhile(inputs.__contains__, OPERATIONS[operation].inputs))
    named = {name: tensor for name, tensor in inputs.items() if name not in ordered}
    return made(*(inputs[name] for name in ordered), **named)


def trained(operation: str, case: Case) -> frozenset[str]:
    """The parameters of the case that the reference trains: no buffers, nothing frozen."""
    if OPERATIONS[operation].kind == "function":
        return frozenset()
    return _trained(operation, json.dumps(sorted(case.options.items())))


@cache
def _trained(operation: str, options: str) -> frozenset[str]:
    case = Case({}, options=dict(json.loads(options)))
    with torch.random.fork_rng(devices=[]):
        module = resolve(OPERATIONS[operation].reference)(config_of(operation, case))
    return frozenset(name for name, parameter in module.named_parameters() if parameter.requires_grad)


def _with_grad_output(subject: Subject, case: Case) -> Case:
    key = _decides_shapes(subject.operation, case)
    if key not in _shapes:
        _shapes[key] = _shapes_of_output(subject.operation, case)
    joined, shapes = _shapes[key]
    fill = Filler(subject.dtype, subject.settings.seed, "grad_output", case.note, sorted(case.options.items()))
    grad_output = fill.normal(*joined).to(fill.dtype)
    return replace(case.having(grad_output=grad_output), shapes=dict(shapes) if shapes is not None else None)


_shapes: dict[tuple[Any, ...], tuple[tuple[int, ...], Shapes | None]] = {}


def _shapes_of_output(operation: str, case: Case) -> tuple[tuple[int, ...], Shapes | None]:
    """Of the joined output, and of each where there are several."""
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in inputs_of(operation, case).items()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = call_with(operation, reference_callable(operation, case, torch.float64), inputs)
    shapes = shapes_of(output) if isinstance(output, Mapping) else None
    return tuple(packed(output, shapes).shape), shapes


def _decides_shapes(operation: str, case: Case) -> tuple[Any, ...]:
    """Settings, shapes, and the contents of what is no floating number."""
    tensors = (
        (n, t.shape, None if t.is_floating_point() else (t.dtype, repr(t.tolist()))) for n, t in case.tensors.items()
    )
    return operation, tuple(sorted(case.options.items())), tuple(tensors)
