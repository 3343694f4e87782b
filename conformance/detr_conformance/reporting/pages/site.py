"""`detr-spec site`: reports as a static site, a file at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from detr_conformance.evidence.behind import Evidence, evidence_of, place_of
from detr_conformance.evidence.clauses import Chapter
from detr_conformance.reporting.changes import remarks, verdict_changes
from detr_conformance.reporting.pages import plain
from detr_conformance.reporting.pages.badge import badge_json, badge_svg
from detr_conformance.reporting.pages.history import Implementation, changes_between, implementations, weight
from detr_conformance.reporting.pages.judged import SILENT, WORDS, Judged
from detr_conformance.reporting.pages.rendering import rendered, text_of
from detr_conformance.reporting.pages.site_matrix import causes, chapter_matrices, counts
from detr_conformance.reporting.pages.trend import trend
from detr_conformance.reporting.pages.view import view_of
from detr_conformance.reporting.report import Report

Pages = dict[str, Callable[[], str]]
MUTANT_FIELDS = ("operation", "declares", "origin", "summary")


def site(
    reports: Sequence[tuple[str, Report]],
    chapters: Sequence[Chapter],
    *,
    kill_matrix: Mapping[str, Any] | None = None,
    documentation: str | None = None,
) -> Pages:
    """Each file of the site by its place, with what makes its content.

    Args:
        reports: (name of the file, report), the oldest first; those of one target are its history.
        chapters: whose clauses have a page each.
        kill_matrix: what `detr_conformance.running.kill_matrix` wrote, if clause pages are to show it.
        documentation: where it lies from the site's root, with the chapters in spec/; None if there is none beside it.
    """
    found = implementations(reports, chapters)
    mutants = _mutants(kill_matrix)
    shared = {"mutants": bool(mutants), "deviations": bool(causes(found)), "documentation": documentation}
    pages: Pages = {
        "site.css": partial(text_of, "style.css"),
        "site.js": partial(text_of, "script.js"),
        "icon.svg": partial(text_of, "icon.svg"),
        "index.html": partial(_index, found, shared),
        "matrix.html": partial(_matrix, found, chapters, shared),
    }
    if shared["deviations"]:
        pages["deviations.html"] = lambda: rendered("site_deviations.html", root="", causes=causes(found), **shared)
    if mutants:
        pages["mutants.html"] = partial(_kill_matrix, mutants, chapters, shared)
    for each in found:
        pages[f"implementations/{each.slug}.html"] = partial(implementation_page, each, chapters, shared)
        pages[f"badges/{each.slug}.svg"] = partial(badge_svg, each)
        pages[f"badges/{each.slug}.json"] = partial(badge_json, each)
    in_force = [clause for chapter in chapters for clause in chapter.clauses if clause.level != "retired"]
    titles = {chapter.file: chapter.title for chapter in chapters}
    for evidence in evidence_of(in_force):
        about = {"title": titles[evidence.clause.chapter], "mutants_run": mutants}
        pages[f"clauses/{evidence.clause.id}.html"] = partial(_clause, evidence, found, about | {"shared": shared})
    return pages


def _index(found: Sequence[Implementation], shared: Mapping[str, Any]) -> str:
    rows = [(each, _counted(each)) for each in found]
    return rendered("site_index.html", root="", rows=rows, **shared)


def _counted(implementation: Implementation) -> dict[str, int]:
    verdicts = [each.verdict for each in implementation.judged.values()]
    return {verdict: verdicts.count(verdict) for verdict in WORDS if verdict not in SILENT}


def _matrix(found: Sequence[Implementation], chapters: Sequence[Chapter], shared: Mapping[str, Any]) -> str:
    matrices = chapter_matrices(found, chapters)
    return rendered("site_matrix.html", root="", matrices=matrices, shown=counts(matrices), **shared)


def implementation_page(each: Implementation, chapters: Sequence[Chapter], shared: Mapping[str, Any]) -> str:
    """What its newest reports say, and what changed from report to report; `shared` is what every page knows."""
    parts = [
        {
            "view": view_of(part[-1].report, chapters, anchor=f"p{number}-" if len(each.parts) > 1 else ""),
            "label": part[-1].label,
            "trend": trend(part),
            "changes": [
                (old, new, list(verdict_changes(old.report, new.report)), list(remarks(old.report, new.report)))
                for old, new in changes_between(part)
            ],
        }
        for number, part in enumerate(each.parts, start=1)
    ]
    values = {"root": "../", "clause_pages": "../clauses/", "each": each, "parts": parts}
    return rendered("site_implementation.html", **values, **shared)


def _clause(evidence: Evidence, found: Sequence[Implementation], about: Mapping[str, Any]) -> str:
    clause = evidence.clause
    return rendered(
        "site_clause.html",
        root="../",
        clause=clause,
        evidence=evidence,
        place_of=place_of,
        groups=_groups(clause.id, found),
        **{name: value for name, value in about.items() if name != "shared"},
        **about["shared"],
    )


def _groups(clause: str, found: Sequence[Implementation]) -> list[tuple[Judged, list[tuple[Implementation, Judged]]]]:
    """Implementations of which the same is known, what is worst first."""
    groups: dict[tuple[str, ...], list[tuple[Implementation, Judged]]] = {}
    for each in found:
        if said := each.spoken.get(clause):
            known = (
                said.deviation.get("reason", "") if said.deviation else "" if said.verdict == "pass" else said.message
            )
            groups.setdefault((said.verdict, known), []).append((each, said))
    ordered = sorted(groups.values(), key=lambda members: weight(members[0][1]))
    return [(members[0][1], members) for members in ordered]


def _kill_matrix(mutants: Mapping[str, Any], chapters: Sequence[Chapter], shared: Mapping[str, Any]) -> str:
    known = {clause.id for chapter in chapters for clause in chapter.clauses if clause.level != "retired"}
    return rendered("site_mutants.html", root="", mutants_run=mutants, known=known, **shared)


def _mutants(kill_matrix: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Every mutant by name: what it is, which clauses reject it, whether a naive check misses it."""
    return {
        name: {key: plain.as_text(said.get(key)) for key in MUTANT_FIELDS}
        | {"rejected_by": plain.as_texts(said.get("rejected_by")), "missed": said.get("survives_naive_check") is True}
        for name, entry in plain.as_map(plain.as_map(kill_matrix).get("mutants")).items()
        if (said := plain.as_map(entry))
    }
