"""What MkDocs calls while it builds the site, see `mkdocs.yml`.

Pages that are no files of docs/ are made here: chapters, the API, sources that a page links to, the results, llms.txt.
Links of pages lead to files of the repository, so that they also work where it is hosted; on the site they lead to
pages.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from api_pages import TARGET, index_page, modules, summary, target_page, title, topic_page, topics
from clause_anchors import with_anchors, with_mentions
from dead_links import dead_links
from llms_index import llms_txt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation
from mkdocs.structure.pages import Page
from page_links import linked_files, relinked
from places import FRONT, RAW, ROOT, SPEC, place_of
from portable import lost_lists
from results import FOLDER, result_pages
from source_pages import folder_page, source_page
from spec_index import spec_index

from detr_conformance.evidence.clauses import load_chapters

log = logging.getLogger("mkdocs.hooks.detr_spec")

CHAPTERS = load_chapters(ROOT / SPEC)
CHAPTER_OF = {clause.id: f"spec/{chapter.file}" for chapter in CHAPTERS for clause in chapter.clauses}
# Place on the site -> path in the repository, of pages that are written by hand.
WRITTEN: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The section of the API in the navigation, and the imports of the extension that changes docstrings."""
    sys.path.insert(0, str(Path(__file__).parent))
    pages = ["index", *topics(), TARGET]
    config.nav = [*(config.nav or ()), {"API": [f"api/{page}.md" for page in pages]}]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """All files of the site."""
    texts = {
        "spec/index.md": spec_index(CHAPTERS),
        "api/index.md": index_page(),
        f"api/{TARGET}.md": target_page(),
        **{f"api/{topic}.md": topic_page(topic) for topic in topics()},
    }
    for place, text in texts.items():
        files.append(File.generated(config, place, content=text))
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages() if (ROOT / "docs" / file.src_uri).is_file()]
    chapters = [f"{SPEC}/{chapter.file}" for chapter in CHAPTERS]
    sources = [path for topic in topics() for path in modules(topic)]
    reached = list(_reached([*pages, *chapters, *sources, "conformance/detr_conformance/target.py"]))
    shown = {place for path in reached if (place := place_of(path))}
    for path in reached:
        _add(path, files, config, shown)
    files.append(File.generated(config, "llms.txt", content=_llms_txt(pages, config.site_description)))
    for place, text in result_pages(CHAPTERS).items():
        files.append(File.generated(config, place, content=text))
    return files


def on_nav(nav: Navigation, *, config: MkDocsConfig, files: Files) -> Navigation:
    """The results stand behind the specification; they are no pages of MkDocs, but a site of their own."""
    place = f"{FOLDER}/index.html"
    if files.get_file_from_path(place) is not None:
        nav.items.insert(3, Link("Results", place))
    return nav


def _reached(paths: list[str]) -> Iterator[str]:
    """These files of the repository, and all that one comes to by the links of those that are pages."""
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        if path not in seen and path not in FRONT:
            seen.add(path)
            yield path
            if path.endswith(".md"):
                paths += linked_files((ROOT / path).read_text(encoding="utf-8"), path)


def _add(path: str, files: Files, config: MkDocsConfig, shown: set[str]) -> None:
    place = place_of(path)
    if place is None:
        return
    if path.endswith(".md"):
        WRITTEN[place] = path
    if files.get_file_from_path(place) is not None:
        return
    if (ROOT / path).is_dir():
        files.append(File.generated(config, place, content=folder_page(path, shown)))
    elif path.endswith((".md", *RAW)):
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    else:
        files.append(File.generated(config, place, content=source_page(path)))


def _llms_txt(pages: list[str], what: str | None) -> str:
    order = sorted(pages, key=lambda path: (path != "docs/index.md", path))
    documents = {
        "Guides": [(_title(path), _address(path), "") for path in order],
        "Chapters": [(chapter.title, _address(f"{SPEC}/{chapter.file}"), "") for chapter in CHAPTERS],
        "API": [(title(topic), f"api/{topic}.html", summary(topic)) for topic in topics()]
        + [("Target", f"api/{TARGET}.html", "what an implementation under test says of itself")],
    }
    return llms_txt(what or "", documents, CHAPTERS)


def _title(path: str) -> str:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), path)


def _address(path: str) -> str:
    return f"{(place_of(path) or path).removesuffix('.md')}.html"


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Pages that are written by hand, with their links and with the ids of clauses."""
    place = page.file.src_uri
    path = WRITTEN.get(place)
    if path is None:
        return markdown
    for fault in lost_lists(markdown):
        log.warning(f"{path}: {fault}")
    if place == "index.md":
        page.meta.setdefault("hide", ["navigation"])  # it would be the only entry
    if place.startswith("source/"):
        page.meta["search"] = {"exclude": True}  # as all that is shown for the sake of a link
    if path.startswith(f"{SPEC}/"):
        markdown = with_anchors(markdown)
    return with_mentions(relinked(markdown, path), place, CHAPTER_OF)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Every dead link is a warning, which a strict build does not pass."""
    for fault in dead_links(Path(config.site_dir)):
        log.warning(fault)
