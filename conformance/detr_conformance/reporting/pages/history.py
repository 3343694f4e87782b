"""Implementations with their reports, the oldest first: what a site is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from detr_conformance.evidence.clauses import Chapter
from detr_conformance.reporting.pages import plain
from detr_conformance.reporting.pages.judged import SILENT, Judged, judged_clauses
from detr_conformance.reporting.report import Report, worst_verdict

# Of what several reports say of a clause the first counts.
WEIGHT = ("fail", "undecided", "warn", "deviation", "pass")
LONGEST_NAME = 80


@dataclass(frozen=True)
class Told:
    """A report, and the word by which it is known: the name of its file."""

    label: str
    report: Report
    judged: Mapping[str, Judged]

    @property
    def operations(self) -> set[str]:
        return {place[0] for each in self.judged.values() if each.verdict not in SILENT for place in each.places}

    @property
    def profile(self) -> str:
        return plain.as_text(plain.as_map(self.report.get("environment")).get("profile"))


@dataclass
class Implementation:
    """A target by name. A part is about operations that no other part is about; its reports follow in time."""

    name: str
    slug: str
    parts: list[list[Told]] = field(default_factory=list)

    @property
    def latest(self) -> list[Told]:
        return [part[-1] for part in self.parts]

    @property
    def version(self) -> str:
        versions = (plain.as_text(plain.as_map(told.report.get("target")).get("version")) for told in self.latest)
        return ", ".join(dict.fromkeys(filter(None, versions)))

    @property
    def verdict(self) -> str:
        return worst_verdict(told.report for told in self.latest)

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """Each clause once: what the part says of it that is worst."""
        found: dict[str, Judged] = {}
        for told in self.latest:
            for name, each in told.judged.items():
                if name not in found or weight(each) < weight(found[name]):
                    found[name] = each
        return found

    @cached_property
    def spoken(self) -> dict[str, Judged]:
        """The clauses that have a verdict."""
        return {name: each for name, each in self.judged.items() if each.verdict not in SILENT}

    @property
    def operations(self) -> list[str]:
        return sorted(set().union(*(told.operations for told in self.latest)))


def implementations(reports: Iterable[tuple[str, Report]], chapters: Sequence[Chapter]) -> list[Implementation]:
    """Reports by target, in the order in which targets first come.

    Args:
        reports: (label, report), the oldest first.
        chapters: where clauses are worded.
    """
    found: dict[str, Implementation] = {}
    for label, report in reports:
        name = plain.as_text(plain.as_map(report.get("target")).get("name"))
        if name not in found:
            found[name] = Implementation(name, _slug(name, {each.slug for each in found.values()}))
        told = Told(label, report, judged_clauses(report, chapters))
        parts = found[name].parts
        same = next((part for part in parts if _continues(part[-1], told)), None)
        parts.append([told]) if same is None else same.append(told)
    return list(found.values())


def _continues(earlier: Told, later: Told) -> bool:
    """Whether they are about the same, at different times; a report without any verdict is about everything."""
    if not earlier.operations or not later.operations:
        return True
    return earlier.profile == later.profile and bool(earlier.operations & later.operations)


def weight(judged: Judged) -> int:
    """What is worst weighs least."""
    return WEIGHT.index(judged.verdict) if judged.verdict in WEIGHT else len(WEIGHT)


def _slug(name: str, taken: set[str]) -> str:
    """A file name; a target may be called anything."""
    plain_name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-")[:LONGEST_NAME] or "target"
    number, slug = 1, plain_name
    while slug.lower() in {each.lower() for each in taken}:
        number += 1
        slug = f"{plain_name}-{number}"
    return slug


def changes_between(part: Sequence[Told]) -> list[tuple[Told, Told]]:
    """Neighbours in time, the newest pair first."""
    return list(pairwise(part))[::-1]
