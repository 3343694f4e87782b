"""Links of the built site that lead nowhere, whoever wrote them: a page, a template, a docstring."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The ids of a page and the addresses that it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.update(value for name in ("id", "name") if (value := values.get(name)))
        if href := values.get("href"):
            (self.links if tag == "a" else self.loads).append(href)
        if src := values.get("src"):
            self.loads.append(src)


def dead_links(site: Path) -> Iterator[str]:
    """A line for each link to a page or an anchor that is not there, and for each thing loaded from elsewhere."""
    pages = {path.relative_to(site).as_posix(): _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for name, page in pages.items():
        if name == "404.html":  # may be shown at any address, so that its links are absolute
            continue
        for load in page.loads:
            if urlsplit(load).scheme or load.startswith("//"):
                yield f"{name} loads {load}, which is not of the site"
        for link in dict.fromkeys([*page.links, *page.loads]):
            if fault := _fault(link, name, pages, site):
                yield f"{name} links to {link}: {fault}"


def _fault(link: str, name: str, pages: dict[str, _Page], site: Path) -> str | None:
    address = urlsplit(link)
    if address.scheme or address.netloc:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(address.path))) if address.path else name
    if not (site / path).is_file():
        return "no such file"
    anchor = unquote(address.fragment)
    if anchor and path in pages and anchor not in pages[path].ids and not anchor.startswith("__"):
        return "no such anchor"
    return None
