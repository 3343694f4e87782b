"""Chapters are read into clauses, and the sources into a catalogue of tests and mutants."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_conformance.evidence.catalogue import CatalogueError, covering_tests, mutants
from detr_conformance.evidence.clauses import ClauseError, load_chapters, load_clauses, parse_chapter

CHAPTER = """# 1. A chapter

Prose with **bold** in it.

**AB-2 (MUST).** First sentence, over
two lines. Second sentence.

*Why.* Because.
*Source.* A paper. *Divergences.* One library.

  - an indented item

Prose that belongs to nothing.

**AB-10 (SHOULD, feature `backward`) A title.** Text with code:

```
**AB-99 (MUST).** not a clause

still the block
```

**AB-3 (retired).** Replaced by AB-2.
## Heading
**AB-1 (MUST) Last.** The end.
"""


@pytest.fixture
def chapters(tmp_path: Path) -> Path:
    (tmp_path / "01-first.md").write_text(CHAPTER)
    (tmp_path / "README.md").write_text("**AB-7 (MUST).** Not a chapter.")
    return tmp_path


def test_clauses_are_found_and_ordered_naturally(chapters: Path) -> None:
    assert list(load_clauses(chapters)) == ["AB-1", "AB-2", "AB-10"]
    assert list(load_clauses(chapters, retired=True)) == ["AB-1", "AB-2", "AB-3", "AB-10"]


def test_a_clause_has_its_parts(chapters: Path) -> None:
    clause = load_clauses(chapters)["AB-2"]
    assert (clause.level, clause.condition, clause.title, clause.line) == ("MUST", None, "", 5)
    assert clause.requirement == "First sentence, over\ntwo lines. Second sentence."
    assert clause.short == "First sentence, over two lines."
    assert clause.notes["Why"] == "Because."
    assert clause.notes["Source"] == "A paper."
    assert "an indented item" in clause.text
    assert "belongs to nothing" not in clause.text


def test_a_title_and_a_condition_are_read(chapters: Path) -> None:
    clause = load_clauses(chapters)["AB-10"]
    assert (clause.level, clause.condition, clause.title) == ("SHOULD", "feature `backward`", "A title")
    assert clause.short == "A title"


def test_a_clause_ends_at_a_heading_and_needs_no_blank_line_before_it(chapters: Path) -> None:
    assert load_clauses(chapters, retired=True)["AB-3"].text == "Replaced by AB-2."
    assert load_clauses(chapters)["AB-1"].line == 25


def test_a_chapter_has_a_title(chapters: Path) -> None:
    (chapter,) = load_chapters(chapters)
    assert (chapter.file, chapter.title) == ("01-first.md", "1. A chapter")


@pytest.mark.parametrize(
    "line", ["**AB-1 (SHALL).** No such level.", "**AB-1.** No level.", "**AB-01 (MUST).** A leading zero."]
)
def test_a_malformed_clause_is_an_error_that_says_where(line: str) -> None:
    with pytest.raises(ClauseError, match=r"01-x\.md:3"):
        parse_chapter("01-x.md", f"# X\n\n{line}\n")


def test_an_id_given_twice_is_an_error(chapters: Path) -> None:
    (chapters / "02-second.md").write_text("# 2\n\n**AB-2 (MUST).** Again.\n")
    with pytest.raises(ClauseError, match=r"02-second.md:3.*AB-2.*01-first.md:5"):
        load_clauses(chapters)


def test_a_folder_without_chapters_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClauseError, match="no spec chapters"):
        load_chapters(tmp_path)


def test_the_installed_chapters_are_readable() -> None:
    clauses = load_clauses()
    assert "MSDA-1" in clauses
    assert all(clause.requirement for clause in clauses.values())


def test_covering_tests_are_found_without_importing(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import no_such_module\n"
        "@covers('AB-1', 'AB-2', cases=no_such_module.cases)\n"
        "def test_one(): ...\n"
        "@other\n"
        "def test_two(): ...\n"
    )
    (tmp_path / "helper.py").write_text("@covers('AB-3')\ndef test_not_in_a_test_file(): ...\n")
    found = covering_tests(tmp_path)
    assert [(test.clause, test.test, test.file, test.line) for test in found] == [
        ("AB-1", "test_one", "test_x.py", 3),
        ("AB-2", "test_one", "test_x.py", 3),
    ]


def test_mutants_and_twins_are_found(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "LIBRARY = 'a/library'\n"
        "@mutant('swapped', rejects='AB-1', origin=f'{LIBRARY} issue 6')\n"
        "def f(): ...\n"
        "@twin('chunked', operation='ms_deform_attn', origin='loops')\n"
        "class C: ...\n"
    )
    wrong, right = mutants(tmp_path)
    assert (wrong.kind, wrong.name, wrong.clause, wrong.origin) == (
        "mutant",
        "swapped",
        "AB-1",
        "a/library issue 6",
    )
    assert (right.kind, right.name, right.clause, right.operation) == (
        "twin",
        "chunked",
        None,
        "ms_deform_attn",
    )


def test_a_computed_id_is_an_error_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("@covers(ids())\ndef test_one(): ...\n")
    with pytest.raises(CatalogueError, match=r"test_x.py:1: ids\(\) must be a literal string"):
        covering_tests(tmp_path)
