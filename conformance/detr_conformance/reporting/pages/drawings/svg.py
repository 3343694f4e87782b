"""The few shapes that drawings are put together from; every text and attribute is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Drawing:
    """A picture with the words below it."""

    title: str
    svg: Markup
    caption: str = ""


def picture(width: float, height: float, label: str, parts: Iterable[Markup]) -> Markup:
    """The whole of a picture; `label` is what a screen reader says of it."""
    return element(
        "svg",
        Markup("").join(parts),
        class_="drawing",
        viewBox=f"0 0 {_short(width)} {_short(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )


def element(tag: str, content: str | Markup = "", **attributes: Any) -> Markup:
    """<tag class="..." x1="...">content</tag>; `class_` stands for class, an underscore for a hyphen."""
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{said}>{escape(content)}</{tag}>")


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, title: str = "") -> Markup:
    inside = element("title", title) if title else Markup("")
    return element("rect", inside, x=x, y=y, width=max(width, 0), height=max(height, 0), class_=class_)


def dot(x: float, y: float, radius: float, class_: str, title: str = "") -> Markup:
    inside = element("title", title) if title else Markup("")
    return element("circle", inside, cx=x, cy=y, r=radius, class_=class_)


def cross(x: float, y: float, radius: float, class_: str, title: str = "") -> Markup:
    """For what lies where it does not count; told from a dot without colours."""
    inside = element("title", title) if title else Markup("")
    a, b, c, d = (_short(value) for value in (x - radius, y - radius, x + radius, y + radius))
    return element("path", inside, d=f"M{a} {b}L{c} {d}M{a} {d}L{c} {b}", class_=class_)


def words(x: float, y: float, text: str, class_: str = "d-word", anchor: str = "start") -> Markup:
    return element("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"
    return str(value)
