"""Lists that a page of a code host shows and MkDocs, whose Markdown is stricter, does not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from page_links import without_fences

_ITEM = re.compile(r"(?P<indent> *)(?:[-*+]|1\.) ")


def lost_lists(markdown: str) -> Iterator[str]:
    """A line for each list that begins without a blank line before it, or is not indented by four spaces a level."""
    before = ""
    for line in without_fences(markdown).splitlines():
        item = _ITEM.match(line)
        if item and len(item["indent"]) % 4:
            yield f"a list within a list is indented by four spaces: {line.strip()!r}"
        elif item and before.strip() and not before.startswith((" ", "#")) and not _ITEM.match(before):
            yield f"a list begins after a blank line: {line.strip()!r}"
        before = line
