"""Docstrings in Markdown: the formula that one begins with is code; chapters and clauses are links."""

from __future__ import annotations

import re
from functools import cache

from clause_anchors import with_mentions
from places import ROOT, SPEC

from detr_conformance.evidence.clauses import load_chapters

_SIGN = re.compile(r" (=|<-|->|[*/+-]) |\||\^|\{")
_CHAPTER = re.compile(r"(?:spec )?[Cc]hapter (\d\d)\b")
# `m*D` is a product and not the beginning of emphasis; in code it is one anyway.
_PRODUCT = re.compile(r"`[^`\n]+`|(?<=[\w)\]])(\*)(?=[\w(\[])")
_SEVERAL = re.compile(r"^ +\w+(?:, \w+)+:", re.MULTILINE)
_PAGE = "api/any.md"  # all pages of the API lie in one folder


def shown(docstring: str) -> str:
    """The docstring in Markdown, in whose sections one entry may stand for several arguments."""
    first, gap, rest = docstring.partition("\n\n")
    head = f"```{{ .text .formula }}\n{first}\n```" if is_formula(first) else _linked(first)
    return head + gap + _SEVERAL.sub(lambda names: names[0].replace(", ", ",\N{NO-BREAK SPACE}"), _linked(rest))


def is_formula(paragraph: str) -> bool:
    """Whether it has a sign and is no sentence: it ends without a period, and defines something or begins small."""
    if paragraph.endswith((".", ":")) or not _SIGN.search(paragraph):
        return False
    return " = " in paragraph or not paragraph[0].isupper()


def _linked(text: str) -> str:
    places, files = _chapters()
    text = _PRODUCT.sub(lambda found: r"\*" if found[1] else found[0], text)
    text = _CHAPTER.sub(lambda found: f"[{found[0]}](../{files[found[1]]})" if found[1] in files else found[0], text)
    return with_mentions(text, _PAGE, places)


@cache
def _chapters() -> tuple[dict[str, str], dict[str, str]]:
    """(id of a clause -> place of its chapter, number of a chapter -> its place)"""
    chapters = load_chapters(ROOT / SPEC)
    places = {clause.id: f"spec/{chapter.file}" for chapter in chapters for clause in chapter.clauses}
    return places, {chapter.file[:2]: f"spec/{chapter.file}" for chapter in chapters}
