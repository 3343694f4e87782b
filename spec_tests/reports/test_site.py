"""The site of `detr-spec site`: implementations and their history, the matrix, pages of clauses, badges."""

from __future__ import annotations

import json
import posixpath
import re
import xml.etree.ElementTree as ET
from copy import deepcopy
from typing import Any

import pytest

from detr_conformance.evidence.clauses import load_chapters, load_clauses
from detr_conformance.reporting.findings import KILL_MATRIX
from detr_conformance.reporting.json_file import read_json
from detr_conformance.reporting.pages.badge import badge_json, badge_svg
from detr_conformance.reporting.pages.history import Implementation, implementations
from detr_conformance.reporting.pages.site import Pages, site
from detr_conformance.reporting.pages.site_matrix import causes, chapter_matrices
from detr_conformance.reporting.pages.trend import trend
from detr_conformance.reporting.report import Report
from detr_conformance.reporting.report_file import read_reports
from helpers.places import RUNS
from helpers.reports.shown_reports import HOSTILE, failing_report, passing_report

CHAPTERS = load_chapters()
HREF = re.compile(r'(?:href|src)="([^"]*)"')


def named(report: Report, name: str, **environment: Any) -> Report:
    report = deepcopy(report)
    report["target"]["name"] = name
    report["environment"] |= environment
    return report


def found_of(*reports: tuple[str, Report]) -> list[Implementation]:
    return implementations(reports, CHAPTERS)


def of_operation(report: Report, operation: str) -> Report:
    report = deepcopy(report)
    for entry in report["clauses"].values():
        entry["worst_error_ratio"] = {operation: entry["worst_error_ratio"]["ms_deform_attn"]}
    return report


def dead(pages: Pages) -> list[str]:
    """Links to what is not of the site."""
    wrong = []
    for place, made in pages.items():
        for link in HREF.findall(made()) if place.endswith(".html") else ():
            path = link.partition("#")[0]
            target = posixpath.normpath(posixpath.join(posixpath.dirname(place), path)) if path else place
            if not link.startswith("https:") and target not in pages:
                wrong.append(f"{place}: {link}")
    return wrong


def test_reports_of_one_target_are_its_history() -> None:
    (one,) = found_of(("old", failing_report(3)), ("new", passing_report()))
    assert [[told.label for told in part] for part in one.parts] == [["old", "new"]]
    assert one.verdict == "pass"


def test_reports_of_other_operations_are_parts_and_the_worst_counts() -> None:
    (one,) = found_of(("core", failing_report(3)), ("loss", of_operation(passing_report(), "sigmoid_focal_loss")))
    assert len(one.parts) == 2
    assert (one.verdict, one.judged["MSDA-1"].verdict) == ("fail", "fail")
    (two,) = found_of(("smoke", passing_report()), ("whole", named(passing_report(), "planted", profile="standard")))
    assert len(two.parts) == 2


def test_names_are_no_paths() -> None:
    names = ["../../etc/passwd", "..", "a/b", "a b", "A B", HOSTILE, "", "con:", "x" * 500, "\0"]
    found = found_of(*((str(number), named(passing_report(), name)) for number, name in enumerate(names)))
    slugs = [each.slug for each in found]
    assert len({slug.lower() for slug in slugs}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,90}", slug) for slug in slugs)


def test_the_matrix_has_a_row_a_clause_and_a_column_an_implementation() -> None:
    found = found_of(("a", named(passing_report(), "right")), ("b", named(failing_report(3), "wrong")))
    (matrix,) = chapter_matrices(found, CHAPTERS)
    assert [each.name for each in matrix.columns] == ["right", "wrong"]
    first = next(row for row in matrix.rows if row.clause.id == "MSDA-1")
    assert [cell and cell.verdict for cell in first.cells] == ["pass", "fail"]
    assert first.verdicts == "fail pass"
    assert not matrix.calm


def test_a_cause_is_told_once_with_all_who_have_it() -> None:
    report = failing_report(3)
    (cause,) = causes(found_of(("a", named(report, "one")), ("b", named(report, "two"))))
    assert [each.name for each in cause.names] == ["one", "two"]


@pytest.fixture(scope="module")
def pages() -> Pages:
    reports = [("old", failing_report(30)), ("new", failing_report(3)), ("other", named(passing_report(), HOSTILE))]
    return site(reports, CHAPTERS, kill_matrix=read_json(KILL_MATRIX))


def test_there_is_a_page_for_each_clause_and_each_implementation_and_no_dead_link(pages: Pages) -> None:
    assert {f"clauses/{name}.html" for name in load_clauses()} <= pages.keys()
    assert "implementations/planted.html" in pages
    some = {place: made for place, made in pages.items() if "clauses/" not in place or "MSDA" in place}
    assert dead({**dict.fromkeys(pages, lambda: ""), **some}) == []


def test_no_page_loads_from_elsewhere_and_names_are_escaped(pages: Pages) -> None:
    for place in ("index.html", "matrix.html", "mutants.html", "deviations.html", "implementations/planted.html"):
        html = pages[place]()
        assert HOSTILE not in html
        loads = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="([^"]*)"', html)
        assert loads
        assert [load for load in loads if ":" in load or load.startswith("/")] == []


def test_the_page_of_a_clause_says_all_that_is_known_of_it(pages: Pages) -> None:
    html = pages["clauses/MSDA-2.html"]()
    clause = load_clauses()["MSDA-2"]
    told = ("Why", "test_channel_order", "Mutants that it must reject", "rejected by", "topics/deformable_attention")
    for said in (clause.title, "planted", "failed", "passed", *told):
        assert said in html


def test_the_page_of_an_implementation_says_what_changed(pages: Pages) -> None:
    html = pages["implementations/planted.html"]()
    assert "old → new" in html
    assert "MSDA-5: fail -&gt; undecided" in html
    assert html.count('class="d-bar"') > 4


def test_a_trend_needs_two_reports_and_shows_the_newest() -> None:
    (one,) = found_of(*((f"r{number}", passing_report()) for number in range(50)))
    drawn = trend(one.parts[0])
    assert drawn is not None
    assert "r49" in drawn
    assert "r5<" not in drawn
    assert trend(one.parts[0][:1]) is None


def test_badges_say_the_verdict() -> None:
    right, wrong, unknown = found_of(
        ("a", named(passing_report(), "right")),
        ("b", named(failing_report(3), "wrong")),
        ("c", named(passing_report(), "unknown") | {"verdict": "error", "clauses": {}}),
    )
    said = [json.loads(badge_json(each)) for each in (right, wrong, unknown)]
    assert [each["message"] for each in said] == ["conforms, 40 clauses", "3 clauses fail", "not judged"]
    assert {each["schemaVersion"] for each in said} == {1}
    for each in (right, wrong, unknown):
        assert ET.fromstring(badge_svg(each)).tag.endswith("svg")


def test_saved_reports_of_the_documentation_make_a_site() -> None:
    reports = [(name, r) for name in ("torch", "ported-dino") for r in read_reports(RUNS / f"{name}.json.gz").values()]
    made = site(reports, CHAPTERS, documentation="../")
    assert "mutants.html" not in made
    assert 'href="../../spec/04-multihead-attention.html#MHA-1"' in made["clauses/MHA-1.html"]()
    assert "first divergence" in made["implementations/ported-dino.html"]()
