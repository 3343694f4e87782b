"""llms.txt: an index of the site for programs that read, of its documents and of every clause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from detr_conformance.evidence.clauses import Chapter


def llms_txt(summary: str, documents: Mapping[str, Iterable[tuple[str, str, str]]], chapters: Sequence[Chapter]) -> str:
    """The text of the file.

    Args:
        summary: the project in a sentence.
        documents: heading -> (title, link, what it is, or "") of each document.
        chapters: of the specification, which lie in spec/.
    """
    parts = ["# detr-spec", f"> {summary}"]
    for heading, entries in documents.items():
        parts += [f"## {heading}", "\n".join(_document(*entry) for entry in entries)]
    parts += ["## Clauses", "Each with its level and its title. The text of one: `detr-spec spec ID --json`."]
    for chapter in chapters:
        if chapter.clauses:
            parts += [f"### {chapter.title}", "\n".join(_lines(chapter))]
    return "\n\n".join(parts) + "\n"


def _document(title: str, link: str, what: str) -> str:
    return f"- [{title}]({link})" + (f": {what}" if what else "")


def _lines(chapter: Chapter) -> Iterable[str]:
    page = f"spec/{chapter.file.removesuffix('.md')}.html"
    for clause in chapter.clauses:
        level = f"{clause.level}, {clause.condition}" if clause.condition else clause.level
        yield f"- [{clause.id}]({page}#{clause.id}) ({level}): {clause.short}"
