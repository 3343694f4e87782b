"""A report as the page shows it: what is said, in which order, all of it plain data for the templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detr_conformance.evidence.clauses import Chapter
from detr_conformance.reporting.pages import plain
from detr_conformance.reporting.pages.findings import Finding, findings_of
from detr_conformance.reporting.pages.judged import SILENT, WORDS, Judged, counted, judged_clauses, of_verdict
from detr_conformance.reporting.pages.matrix import Table, tables
from detr_conformance.reporting.pages.ratio_chart import ratio_chart
from detr_conformance.reporting.report import VERDICTS
from detr_conformance.reporting.terminal import compact_ids

HEADLINES = {"pass": "conforms", "fail": "does not conform", "error": "cannot be judged"}
FEW = 4  # clauses that are named one by one
ENVIRONMENT = ("profile", "seed", "torch")  # what is told beside the verdict


@dataclass(frozen=True)
class Likeness:
    """Wrong implementations whose results the target reproduces."""

    operation: str
    names: tuple[str, ...]
    summaries: tuple[str, ...]
    cases: int
    probes: int


@dataclass(frozen=True)
class Reached:
    """The sizes that the calls of one operation had: dimension, least, most, most with gradients, classes."""

    operation: str
    calls: int
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ReportView:
    """One target's report."""

    anchor: str  # begins the ids of what is said of this target
    name: str
    version: str
    verdict: str
    headline: str
    message: str
    incomplete: str
    counts: tuple[tuple[str, int, str], ...]
    about: tuple[str, ...]
    hints: tuple[str, ...]
    likenesses: tuple[Likeness, ...]
    findings: tuple[Finding, ...]
    judged: Mapping[str, Judged]
    tables: tuple[Table, ...]
    chart: Markup | None
    untried: tuple[tuple[str, str, str], ...]
    reached: tuple[Reached, ...]
    environment: tuple[tuple[str, str], ...]

    def of(self, *verdicts: str) -> list[Judged]:
        return of_verdict(self.judged, *verdicts)

    @property
    def following(self) -> int:
        """How many of the failed clauses follow from another."""
        return sum(len(finding.follows) for finding in self.findings)

    @property
    def waiting(self) -> dict[tuple[str, str], list[Judged]]:
        """Undecided clauses by what stands in their way: the clause that failed, or "" and the reason in words."""
        groups: dict[tuple[str, str], list[Judged]] = {}
        shown = {finding.judged.id for finding in self.findings}
        for each in self.of("undecided"):
            clause = each.undecided.get("clause", "")
            reason = "" if clause else each.undecided.get("message", "").partition(":")[0]
            if each.id not in shown:
                groups.setdefault((clause, reason), []).append(each)
        return groups


def view_of(
    report: Mapping[str, Any], chapters: Sequence[Chapter], *, anchor: str = "", cases: Path | None = None
) -> ReportView:
    """See `findings_of` for `cases`."""
    judged = judged_clauses(report, chapters)
    target, environment = plain.as_map(report.get("target")), plain.as_map(report.get("environment"))
    verdict = report["verdict"] if report.get("verdict") in VERDICTS else "error"
    counts = Counter(each.verdict for each in judged.values() if each.is_asked)
    return ReportView(
        anchor=anchor,
        name=plain.as_text(target.get("name")),
        version=plain.as_text(target.get("version")),
        verdict=verdict,
        headline=HEADLINES[verdict] + _as_far_as_asked(environment),
        message=plain.as_text(report.get("message")) if verdict == "error" or not counts["fail"] else "",
        incomplete=plain.as_text(report.get("incomplete")),
        counts=tuple((each, counts[each], counted(each, counts[each])) for each in WORDS if counts[each]),
        about=tuple(_about(environment, plain.as_number(plain.as_map(report.get("times")).get("seconds")))),
        hints=tuple(plain.as_texts(report.get("hints"))),
        likenesses=tuple(_likeness(plain.as_map(each)) for each in plain.as_list(report.get("behaves_like"))),
        findings=tuple(findings_of(report, judged, cases)),
        judged=judged,
        tables=tuple(tables(judged, chapters)),
        chart=ratio_chart(judged, anchor),
        untried=tuple(_untried(report, judged)),
        reached=tuple(_reached(report)),
        environment=tuple(_facts(target, environment)),
    )


def _as_far_as_asked(environment: Mapping[str, Any]) -> str:
    asked = plain.as_texts(environment.get("clauses"))
    return f" to {', '.join(asked)} alone" if 0 < len(asked) <= FEW else f" to {len(asked)} clauses" if asked else ""


def _about(environment: Mapping[str, Any], seconds: float | None) -> list[str]:
    told = [f"{key} {plain.as_text(environment[key])}" for key in ENVIRONMENT if key in environment]
    told += list(plain.as_map(environment.get("devices")))
    told += ["few shapes"] if environment.get("shapes") == "few" else []
    told += ["in a process of its own"] if environment.get("isolated") else []
    return [*told, *([f"{seconds:.1f} s"] if seconds is not None else [])]


def _likeness(said: Mapping[str, Any]) -> Likeness:
    names, summaries = (tuple(plain.as_texts(said.get(key))) for key in ("names", "summaries"))
    counts = (plain.as_count(said.get(key)) for key in ("cases", "probes"))
    return Likeness(plain.as_text(said.get("operation")), names, summaries, *counts)


def _untried(report: Mapping[str, Any], judged: Mapping[str, Judged]) -> list[tuple[str, str, str]]:
    """What, which, why: all that this report does not speak of."""
    groups: dict[tuple[str, str], list[str]] = {}
    for each in judged.values():
        if each.verdict in SILENT:
            groups.setdefault((WORDS[each.verdict], each.message), []).append(each.id)
    told = [(verdict, compact_ids(ids), why) for (verdict, why), ids in groups.items()]
    for feature, operations in plain.as_map(report.get("claimed_and_not_judged")).items():
        told.append(("claimed and not judged", feature, ", ".join(plain.as_texts(operations))))
    for operation, found in plain.as_map(report.get("few_shapes")).items():
        shapes = plain.as_map(found)
        left, ids = plain.as_count(shapes.get("cases_left_out")), plain.as_texts(shapes.get("clauses"))
        told.append(("few shapes", operation, f"{left} cases left out of {compact_ids(ids) or 'no clause'}"))
    sizes = plain.as_texts(report.get("sizes_left_out"))
    absent = plain.as_texts(plain.as_map(report.get("environment")).get("absent_devices"))
    told += [("pairs of sizes too large for a call", "; ".join(sizes), "")] if sizes else []
    return [*told, *(("claimed device that is absent here", device, "") for device in absent)]


def _reached(report: Mapping[str, Any]) -> Iterator[Reached]:
    for operation, found in plain.as_map(report.get("reached")).items():
        said = plain.as_map(found)
        rows = []
        for name, sizes in plain.as_map(said.get("dimensions")).items():
            size = plain.as_map(sizes)
            numbers = (plain.as_text(size.get(key)) or "-" for key in ("least", "most", "most_backward"))
            rows.append((name, *numbers, " ".join(plain.as_texts(size.get("classes")))))
        yield Reached(operation, plain.as_count(said.get("calls")), tuple(rows))


def _facts(target: Mapping[str, Any], environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The target's claims and the surroundings of the run, a row each."""
    shown = [(key, target[key]) for key in ("provides", "devices", "dtypes", "features", "variants") if key in target]
    return [(f"target {key}", _shown(value)) for key, value in shown] + [
        (key, _shown(value)) for key, value in sorted(environment.items())
    ]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain.as_text(inner)}" for key, inner in plain.as_map(value).items()) or "none"
    return ", ".join(plain.as_texts(value)) or "none" if isinstance(value, list) else plain.as_text(value)
