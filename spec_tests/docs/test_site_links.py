"""Links of the site: written for the repository, they lead to pages; and a dead one is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.places import ROOT
from helpers.site import site_module

places = site_module("places")
page_links = site_module("page_links")
dead_links = site_module("dead_links").dead_links
lost_lists = site_module("portable").lost_lists
source_pages = site_module("source_pages")

CHAPTER = "reference/detr_reference/spec/19-dino.md"
GUIDE = "docs/guides/measure.md"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("docs/index.md", "index.md"),
        ("README.md", "index.md"),
        ("docs/guides/", "index.md"),
        (CHAPTER, "spec/19-dino.md"),
        ("reference/detr_reference/spec", "spec/index.md"),
        ("reference/detr_reference/spec/pictures/matching.png", "spec/pictures/matching.png"),
        ("reference/detr_reference/losses/", "api/losses.md"),
        ("reference/detr_reference", "api/index.md"),
        ("reference/detr_reference/losses/boxes.py", "source/reference/detr_reference/losses/boxes.py.md"),
        ("docs/runs/full-size.json", "source/docs/runs/full-size.json"),
        ("CHANGELOG.md", "source/CHANGELOG.md"),
        ("Makefile", "source/Makefile.md"),
        ("spec_tests/helpers", "source/spec_tests/helpers/index.md"),
        ("no/such/file.py", None),
        ("../outside.md", None),
    ],
)
def test_every_file_has_a_place(path: str, place: str | None) -> None:
    assert places.place_of(path) == place


@pytest.mark.parametrize(
    ("page", "link", "shown"),
    [
        (CHAPTER, "[x](../detectors/dino.py)", "[x](../source/reference/detr_reference/detectors/dino.py.md)"),
        (CHAPTER, "[`x`](../detectors/)", "[`x`](../api/detectors.md)"),
        (CHAPTER, "[x](17-detr.md#clauses)", "[x](17-detr.md#clauses)"),
        (CHAPTER, "![x](pictures/dino-stages.png)", "![x](pictures/dino-stages.png)"),
        (CHAPTER, "[x](../../../docs/runs/full-size.json)", "[x](../source/docs/runs/full-size.json)"),
        (GUIDE, "[x](../../README.md)", "[x](../index.md)"),
        (GUIDE, f"[x](../../{CHAPTER}#the-ablation)", "[x](../spec/19-dino.md#the-ablation)"),
        (GUIDE, '[x](../../Makefile "title")', '[x](../source/Makefile.md "title")'),
        (GUIDE, "[x](../../docs/pages.py#L12)", "[x](../source/docs/pages.py.md#__codelineno-0-12)"),
        (GUIDE, "[![a](../runs/bench.png)](../runs/full-size.json)", None),
        (GUIDE, "[x](https://example.org/a.md)", "[x](https://example.org/a.md)"),
        (GUIDE, "[x](#part)", "[x](#part)"),
        (GUIDE, "[x](no-such-file.md)", "[x](no-such-file.md)"),
        (GUIDE, "```\n[x](../../Makefile)\n```", "```\n[x](../../Makefile)\n```"),
        (GUIDE, "  ```\n  [x](../../Makefile)\n  ```\n", "  ```\n  [x](../../Makefile)\n  ```\n"),
    ],
)
def test_a_link_leads_to_the_page_that_shows_the_file(page: str, link: str, shown: str | None) -> None:
    expected = shown or "[![a](../source/docs/runs/bench.png)](../source/docs/runs/full-size.json)"
    assert page_links.relinked(link, page) == expected


def test_linked_files_are_those_of_the_repository() -> None:
    text = "[a](../detectors/dino.py) [b](no.py) [c](https://example.org) [d](#e)\n```\n[f](../cli.py)\n```\n"
    assert list(page_links.linked_files(text, CHAPTER)) == ["reference/detr_reference/detectors/dino.py"]


def test_every_link_of_a_chapter_has_a_place() -> None:
    for chapter in sorted((ROOT / places.SPEC).glob("*.md")):
        text = page_links.without_fences(chapter.read_text(encoding="utf-8"))
        for link in page_links._LINK.finditer(text):
            path, _, _ = link["target"].partition("#")
            if path.startswith("../"):
                assert places.place_of(f"{places.SPEC}/{path}"), f"{chapter.name} links to {path}"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site without a fault."""
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="a/b.html#here">b</a><img src="a/c.png"><a href="https://e.org">e</a>'
    )
    (tmp_path / "a" / "b.html").write_text('<p id="here"><a href="../index.html">start</a><a href="#here">here</a>')
    (tmp_path / "a" / "c.png").touch()
    return tmp_path


def test_a_site_without_dead_links(site: Path) -> None:
    assert list(dead_links(site)) == []


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="a/d.html">', "index.html links to a/d.html: no such file"),
        ('<a href="a/b.html#there">', "index.html links to a/b.html#there: no such anchor"),
        ('<a href="#there">', "index.html links to #there: no such anchor"),
        ('<a href="a">', "index.html links to a: no such file"),
        ('<img src="d.png">', "index.html links to d.png: no such file"),
        ('<script src="https://e.org/x.js"></script>', "index.html loads https://e.org/x.js, which is not of the site"),
        ('<link href="//e.org/x.css">', "index.html loads //e.org/x.css, which is not of the site"),
    ],
)
def test_a_dead_link_is_found(site: Path, html: str, fault: str) -> None:
    (site / "index.html").write_text(html)
    assert list(dead_links(site)) == [fault]


def test_a_list_that_would_be_lost_is_found() -> None:
    good = "A text:\n\n- one\n- two\n  goes on\n\n    - within\n\n1. one\n2. two\n"
    assert list(lost_lists(good)) == []
    assert len(list(lost_lists("A text:\n- one\n- two\n"))) == 1
    assert len(list(lost_lists("- one\n  - within\n"))) == 1
    assert list(lost_lists("```\ntext\n- no list\n```\n")) == []


def test_a_source_page_shows_the_file_whatever_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""\n```\n"""\n')
    page = source_pages.source_page("a.py", tmp_path)
    assert '```` { .python linenums="1" }\n"""\n```\n"""\n````\n' in page


def test_a_folder_page_links_to_what_the_site_shows() -> None:
    shown = {"source/docs/examples/ported_dino.py.md"}
    page = source_pages.folder_page("docs/examples", shown)
    assert "- [`ported_dino.py`](ported_dino.py.md)" in page
    assert "- `grid_sample_kernel.py`" in page
