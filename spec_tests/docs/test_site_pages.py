"""Pages of the site: the navigation names what exists, the API covers every folder; and the strict build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from detr_conformance.evidence.clauses import load_chapters, load_clauses
from helpers.places import CHAPTERS, ROOT
from helpers.site import site_module

api_pages = site_module("api_pages")

needs_mkdocs = pytest.mark.skipif(
    not all(find_spec(name) for name in ("mkdocs", "material", "mkdocstrings")),
    reason="MkDocs is not installed; `make docs` installs it",
)
MADE = {"spec/index.md"}


def pages_of(nav: Any) -> Iterator[str]:
    match nav:
        case str():
            yield nav
        case list():
            for entry in nav:
                yield from pages_of(entry)
        case dict():
            yield from pages_of(list(nav.values()))


def navigation() -> list[str]:
    return list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))


def test_the_navigation_names_what_exists() -> None:
    for page in navigation():
        file = CHAPTERS / page.removeprefix("spec/") if page.startswith("spec/") else ROOT / "docs" / page
        assert page in MADE or file.is_file(), page


def test_the_navigation_names_every_guide_and_every_chapter_in_order() -> None:
    chapters = [f"spec/{chapter.file}" for chapter in load_chapters()]
    assert [page for page in navigation() if page.startswith("spec/")] == ["spec/index.md", *chapters]
    guides = {f"guides/{path.name}" for path in (ROOT / "docs" / "guides").glob("*.md")}
    assert {page for page in navigation() if page.startswith("guides/")} == guides


def test_every_folder_of_the_reference_has_a_page_and_every_module_is_on_one() -> None:
    folders = {path.parent.name for path in (ROOT / "reference" / "detr_reference").glob("*/__init__.py")}
    assert set(api_pages.topics()) == folders - {"commands"}
    assert set(api_pages.ORDER) <= folders
    for topic in api_pages.topics():
        assert api_pages.summary(topic)
        page = api_pages.topic_page(topic)
        for path in (ROOT / "reference" / "detr_reference" / topic).rglob("*.py"):
            name = path.relative_to(ROOT / "reference").with_suffix("").as_posix().replace("/", ".")
            if path.name != "__init__.py":
                assert page.count(f"::: {name}\n") == 1


def test_public_names_are_those_of_the_stub(tmp_path: Path) -> None:
    package = tmp_path / "reference" / "detr_reference"
    package.mkdir(parents=True)
    assert api_pages.public_names(tmp_path) == {}
    (package / "__init__.pyi").write_text(
        "from detr_reference.losses.matching import hungarian_matching as hungarian_matching\n"
        "from .losses.boxes import box_iou as box_iou\nfrom .detectors.dino import DINO as DINO\n"
    )
    assert api_pages.public_names(tmp_path) == {
        "losses": {
            "hungarian_matching": "detr_reference.losses.matching.hungarian_matching",
            "box_iou": "detr_reference.losses.boxes.box_iou",
        },
        "detectors": {"DINO": "detr_reference.detectors.dino.DINO"},
    }


def test_without_a_browser_nothing_is_looked_at() -> None:
    command = [sys.executable, str(ROOT / "docs" / "pages.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "there is no Chromium here, so nothing was looked at\n")


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@needs_mkdocs
def test_the_site_is_built_and_has_every_clause(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    for clause in load_clauses(retired=True).values():
        page = tmp_path / "site" / "spec" / clause.chapter.replace(".md", ".html")
        assert f'id="{clause.id}"' in page.read_text(encoding="utf-8")
        results = tmp_path / "site" / "results" / "clauses" / f"{clause.id}.html"
        assert results.is_file() == (clause.level != "retired")
    assert (tmp_path / "site" / "llms.txt").is_file()
    assert 'href="results/index.html"' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


@needs_mkdocs
def test_a_strict_build_finds_what_is_wrong(tmp_path: Path) -> None:
    for name in ("docs", "reference", "conformance", "spec_tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write("\n[a](guides/no-such.md) [b](guides/trust.md#no-such) [c](../no/such.py) [d](../README.md)\n")
        page.write("\n[e](examples/) [f](../conformance/detr_conformance/cli)\n")
        page.write('\n<img src="no-such.png">\n\nA list:\n- one\n')
    (tmp_path / "docs" / "guides" / "forgotten.md").write_text("# Forgotten\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    for fault in (
        "guides/no-such.md",
        "does not contain an anchor '#no-such'",
        "../no/such.py",
        "links to no-such.png: no such file",
        "docs/index.md: a list begins after a blank line",
        "guides/forgotten.md",
    ):
        assert fault in done.stderr, done.stderr
