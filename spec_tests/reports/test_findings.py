"""Which failures are undecided because of another, and which of the rest to look at first."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from test_report import finish, known, result, start

from detr_conformance.evidence.clauses import load_chapters, load_clauses
from detr_conformance.reporting import findings as findings_module
from detr_conformance.reporting.deviations import Deviation
from detr_conformance.reporting.events import Event
from detr_conformance.reporting.findings import Pattern, findings, led_by
from detr_conformance.reporting.report import Report, build_report, exit_code
from detr_conformance.reporting.selection import Selection
from detr_conformance.reporting.terminal import print_report

CLAUSES = {name: clause for name, clause in load_clauses().items() if name.startswith("MSDA-")}


def failed(clause: str, kind: str | None = None, outcome: str = "fail", **failure: Any) -> Event:
    numbers = {"where": "output", "expected": "0", "got": "1", "kind": kind, **failure}
    return result(clause, outcome, failure=numbers, message=failure.get("message", f"{clause} is wrong"))


def report_of(*events: Event, deviations: tuple[Deviation, ...] = ()) -> Report:
    return build_report(
        [start(), *events, finish(1)], CLAUSES, deviations, target="my.py:target", selection=Selection()
    )


def verdicts(report: Report) -> dict[str, str]:
    silent = ("not-provided", "not-exercised")
    return {name: each["verdict"] for name, each in report["clauses"].items() if each["verdict"] not in silent}


# -- undecided ------------------------------------------------------------------------------------------------


def test_without_a_graph_one_clause_fails_and_what_needs_gradients_is_undecided() -> None:
    report = report_of(result("MSDA-2"), failed("MSDA-68", "graph"), failed("MSDA-29", "graph"), failed("MSDA-14"))
    assert verdicts(report) == {"MSDA-2": "pass", "MSDA-14": "fail", "MSDA-29": "undecided", "MSDA-68": "fail"}
    assert report["clauses"]["MSDA-29"]["undecided"]["clause"] == "MSDA-68"
    assert report["findings"][0]["clause"] == "MSDA-68"
    assert "features=()" in report["hints"][0]


def test_names_of_parameters_come_with_the_remedy_and_an_example() -> None:
    lost = failed("BLK-35", "parameters", where="in_proj.weight", got="none") | {"operation": "mlp"}
    report = build_report([start(), lost, finish(1)], load_clauses(), target="my.py:t", selection=Selection())
    assert '{"in_proj.weight": ..., }' in report["hints"][0]


@pytest.mark.parametrize("outcome", ["pass", "not-provided"])
def test_where_the_clause_that_says_so_does_not_fail_the_other_does(outcome: str) -> None:
    report = report_of(result("MSDA-68", outcome), failed("MSDA-37", "graph"))
    assert report["clauses"]["MSDA-37"]["verdict"] == "fail"


def test_a_declared_deviation_stands_in_nobodys_way() -> None:
    report = report_of(failed("MSDA-68", "graph"), failed("MSDA-29", "graph"), deviations=(known("MSDA-68"),))
    assert verdicts(report) == {"MSDA-29": "fail", "MSDA-68": "deviation"}


def test_a_deviation_covers_what_is_undecided() -> None:
    report = report_of(result("MSDA-2"), failed("MSDA-44", outcome="undecided"), deviations=(known("MSDA-44"),))
    assert (report["verdict"], report["clauses"]["MSDA-44"]["verdict"]) == ("pass", "deviation")


def test_where_everything_is_undecided_the_plain_call_is_the_verdict() -> None:
    report = report_of(failed("MSDA-44", outcome="undecided", message="an ordinary call is wrong already: output[3]"))
    assert (report["verdict"], exit_code(report["verdict"])) == ("fail", 1)
    assert report["message"] == "an ordinary call is wrong already: output[3]"
    assert "an ordinary call is wrong already: output[3]" in text_of(report)


def test_what_should_be_and_is_undecided_fails_nothing() -> None:
    report = report_of(result("MSDA-2"), failed("MSDA-41", outcome="undecided"))
    assert report["verdict"] == "pass"


# -- order ----------------------------------------------------------------------------------------------------

KNOWN = [
    Pattern("ms_deform_attn", "MSDA-15", frozenset({"MSDA-14", "MSDA-15", "MSDA-21"})),
    Pattern("ms_deform_attn", "MSDA-14", frozenset({"MSDA-14", "MSDA-21", "MSDA-16"})),
    *[Pattern("ms_deform_attn", "MSDA-21", frozenset({"MSDA-21"}))] * 4,
]


@pytest.fixture(autouse=True)
def _known_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_module, "patterns", lambda: {"ms_deform_attn": KNOWN})


def test_the_first_is_what_the_likest_mutant_is_about_and_the_others_follow() -> None:
    broken = ["MSDA-14", "MSDA-15", "MSDA-21"]
    found = findings(broken, [failed(clause) for clause in broken])
    assert found[0]["clause"] == "MSDA-15"
    assert {"MSDA-14", "MSDA-21"} == set(found[0]["follows"])


def test_what_no_mutant_fails_with_it_is_a_finding_of_its_own() -> None:
    found = findings(["MSDA-15", "MSDA-7"], [failed("MSDA-15"), failed("MSDA-7")])
    assert [(each["clause"], each["follows"]) for each in found] == [("MSDA-15", []), ("MSDA-7", [])]


def test_the_same_exception_is_one_failure() -> None:
    said = "the call raised ValueError: L > 4 (k.py:3)"
    found = findings(["MSDA-5", "MSDA-7"], [failed(name, raised=True, message=said) for name in ("MSDA-7", "MSDA-5")])
    assert len(found) == 1
    assert len(found[0]["follows"]) == 1


def test_what_a_target_behaves_like_says_which_clause_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_module, "_mutants", lambda: {"clamp": KNOWN[0], "gate": KNOWN[1]})
    found = [
        {"clause": "MSDA-21", "follows": ["MSDA-15"]},
        {"clause": "MSDA-14", "follows": []},
        {"clause": "MSDA-7", "follows": ["MSDA-8"]},
    ]
    first = {"clause": "MSDA-15", "follows": ["MSDA-14", "MSDA-21"]}
    assert led_by(found, ["clamp", "gate"]) == [first, found[2]]
    assert led_by(found, ["gate"])[0] == {"clause": "MSDA-14", "follows": ["MSDA-15", "MSDA-21"]}
    assert led_by(found[2:], ["clamp", "unknown"]) == found[2:]


def test_a_clause_without_a_result_is_told_last() -> None:
    """As one whose deviation is out of date."""
    found = findings(["MSDA-2", "MSDA-15"], [failed("MSDA-15")])
    assert [each["clause"] for each in found] == ["MSDA-15", "MSDA-2"]


def test_the_terminal_begins_with_the_cause_and_folds_what_follows() -> None:
    broken = ("MSDA-14", "MSDA-15", "MSDA-21")
    text = text_of(report_of(*map(failed, broken), failed("MSDA-44", outcome="undecided")))
    lines = [line for line in text.splitlines() if line]
    assert lines[1].startswith("FAIL  look at MSDA-15 first: Zeros beyond the border; MSDA-15 is wrong")
    assert "2 more clauses follow from it: MSDA-14, MSDA-21" in text
    assert "Why." in text
    assert "1 failed, 2 more that follow, 1 undecided" in lines[-1]
    assert text.count("MSDA-21 (MUST)") == 0


def text_of(report: Report) -> str:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    print_report(console, report, load_chapters())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_patterns_of_the_kill_matrix_name_clauses_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    known = findings_module.patterns()
    named = {clause for patterns in known.values() for each in patterns for clause in (each.about, *each.fails)}
    assert named <= load_clauses().keys()
    assert len(known["ms_deform_attn"]) > 100
