"""Arguments and results as JSON: tensors by their names, settings and containers as what they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from detr_conformance.isolation.wire import WireError
from detr_conformance.operations import OPERATIONS, resolve

DEEPEST = 20


def encode(value: Any, name_of: Callable[[Tensor], Any], depth: int = 0) -> Any:
    """A value as JSON; `name_of` says what to write for a tensor."""
    if depth > DEEPEST:
        return {"other": "something nested too deeply"}

    def inner(each: Any) -> Any:
        return encode(each, name_of, depth + 1)

    if isinstance(value, Tensor):
        return {"tensor": name_of(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"dict": [[str(key), inner(each)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [inner(each) for each in value]}
    if isinstance(value, list):
        return {"list": [inner(each) for each in value]}
    return {"other": type(value).__name__}


def decode(coded: Any, tensor_of: Callable[[Any], Tensor]) -> Any:
    """The value again. Of what is neither tensor nor setting only the name of the type comes through."""
    if isinstance(coded, list):
        raise WireError("a list must say that it is one")
    if not isinstance(coded, dict):
        return coded
    ((kind, content),) = coded.items()
    match kind:
        case "tensor":
            return tensor_of(content)
        case "float":
            return float(content)
        case "dtype":
            return getattr(torch, content)
        case "dict":
            return {key: decode(each, tensor_of) for key, each in content}
        case "tuple":
            return tuple(decode(each, tensor_of) for each in content)
        case "list":
            return [decode(each, tensor_of) for each in content]
        case "other":
            return type(str(content), (), {})()
    raise WireError(f"unknown kind of value {kind!r}")


def encode_config(operation: str, config: Any) -> dict[str, Any]:
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: encode(value, _no_tensor) for name, value in fields.items()} | {"": operation}


def decode_config(coded: Mapping[str, Any]) -> Any:
    """The operation's configuration, from its module that takes no torch."""
    path = OPERATIONS[coded[""]].config
    assert path is not None
    return resolve(path)(**{name: decode(value, _no_tensor) for name, value in coded.items() if name})


def _no_tensor(_: Any) -> Any:
    raise WireError("a configuration holds no tensors")
