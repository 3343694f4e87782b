"""Links of a page, which lead to files of the repository, as links to what shows these files on the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator

from places import place_of

_LINK = re.compile(r"""\]\((?P<target>[^()\s]+)(?P<title>\s+"[^"]*")?\)""")
_FENCED = re.compile(r"^(?P<fence> *(?:```+|~~~+)).*?^(?P=fence)", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"L(\d+)(-L\d+)?")


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """The text with everything but its fenced blocks changed."""
    parts, end = [], 0
    for block in _FENCED.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block.group()]
        end = block.end()
    return "".join([*parts, change(markdown[end:])])


def without_fences(markdown: str) -> str:
    return _FENCED.sub("", markdown)


def linked_files(markdown: str, page: str) -> Iterator[str]:
    """The paths in the repository that a page, itself named by its path there, links to."""
    for link in _LINK.finditer(without_fences(markdown)):
        path, _ = _resolved(link["target"], page)
        if path is not None and place_of(path) is not None:
            yield path


def relinked(markdown: str, page: str) -> str:
    """The page with its links to files of the repository as MkDocs resolves them, from the place of the page.

    A line, as in `core.py#L12`, is that of the page which shows the file. What leads nowhere stays, and MkDocs says so.
    """
    here = place_of(page) or page

    def change(link: re.Match[str]) -> str:
        path, fragment = _resolved(link["target"], page)
        place = path and place_of(path)
        if not place:
            return link.group()
        line = _LINE.fullmatch(fragment)
        anchor = f"#__codelineno-0-{line[1]}" if line else fragment and f"#{fragment}"
        return f"]({posixpath.relpath(place, posixpath.dirname(here))}{anchor}{link['title'] or ''})"

    return outside_fences(markdown, lambda text: _LINK.sub(change, text))


def _resolved(target: str, page: str) -> tuple[str | None, str]:
    """(path in the repository, fragment) of a relative link; no path where it leads elsewhere or within the page."""
    path, _, fragment = target.partition("#")
    if not path or ":" in path or path.startswith("/"):
        return None, fragment
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)), fragment
