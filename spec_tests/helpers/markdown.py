"""What a Markdown document holds: fenced blocks, anchors of its headings, links."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_INLINE = re.compile(r"(`+)[^`]+?\1")
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n)+")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [content for name, content in _FENCE.findall(text) if name == language]


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def anchors(document: Path) -> set[str]:
    """Of all headings; one that comes again is numbered."""
    seen = Counter[str]()
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", document.read_text(encoding="utf-8"))):
        plain = anchor(heading)
        found.add(f"{plain}-{seen[plain]}" if seen[plain] else plain)
        seen[plain] += 1
    return found


def links(text: str) -> list[str]:
    """Where the text links to, but for what stands in code."""
    prose = _INDENTED.sub("", _FENCE.sub("", text))
    return _LINK.findall(_INLINE.sub("code", prose))


def dead_links(document: Path, root: Path) -> Iterator[str]:
    """Relative links of a document that lead nowhere, or out of `root`."""
    for link in links(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        lost = not target.is_relative_to(root) or not target.exists()
        if lost or (fragment and (target.suffix != ".md" or fragment not in anchors(target))):
            yield link
