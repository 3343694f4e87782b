"""Every relative link and anchor of the documents and chapters leads somewhere; and the gate, shown to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.markdown import dead_links, links
from helpers.places import CHAPTERS, ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *CHAPTERS.glob("*.md")]


@pytest.mark.parametrize("document", sorted(DOCUMENTS), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    assert list(dead_links(document, ROOT)) == []


def test_the_documents_are_those_that_are_expected() -> None:
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/guides/check-a-kernel.md"} <= names
    assert sum(len(links(path.read_text(encoding="utf-8"))) for path in DOCUMENTS) > 300


def test_every_guide_is_linked_from_the_readme_and_from_the_index() -> None:
    for start in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        linked = {(start.parent / link).resolve() for link in links(start.read_text(encoding="utf-8"))}
        assert set((ROOT / "docs" / "guides").glob("*.md")) <= linked, start.name


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("other.md", False),
        ("other.md#a-heading-of-two-tests", False),
        ("other.md#twice-1", False),
        ("#here", False),
        ("folder", False),
        ("https://example.org/nothing#at-all", False),
        ("another.md", True),
        ("other.md#another-heading", True),
        ("other.md#twice-2", True),
        ("other.md#in-a-block", True),
        ("#there", True),
        ("../outside.md", True),
    ],
)
def test_a_dead_link_is_found(tmp_path: Path, link: str, dead: bool) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "outside.md").touch()
    (root / "other.md").write_text("# A heading, of `two` tests\n\n## Twice\n\n## Twice\n\n```sh\n# In a block\n```\n")
    document = root / "document.md"
    document.write_text(f"## Here\n\n[a `link`]({link}) and `[no link](nowhere.md)`\n\n```text\n[none](nowhere)\n```\n")
    assert list(dead_links(document, root)) == [link] * dead
