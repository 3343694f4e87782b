"""Values of a report as what they should be: a report may come from anywhere, and hold anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

Numbers = dict[tuple[str, str, str], float]  # (operation, device, dtype) -> number


def as_text(value: Any) -> str:
    """A scalar as text; what is none is only named, as it may be of any depth."""
    if value is None:
        return ""
    if isinstance(value, (str, int, float)):
        return str(value)
    return f"({type(value).__name__})"


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def as_texts(value: Any) -> list[str]:
    return [as_text(each) for each in as_list(value)]


def as_map(value: Any) -> dict[str, Any]:
    return {as_text(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else {}


def as_count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def as_number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def numbers(nested: Any) -> Numbers:
    """{operation: {device: {dtype: number}}} as one dict, without what is no number."""
    return {
        (operation, device, dtype): number
        for operation, devices in as_map(nested).items()
        for device, dtypes in as_map(devices).items()
        for dtype, value in as_map(dtypes).items()
        if (number := as_number(value)) is not None
    }


def places(nested: Any) -> Iterator[tuple[str, str, str]]:
    """(operation, device, dtype) of everything that was judged, whether it has a number or not."""
    for operation, devices in as_map(nested).items():
        for device, dtypes in as_map(devices).items():
            for dtype in as_map(dtypes):
                yield operation, device, dtype


def safe_link(address: Any) -> str | None:
    """An address that a page may link to: https, or a place beside the page; None for anything else."""
    text = as_text(address).strip()
    if not text or any(ord(sign) < 0x21 or sign == "\\" for sign in text):
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    if parts.scheme == "https" and parts.netloc:
        return text
    return text if not parts.scheme and not parts.netloc and not text.startswith("/") else None
