"""A dataclass from plain values, such as a TOML file has: names and types checked, with an error that helps."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

NONE = "none"  # TOML has no null; a field that may be None can be given this word, or left out
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def read_fields(kind: type[T], values: Mapping[str, Any], place: str) -> T:
    """kind(**values), lists as tuples, "none" as None where a field may be None.

    Args:
        kind: a dataclass with fields of int, float, bool, str, tuples of these, other dataclasses, and any or None.
        place: where the values stand, for messages: "model" makes them speak of "model.num_queries".

    Raises:
        ValueError: a name is unknown, a field without default is missing, a value has the wrong type or is not
            finite, or the dataclass refuses it.
    """
    check_names(values, (field.name for field in fields(kind)), place)  # type: ignore[arg-type]
    missing = [f.name for f in fields(kind) if f.name not in values and _needed(f)]  # type: ignore[arg-type]
    if missing:
        raise ValueError(f"{dotted(place, missing[0])} is missing")
    hints = get_type_hints(kind)
    given = {name: _converted(value, hints[name], dotted(place, name)) for name, value in values.items()}
    try:
        return kind(**given)
    except ValueError as error:
        raise ValueError(f"{place}: {error}" if place else str(error)) from error


def check_names(values: Iterable[str], known: Iterable[str], place: str) -> None:
    """Raises:
    ValueError: one of the names is not known; the message names the close ones, or all.
    """
    names = list(known)
    for name in values:
        if name not in names:
            raise ValueError(f"{dotted(place, name)} is unknown; {hint(name, names)}")


def hint(name: str, names: Iterable[str]) -> str:
    """What a name that is unknown may have been meant to be."""
    close = difflib.get_close_matches(name, known := list(names), n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"


def dotted(place: str, name: str) -> str:
    """`place.name`, as one writes it in --set."""
    return f"{place}.{name}" if place else name


def _needed(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _converted(value: Any, hint: Any, name: str) -> Any:
    options = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
    if types.NoneType in options and (value is None or value == NONE):
        return None
    expected = next(option for option in options if option is not types.NoneType)
    if get_origin(expected) is tuple:
        return _tuple(value, get_args(expected), name)
    return _single(value, expected, name)


def _tuple(value: Any, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} must be a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ValueError(f"{name} must be a list of {len(kinds)}, got {len(value)}: {list(value)}")
    return tuple(_single(each, kind, f"{name}[{i}]") for i, (each, kind) in enumerate(zip(value, kinds, strict=True)))


def _single(value: Any, kind: Any, name: str) -> Any:
    """A whole number is a number too, but true is neither."""
    if isinstance(kind, type) and is_dataclass(kind):
        return value if isinstance(value, kind) else _section(value, kind, name)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} must be {_NAMES[kind]}, got {value!r}")
    if kind is not float:
        return value
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value}")
    return number


def _section(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a section [{name}], got {value!r}")
    return read_fields(kind, value, name)
