"""Docstrings as the site shows them: the formula that one begins with is code, clauses and the source are links."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from clause_anchors import with_mentions
from places import ROOT, place_of

from detr_conformance.evidence.clauses import load_chapters

_SIGN = re.compile(r" (=|<-|->|[*/+-]) |\||\^|\{")
_CHAPTER = re.compile(r"(?:spec )?[Cc]hapter (\d\d)\b")
_PRODUCT = re.compile(r"(?<=[\w)\]])\*(?=[\w(\[])")
_SEVERAL = re.compile(r"^ +\w+(?:, \w+)+:", re.MULTILINE)
_PAGE = "api/any.md"  # all pages of the API lie in one folder


class Docstrings(griffe.Extension):
    """Changes each docstring once all modules are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = f"{_source(obj)}\n\n{shown(obj.docstring.value)}"


def shown(docstring: str) -> str:
    """The docstring in Markdown."""
    first, gap, rest = docstring.partition("\n\n")
    head = f"```{{ .text .formula }}\n{first}\n```" if is_formula(first) else _linked(first)
    return head + gap + _SEVERAL.sub(lambda names: names[0].replace(", ", ",\N{NO-BREAK SPACE}"), _linked(rest))


def _source(obj: griffe.Object) -> str:
    """A link to the lines that the docstring stands in."""
    path = Path(str(obj.filepath)).relative_to(ROOT).as_posix()
    line = "" if obj.is_module else f"#__codelineno-0-{obj.lineno}"
    return f"[source](../{place_of(path)}{line}){{ .source }}"


def is_formula(paragraph: str) -> bool:
    """Whether it has a sign and is no sentence: it ends without a period, and defines something or begins small."""
    if paragraph.endswith((".", ":")) or not _SIGN.search(paragraph):
        return False
    return " = " in paragraph or not paragraph[0].isupper()


def _linked(text: str) -> str:
    """Chapters and clauses as links, and `m*D` as a product instead of the beginning of emphasis."""
    places, files = _chapters()
    text = _PRODUCT.sub(r"\*", text)
    text = _CHAPTER.sub(lambda found: f"[{found[0]}](../{files[found[1]]})" if found[1] in files else found[0], text)
    return with_mentions(text, _PAGE, places)


@cache
def _chapters() -> tuple[dict[str, str], dict[str, str]]:
    """(id of a clause -> place of its chapter, number of a chapter -> its place)"""
    chapters = load_chapters()
    places = {clause.id: f"spec/{chapter.file}" for chapter in chapters for clause in chapter.clauses}
    return places, {chapter.file[:2]: f"spec/{chapter.file}" for chapter in chapters}
