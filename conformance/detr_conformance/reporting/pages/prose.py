"""Markdown of the chapters and of reports as HTML: no HTML of its own, no picture, no link but to https."""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from detr_conformance.reporting.pages.plain import safe_link


def prose(markdown: str) -> Markup:
    """Paragraphs, lists, tables and code; chapters are not beside a page, so that links into them are words."""
    reader = _reader()
    tokens = reader.parse(markdown)
    for token in tokens:
        if token.children:
            token.children = _harmless(token.children)
    return Markup(reader.renderer.render(tokens, reader.options, {}))


@cache
def _reader() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _harmless(tokens: list[Token]) -> list[Token]:
    kept: list[Token] = []
    opened: list[bool] = []
    for token in tokens:
        if token.type == "image":
            kept.append(Token("text", "", 0, content=token.content))
            continue
        if token.type == "link_open":
            address = safe_link(token.attrGet("href"))
            opened.append(address is not None and address.startswith("https:"))
            token.attrSet("rel", "noreferrer")
        if token.type in ("link_open", "link_close") and not (opened[-1] if opened else False):
            if token.type == "link_close" and opened:
                opened.pop()
            continue
        if token.type == "link_close":
            opened.pop()
        kept.append(token)
    return kept
