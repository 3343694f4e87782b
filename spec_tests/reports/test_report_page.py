"""The page of `check --html`: what it says, in which order, and that a report can put nothing of its own into it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from detr_conformance.evidence.clauses import load_chapters
from detr_conformance.reporting.json_file import read_json
from detr_conformance.reporting.pages.history import implementations
from detr_conformance.reporting.pages.judged import judged_clauses, shown_ratio
from detr_conformance.reporting.pages.matrix import tables
from detr_conformance.reporting.pages.plain import safe_link
from detr_conformance.reporting.pages.prose import prose
from detr_conformance.reporting.pages.ratio_chart import ratio_chart
from detr_conformance.reporting.pages.report_page import web_page
from detr_conformance.reporting.pages.site import implementation_page
from detr_conformance.reporting.pages.view import view_of
from detr_conformance.reporting.report import Report
from detr_conformance.running.checking import Outputs, _write
from helpers.places import RUNS
from helpers.reports.shown_reports import HOSTILE, failing_report, passing_report

CHAPTERS = load_chapters()
VOID = {"meta", "link", "img", "input", "br"}
LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping", "xlink:href"}


class Page(HTMLParser):
    """The elements of a page, and what does not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crossed.append(f"</{tag}> at {self.getpos()}")

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]


def page_of(*reports: Report, cases: Path | None = None) -> str:
    return web_page(reports, CHAPTERS, cases)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(failing_report(30, tmp_path_factory.mktemp("cases")), cases=Path("/"))


def test_the_page_says_the_verdict_first_and_then_the_cause(failing: str) -> None:
    told = ["does not conform", "behaves like", "border-clamp", "Look first at", "Clauses and operations"]
    told += ["Errors as a share of their limits", "What failed", "Undecided", "Warnings", "Known deviations"]
    told += ["What passed", "What was not tried", "The run"]
    places = [failing.index(f">{each}" if each[0].isupper() else each, failing.index("<main")) for each in told]
    assert places == sorted(places)


def test_what_to_look_at_first_is_the_first_finding(failing: str) -> None:
    first = re.search(r'Look first at</p>\s*<p><a href="#([\w-]+)">', failing)
    assert first is not None
    assert first[1] == "MSDA-2"


def test_every_failed_clause_is_there_once_and_echoes_are_folded(failing: str) -> None:
    report = failing_report(30)
    failed = [name for name, entry in report["clauses"].items() if entry["verdict"] == "fail"]
    page = Page(failing)
    opened = [a["id"] for tag, a in page.tags if tag == "details" and "failure" in (a.get("class") or "")]
    folded = [a["id"] for tag, a in page.tags if tag == "details" and a.get("class") == "echo" and "id" in a]
    assert opened == ["MSDA-2", "MSDA-1", *failed[-2:]]
    assert all("open" in a for tag, a in page.tags if "failure " in (a.get("class") or "") and tag == "details")
    assert set(folded) >= set(failed) - set(opened)
    assert len(page.values("id")) == len(set(page.values("id")))
    assert "26 more clauses follow from it" in failing


def test_a_failure_has_its_why_its_numbers_its_drawings_and_its_command(failing: str) -> None:
    section = failing[failing.index('id="MSDA-2"') :]
    section = section[: section.index('id="MSDA-1"')]
    for said in (
        "A transposed write",
        "4.25",
        "2.4e-05",
        "3 of 18 elements",
        "level 1 (2 x 3)",
        "1.56e+05 limits away",
    ):
        assert said in section
    assert "<code>detr-spec check mine.py:target --replay MSDA-2.safetensors</code>" in section


def test_undecided_ones_say_who_stands_in_the_way(failing: str) -> None:
    assert re.search(r'<a href="#MSDA-2"><b>MSDA-2</b></a> stands in the way of', failing)


def test_undecided_ones_without_a_clause_are_grouped_by_the_reason() -> None:
    report = failing_report(3)
    undecided = [entry for entry in report["clauses"].values() if entry["verdict"] == "undecided"]
    for number, entry in enumerate(undecided):
        entry["undecided"] = {"clause": None, "message": f"an ordinary call is wrong already: output[{number}]"}
    waiting = view_of(report, CHAPTERS).waiting
    assert {reason: len(clauses) for reason, clauses in waiting.items()} == {
        ("", "an ordinary call is wrong already"): 2
    }
    assert "An ordinary call is wrong already</b>, which stands in the way of 2 clauses" in page_of(report)


def test_if_nothing_was_decided_the_plain_call_is_shown() -> None:
    report = failing_report(3)
    for entry in report["clauses"].values():
        if entry["verdict"] in ("fail", "warn"):
            entry["verdict"] = "undecided"
    view = view_of(report, CHAPTERS)
    assert [finding.judged.id for finding in view.findings] == ["MSDA-1"]
    assert "MSDA-1" not in [each.id for clauses in view.waiting.values() for each in clauses]
    assert Page(page_of(report)).values("id").count("MSDA-1") == 1


def test_the_page_is_well_formed_and_every_link_leads_somewhere(failing: str) -> None:
    for html in (failing, page_of(passing_report()), page_of(failing_report(3), passing_report())):
        page = Page(html)
        assert (page.crossed, page.open) == ([], [])
        ids = set(page.values("id"))
        assert [link for link in page.values("href") if link.startswith("#") and link[1:] not in ids] == []


def test_nothing_is_loaded(failing: str) -> None:
    page = Page(failing)
    assert [name for name in LOADING if page.values(name)] == []
    assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "embed", "base", "form"}
    icon = next(attributes["href"] or "" for tag, attributes in page.tags if tag == "link")
    assert icon.startswith("data:image/svg+xml,")
    beside = re.sub(r"<main.*</main>", "", failing.replace(icon, ""), flags=re.DOTALL)
    assert re.search(r"url\(|@import|https?://", beside) is None
    assert "default-src 'none'" in failing


def test_what_a_report_says_is_escaped_everywhere() -> None:
    """Every text of a report, one after another, is replaced by a script."""
    report = failing_report(4)
    html = page_of(_poisoned(report), _poisoned(passing_report()))
    assert "&lt;script&gt;" in html
    scripts = [attributes for tag, attributes in Page(html).tags if tag in ("script", "img")]
    assert len(scripts) == 2  # the page's own
    assert not any(value.startswith("javascript:") for value in Page(html).values("href"))


def _poisoned(value: Any) -> Any:
    match value:
        case dict():
            kept = ("verdict", "clause", "follows")
            said = {key: inner if key in kept else _poisoned(inner) for key, inner in value.items()}
            return said | {HOSTILE: HOSTILE}
        case list():
            return [_poisoned(each) for each in value]
        case str():
            return f"{HOSTILE}\"'>{value}"
        case _:
            return value


ANYTHING = {"null": None, "half": "\ud800", "huge": 10**400, "list": [None], "object": {"a": None}, "lists": [[1]]}


@pytest.mark.parametrize("value", ANYTHING.values(), ids=ANYTHING)
def test_a_report_may_hold_anything(value: Any) -> None:
    """Everything but what `read_reports` checks may be of any type, or missing."""
    for key in ("message", "hints", "behaves_like", "findings", "times", "reached", "few_shapes", "incomplete", "junk"):
        page_of({**failing_report(2), key: value}).encode()
    for key in list(failing_report(2)["clauses"]["MSDA-1"]):
        report = failing_report(2)
        report["clauses"]["MSDA-1"][key] = value
        page_of(report).encode()
    report = failing_report(2)
    report["findings"] = [{"clause": value, "follows": value}, value]
    report["behaves_like"] = [{"names": value, "summaries": value, "cases": value}, value]
    report["clauses"]["MSDA-1"]["worst_error_ratio"] = {"a": {"b": {"c": value}}, "d": value}
    report["clauses"]["no such clause"] = {"verdict": value}
    report["target"] |= {"provides": value, "version": value}
    report["environment"] |= {"devices": value, "clauses": value}
    page_of(report).encode()
    found = implementations([("old", failing_report(2)), ("new", report), ("newer", passing_report())], CHAPTERS)
    shared = {"mutants": False, "deviations": False, "documentation": None}
    implementation_page(found[0], CHAPTERS, shared).encode()


def test_a_report_may_lack_what_older_ones_lack() -> None:
    report = failing_report(2)
    report["clauses"] = {name: {"verdict": entry["verdict"]} for name, entry in report["clauses"].items()}
    assert "does not conform" in page_of({key: report[key] for key in ("verdict", "target", "environment", "clauses")})


def test_of_old_reports_each_failure_is_a_finding() -> None:
    report = read_json(RUNS / "my-broken-kernel.json.gz")
    report.pop("findings", None)
    failed = [name for name, entry in report["clauses"].items() if entry["verdict"] == "fail"]
    assert [finding.judged.id for finding in view_of(report, CHAPTERS).findings] == failed


def test_a_case_that_is_not_there_is_told_and_none_is_looked_for_without_a_folder(tmp_path: Path) -> None:
    report = failing_report(2, tmp_path)
    for entry in report["clauses"].values():
        entry["case_file"] = entry["case_file"] and "gone.safetensors"
    assert "gone.safetensors is not there" in page_of(report, cases=tmp_path)
    assert "gone.safetensors is not there" not in page_of(report)


def test_check_draws_the_cases_that_it_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = failing_report(2, Path("detr-cases"))
    _write([], [report], CHAPTERS, Outputs(json=None, junit=None, html="report.html"))
    assert "level 1 (2 x 3)" in Path("report.html").read_text(encoding="utf-8")


def test_a_run_that_ended_early_says_so() -> None:
    assert "the run ended early (interrupted)" in page_of(failing_report(2) | {"incomplete": "interrupted"})


def test_a_run_that_could_not_be_judged_says_why() -> None:
    html = page_of(passing_report() | {"verdict": "error", "message": "no CUDA", "clauses": {}})
    assert "cannot be judged" in html
    assert "no CUDA" in html


def test_several_targets_have_ids_of_their_own_and_a_table() -> None:
    page = Page(page_of(failing_report(3), failing_report(3)))
    assert len(page.values("id")) == len(set(page.values("id")))
    assert "#t2-target" in page.values("href")


def test_cells_tell_which_operation_and_dtype_failed() -> None:
    report = failing_report(2)
    (table,) = tables(judged_clauses(report, CHAPTERS), CHAPTERS)
    assert table.columns == (("ms_deform_attn", "float32"), ("ms_deform_attn", "float16"))
    row = next(cells for judged, cells in table.rows if judged.id == "MSDA-1")
    assert [(cell.verdict, cell.worst) for cell in row] == [("fail", "2e05"), ("pass", "0.02")]
    entry = report["clauses"]["MSDA-1"]
    entry["worst_error_ratio"]["mlp"] = {"cpu": {"float32": 0.1}}
    entry["worst_error_ratio"]["vit"] = {"cpu": {"float32": None}}
    entry["failed_tests"] = ["test_x.py::test_y[ms_deform_attn-cpu-float32]", "test_x.py::test_y[vit-cpu-float32]"]
    (table,) = tables(judged_clauses(report, CHAPTERS), CHAPTERS)
    row = next(cells for judged, cells in table.rows if judged.id == "MSDA-1")
    assert [cell.verdict for cell in row] == ["fail", "pass", "fail"]


def test_the_chart_has_a_dot_a_clause_and_dtype_left_or_right_of_the_limit() -> None:
    chart = ratio_chart(judged_clauses(failing_report(5), CHAPTERS))
    assert chart is not None
    limit = float(re.search(r'x1="([\d.]+)"[^>]*class="d-limit"', chart)[1])  # type: ignore[index]
    over = [float(x) for x in re.findall(r'cx="([\d.]+)"[^>]*class="d-over"', chart)]
    within = [float(x) for x in re.findall(r'cx="([\d.]+)"[^>]*class="d-within"', chart)]
    assert len(over) == 7  # five failed, one warned, one deviates
    assert min(over) > limit > max(within)
    assert ratio_chart({}) is None


@pytest.mark.parametrize(
    ("ratio", "shown"), [(0, "0"), (0.001, "<0.01"), (0.5, "0.50"), (12.3, "12"), (3e7, "3e07"), (1e300, "1e300")]
)
def test_ratios_are_short(ratio: float, shown: str) -> None:
    assert shown_ratio(ratio) == shown


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://example.org/a#b", True),
        ("guides/trust.html", True),
        ("http://example.org", False),
        ("javascript:alert(1)", False),
        ("java\nscript:alert(1)", False),
        ("//example.org/a", False),
        ("/etc/passwd", False),
        ("\\\\example.org", False),
        ("data:text/html,x", False),
        ("https:///no-host", False),
        ("https://[", False),
        (None, False),
    ],
)
def test_links_lead_to_https_or_beside_the_page(address: str | None, kept: bool) -> None:
    assert (safe_link(address) is not None) == kept


def test_prose_has_no_html_no_picture_and_no_link_but_https() -> None:
    html = prose(
        "<b>a</b> `x < y` [chapter](02-module.md) ![a map](pictures/a.png) [there](https://example.org) "
        "[js](javascript:alert(1)) [plain](http://example.org)\n\n    z = 1\n"
    )
    assert "&lt;b&gt;" in html
    assert "<code>x &lt; y</code>" in html
    assert re.findall(r"<(?:a|img)[^>]*>", html) == ['<a href="https://example.org" rel="noreferrer">']
    assert "chapter" in html
    assert "a map" in html
    assert "<pre>" in html
