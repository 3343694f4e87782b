"""Read the numbered clauses out of the spec chapters, the one place where a requirement is worded.

A clause begins a paragraph with its id, its level and a title, all bold:

    **MSDA-14 (MUST) Outside.** A sample contributes only if ...
    **MSDA-48 (MUST, feature `deterministic`) Deterministic.** The same call ...
    **MSDA-9 (retired).** Replaced by MSDA-12.

To it belong the paragraphs that follow if they are indented or begin with one of the notes
`*Why.*`, `*Source.*`, `*Divergences.*`, `*Check.*`. A heading, another clause or any other paragraph ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

LEVELS = ("MUST", "SHOULD", "retired")
NOTES = ("Why", "Source", "Divergences", "Check")

_LOOKS_LIKE_CLAUSE = re.compile(r"\*\*[A-Z]+-\d")
_CLAUSE = re.compile(
    r"\*\*(?P<id>[A-Z]+-[1-9]\d*) \((?P<level>\w+)(?:, (?P<condition>[^)]+))?\)"
    r"(?P<title>[^*]*)\*\*(?P<rest>.*)",
    re.DOTALL,
)
_NOTE = re.compile(r"\*(" + "|".join(NOTES) + r")\.\*\s*")
_CHAPTER_FILE = re.compile(r"\d\d-[\w-]+\.md")


class ClauseError(Exception):
    """A chapter that cannot be read; the message says where."""


@dataclass(frozen=True)
class Clause:
    """One requirement.

    Attributes:
        id: such as "MSDA-14"; never reused.
        level: "MUST", "SHOULD" or "retired".
        condition: what it depends on, such as "feature `deterministic`"; None if on nothing.
        title: a few words, or "".
        requirement: what is required, in Markdown.
        text: the whole clause as it stands in the chapter, notes included.
        notes: "Why", "Source", "Divergences", "Check" -> text, where given.
        chapter: file name of the chapter.
        line: line in that file, from 1.
    """

    id: str
    level: str
    condition: str | None
    title: str
    requirement: str
    text: str
    notes: dict[str, str]
    chapter: str
    line: int

    @property
    def short(self) -> str:
        """The title, or the first sentence where there is none, without Markdown."""
        first_sentence = re.split(r"(?<=\.)\s", self.requirement, maxsplit=1)[0]
        return re.sub(r"[`*]", "", " ".join((self.title or first_sentence).split()))


@dataclass(frozen=True)
class Chapter:
    """A file of the spec: its name, the heading it begins with, its clauses in the order of the text."""

    file: str
    title: str
    clauses: tuple[Clause, ...]


def spec_directory() -> Traversable:
    """Where the installed chapters lie."""
    return files("detr_reference") / "spec"


def load_chapters(directory: Traversable | None = None) -> list[Chapter]:
    """Every chapter `NN-name.md`, in order.

    Raises:
        ClauseError: no chapter, a malformed clause, or an id given twice.
    """
    directory = directory or spec_directory()
    found = sorted(
        (entry for entry in directory.iterdir() if _CHAPTER_FILE.fullmatch(entry.name)),
        key=lambda entry: entry.name,
    )
    if not found:
        raise ClauseError(f"no spec chapters (files NN-name.md) in {directory}")
    chapters = [parse_chapter(entry.name, entry.read_text(encoding="utf-8")) for entry in found]
    _refuse_duplicates(clause for chapter in chapters for clause in chapter.clauses)
    return chapters


def load_clauses(directory: Traversable | None = None, *, retired: bool = False) -> dict[str, Clause]:
    """Clauses by id, in natural order; retired ones only if asked for."""
    clauses = [clause for chapter in load_chapters(directory) for clause in chapter.clauses]
    clauses.sort(key=lambda clause: (clause.chapter, natural_key(clause.id)))
    return {clause.id: clause for clause in clauses if retired or clause.level != "retired"}


def natural_key(clause_id: str) -> tuple[str, int, str]:
    """Sorts MSDA-2 before MSDA-10."""
    prefix, _, number = clause_id.rpartition("-")
    return (prefix, int(number), "") if number.isdecimal() and len(number) < 10 else (prefix, 0, number)


def compact_ids(ids: Iterable[str]) -> str:
    """ "MSDA-3, MSDA-5 to MSDA-9" """
    keys = [natural_key(clause_id) for clause_id in sorted(ids, key=natural_key)]
    runs: list[list[tuple[str, int, str]]] = []
    for key in keys:
        if runs and runs[-1][-1][0] == key[0] and runs[-1][-1][1] == key[1] - 1:
            runs[-1].append(key)
        else:
            runs.append([key])
    names = [[f"{prefix}-{number}" for prefix, number, _ in run] for run in runs]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run) for run in names)


def parse_chapter(file: str, markdown: str) -> Chapter:
    """Find the clauses in one chapter's text."""
    paragraphs = list(_paragraphs(markdown))
    title = next((text.lstrip("# ") for _, text in paragraphs if text.startswith("# ")), file)
    clauses: list[Clause] = []
    belongs: list[str] = []
    start = 0
    for line, text in [*paragraphs, (0, "# end")]:
        if belongs and _continues(text):
            belongs.append(text)
            continue
        if belongs:
            clauses.append(_clause(file, start, belongs))
        belongs, start = ([text], line) if _LOOKS_LIKE_CLAUSE.match(text) else ([], 0)
    return Chapter(file, title, tuple(clauses))


def _paragraphs(markdown: str) -> Iterable[tuple[int, str]]:
    """(line number, text) of each block between blank lines; a fenced block is never split, a heading or a
    clause begins a new block also without a blank line before it."""
    block: list[str] = []
    start = 1
    fenced = False
    for number, line in enumerate([*markdown.splitlines(), ""], start=1):
        opens = not fenced and (line.startswith("#") or bool(_LOOKS_LIKE_CLAUSE.match(line)))
        if block and not fenced and (opens or not line.strip()):
            yield start, "\n".join(block)
            block = []
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if line.strip() or fenced:
            start = start if block else number
            block.append(line)
        if line.startswith("#") and not fenced:
            yield start, "\n".join(block)
            block = []
    if block:
        yield start, "\n".join(block)


def _continues(paragraph: str) -> bool:
    return paragraph.startswith("  ") or _NOTE.match(paragraph) is not None


def _clause(file: str, line: int, paragraphs: list[str]) -> Clause:
    head = _CLAUSE.match(paragraphs[0])
    if head is None or head["level"] not in LEVELS:
        written = paragraphs[0].splitlines()[0][:60]
        raise ClauseError(
            f"{file}:{line}: cannot read the clause {written!r}; "
            "write **ID (MUST) Title.**, **ID (SHOULD) Title.** or **ID (retired).**"
        )
    text = "\n\n".join([head["rest"].strip(), *paragraphs[1:]]).strip()
    requirement, *pairs = _NOTE.split(text)
    return Clause(
        id=head["id"],
        level=head["level"],
        condition=head["condition"],
        title=head["title"].strip().rstrip("."),
        requirement=requirement.strip(),
        text=text,
        notes={name: note.strip() for name, note in zip(pairs[::2], pairs[1::2], strict=True)},
        chapter=file,
        line=line,
    )


def _refuse_duplicates(clauses: Iterable[Clause]) -> None:
    seen: dict[str, Clause] = {}
    for clause in clauses:
        if clause.id in seen:
            first = seen[clause.id]
            raise ClauseError(
                f"{clause.chapter}:{clause.line}: the id {clause.id} is taken by {first.chapter}:{first.line}"
            )
        seen[clause.id] = clause
