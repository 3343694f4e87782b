"""TOML text of plain values; the standard library reads TOML, but does not write it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def toml_text(values: Mapping[str, Any]) -> str:
    """Values first, then a section for each mapping; `tomllib.loads` gives the same values back.

    Args:
        values: strings, numbers, booleans, lists of them, and mappings of these; names are plain words.

    Raises:
        TypeError: a value is something else.
    """
    head = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    sections = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    blocks = [_lines(head), *(f"[{name}]\n{_lines(section)}" for name, section in sections.items())]
    return "\n".join(block for block in blocks if block)


def _lines(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):  # JSON's escapes are TOML's, but for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"TOML text of a {type(value).__name__} is not known: {value!r}")
