"""Ids of clauses: each clause is a place that can be linked to, and where it is spoken of, its id is such a link."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from page_links import outside_fences

_CLAUSE = re.compile(r"^\*\*([A-Z]+-[1-9]\d*) \(", re.MULTILINE)
# An id stays as it is in indented code and headings, in code, in a link or what it has in braces, and in a tag.
_MENTION = re.compile(
    r"^ {4}.*$|^#.*$"
    r"|`[^`\n]+`"
    r"|!?\[(?:[^\[\]]|\[[^\]]*\])*\]\([^)]*\)(?:\{[^}\n]*\})?"
    r"|<[^>\n]+>"
    r"|(?<![\w-])([A-Z]+-[1-9]\d*)(?![\w-])",
    re.MULTILINE,
)


def with_anchors(chapter: str) -> str:
    """The chapter with the id of each clause as its anchor: `#MSDA-7`."""
    return outside_fences(chapter, lambda text: _CLAUSE.sub(r"**[\1](#\1){ #\1 .clause } (", text))


def with_mentions(markdown: str, place: str, chapters: Mapping[str, str]) -> str:
    """The page with each id of a clause as a link to it.

    Args:
        markdown: the page, with the anchors of its own clauses.
        place: where it stands on the site.
        chapters: id of a clause -> place of its chapter.
    """

    def change(found: re.Match[str]) -> str:
        chapter = chapters.get(found[1] or "")
        if chapter is None:
            return found.group()
        to_chapter = "" if chapter == place else posixpath.relpath(chapter, posixpath.dirname(place))
        return f"[{found[1]}]({to_chapter}#{found[1]})"

    return outside_fences(markdown, lambda text: _MENTION.sub(change, text))
