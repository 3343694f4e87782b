"""From a stream of events to verdicts, and from there to files and to the terminal."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from rich.console import Console

from detr_conformance.evidence.clauses import Chapter, Clause, compact_ids, load_chapters, load_clauses
from detr_conformance.reporting.deviations import Deviation
from detr_conformance.reporting.events import Event, Tail, digest
from detr_conformance.reporting.json_file import FileError, write_json
from detr_conformance.reporting.junit import junit_xml
from detr_conformance.reporting.pages.report_page import web_page
from detr_conformance.reporting.report import Report, build_report, combine, exit_code, worst_verdict
from detr_conformance.reporting.report_file import read_reports
from detr_conformance.reporting.selection import Selection
from detr_conformance.reporting.terminal import print_report

FIRST = """# 1. The core

**MSDA-10 (MUST) Exact.** No rounding.

**MSDA-2 (MUST) Order.** Rows [first], then *columns*.

**MSDA-3 (SHOULD) Polite.** It raises.
"""
SECOND = "# 2. The module\n\n**MSDM-1 (MUST) Softmax.** Joint.\n"


@pytest.fixture
def chapters(tmp_path: Path) -> list[Chapter]:
    folder = tmp_path / "spec"
    folder.mkdir()
    (folder / "01-deformable-attention.md").write_text(FIRST)
    (folder / "02-deformable-attention-module.md").write_text(SECOND)
    return load_chapters(folder)


@pytest.fixture
def clauses(chapters: list[Chapter]) -> dict[str, Clause]:
    return {clause.id: clause for chapter in chapters for clause in chapter.clauses}


def start(version: str | None = "1.0", provides: tuple[str, ...] = ("ms_deform_attn",)) -> Event:
    return {
        "event": "start",
        "target": {"name": "mine", "version": version},
        "environment": {"torch": "2.13", "profile": "smoke"},
        "target_info": {"provides": list(provides), "dtypes": ["float32", "float16"], "devices": ["cpu"]},
    }


def result(clause: str, outcome: str = "pass", *, test: str = "", dtype: str = "float32", **more: Any) -> Event:
    return {
        "event": "result",
        "test": test or f"test_x.py::test_{clause}[cpu-{dtype}]",
        "clauses": [clause],
        "operation": "ms_deform_attn",
        "device": "cpu",
        "dtype": dtype,
        "outcome": outcome,
        "worst_error_ratio": 0.5,
        "mismatches": None,
        "message": "it is wrong" if outcome == "fail" else None,
        "failure": None,
        "case_file": None,
        "seconds": 0.25,
        **more,
    }


def finish(exit: int = 0) -> Event:
    return {"event": "finish", "exit": exit, "seconds": 1.5}


def died(*, signal: str | None = "SIGSEGV", returncode: int = -11) -> Event:
    return {"event": "died", "signal": signal, "returncode": returncode}


def running(clause: str) -> Event:
    return {"event": "running", "test": f"test_x.py::test_{clause}[cpu-float32]", "clauses": [clause]}


def known(clause: str = "MSDA-2", versions: str = "", **narrowed: Any) -> Deviation:
    return Deviation(clause, "bug", "rounds", "https://example.org", SpecifierSet(versions), **narrowed)


def report_of(
    clauses: dict[str, Clause], *events: Event, deviations: tuple[Deviation, ...] = (), **selected: Any
) -> Report:
    report = build_report(events, clauses, deviations, target="my.py:target", selection=Selection(**selected))
    json.dumps(report, allow_nan=False)
    return report


def test_a_clean_run_passes(clauses: dict[str, Clause]) -> None:
    report = report_of(clauses, start(), result("MSDA-10"), result("MSDA-2"), result("MSDA-3"), finish())
    assert (report["verdict"], report["message"]) == ("pass", None)
    assert report["target"]["name"] == "mine"
    assert list(report["clauses"]) == ["MSDA-2", "MSDA-3", "MSDA-10", "MSDM-1"]
    assert report["clauses"]["MSDA-2"]["tests"] == ["test_x.py::test_MSDA-2[cpu-float32]"]
    assert report["clauses"]["MSDA-2"]["worst_error_ratio"] == {"ms_deform_attn": {"cpu": {"float32": 0.5}}}


def test_what_is_not_provided_and_what_did_not_run_are_no_passes(clauses: dict[str, Clause]) -> None:
    report = report_of(
        clauses, start(), result("MSDA-2"), result("MSDA-3", "not-provided", message="no feature"), finish()
    )
    verdicts = {name: entry["verdict"] for name, entry in report["clauses"].items()}
    assert verdicts == {
        "MSDA-2": "pass",
        "MSDA-3": "not-provided",
        "MSDA-10": "not-exercised",
        "MSDM-1": "not-provided",
    }
    assert report["clauses"]["MSDA-3"]["message"] == "no feature"
    provided = report_of(clauses, start(provides=("ms_deform_attn_module",)), result("MSDA-2"), finish())
    assert provided["clauses"]["MSDM-1"]["verdict"] == "not-exercised"


def test_the_worst_number_counts_and_the_exact_tier_counts_mismatches(clauses: dict[str, Clause]) -> None:
    exact = {"worst_error_ratio": None}
    report = report_of(
        clauses,
        start(),
        result("MSDA-2", worst_error_ratio=0.2, test="a"),
        result("MSDA-2", worst_error_ratio=0.7, test="b"),
        result("MSDA-10", "fail", mismatches=3, test="c", **exact),
        result("MSDA-10", "fail", mismatches=4, test="d", **exact),
        result("MSDA-10", "pass", mismatches=0, dtype="float16", **exact),
        finish(1),
    )
    places = {
        name: entry["worst_error_ratio"]["ms_deform_attn"]["cpu"]
        for name, entry in report["clauses"].items()
        if entry["tests"]
    }
    assert places == {"MSDA-2": {"float32": 0.7}, "MSDA-10": {"float16": None, "float32": None}}
    assert report["clauses"]["MSDA-10"]["mismatches"]["ms_deform_attn"]["cpu"] == {"float16": 0, "float32": 7}
    assert report["clauses"]["MSDA-2"]["mismatches"] == {}


def test_a_failure_is_described_with_its_replay(clauses: dict[str, Clause]) -> None:
    told = {"where": "output[0]", "expected": "1", "got": "2"}
    report = report_of(
        clauses,
        start(),
        result("MSDA-2", "fail", test="a"),
        result("MSDA-2", "fail", test="b", failure=told, case_file="detr-cases/it is.safetensors"),
        finish(1),
    )
    entry = report["clauses"]["MSDA-2"]
    assert (report["verdict"], report["message"]) == ("fail", "MSDA-2 failed")
    assert entry["failed_tests"] == ["a", "b"]
    assert entry["failure"] == {
        "test": "b", "operation": "ms_deform_attn", "device": "cpu", "dtype": "float32", **told
    }  # fmt: skip
    assert entry["replay"] == "detr-spec check my.py:target --replay 'detr-cases/it is.safetensors'"


def test_a_should_that_fails_warns(clauses: dict[str, Clause]) -> None:
    report = report_of(clauses, start(), result("MSDA-3", "fail"), finish(1))
    assert (report["clauses"]["MSDA-3"]["verdict"], report["verdict"]) == ("warn", "pass")


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([start(), {"event": "error", "message": "no CUDA here"}, finish(2)], "no CUDA here"),
        ([start(), result("MSDA-2"), result("MSDA-2", "error", test="z", message="bug")], "failed in z: bug"),
        ([start(), result("MSDA-2", "not-provided"), finish()], "nothing was exercised"),
        ([start(), finish(5)], "nothing was exercised"),
        ([start(), result("MSDA-2"), finish(3)], "the suite itself failed"),
        ([start(), result("MSDA-2"), result("XY-1"), finish()], "no chapter has: XY-1"),
        ([start(), {**result("MSDA-2"), "clauses": []}, finish()], "names no clause"),
        ([], "nothing was exercised"),
        ([died(signal=None, returncode=1)], "ended with status 1"),
        ([start(), died()], "died with SIGSEGV before"),
        ([start(), running("MSDA-2"), died(signal="SIGKILL", returncode=-9)], "died with SIGKILL in test_x.py"),
        ([start(), running("MSDA-2"), died(signal=None, returncode=3)], "ended with status 3"),
        ([start(), running("MSDA-2"), running("MSDA-10"), died()], "died with SIGSEGV"),
        ([start(), result("MSDA-10"), running("MSDA-2"), finish()], "float32] began and gave no result"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_an_error(clauses: dict[str, Clause], events: list[Event], said: str) -> None:
    report = report_of(clauses, *events)
    assert report["verdict"] == "error"
    assert said in report["message"]
    if report["clauses"]:
        assert report["clauses"]["MSDA-2"]["verdict"] in ("pass", "not-provided", "not-exercised")


@pytest.mark.parametrize("clause", ["MSDA-2", "MSDA-3"])
@pytest.mark.parametrize("death", [died(), died(signal=None, returncode=1)])
def test_a_crash_in_a_test_fails_its_clause_even_a_should(
    clauses: dict[str, Clause], clause: str, death: Event
) -> None:
    report = report_of(
        clauses,
        start(),
        {"event": "collected", "tests": 5},
        result("MSDA-10"),
        running(clause),
        death,
        deviations=(known(clause),),
    )
    assert report["verdict"] == "fail"
    assert report["clauses"][clause]["verdict"] == "fail"
    assert report["clauses"][clause]["message"].endswith("in this test")


def test_an_error_result_is_no_pass(clauses: dict[str, Clause]) -> None:
    report = report_of(clauses, start(), result("MSDA-2"), result("MSDA-2", "error", test="z"), finish())
    assert report["clauses"]["MSDA-2"]["verdict"] == "not-exercised"


def test_a_declared_failure_is_a_deviation(clauses: dict[str, Clause]) -> None:
    report = report_of(clauses, start(), result("MSDA-2", "fail"), finish(1), deviations=(known(),))
    assert report["verdict"] == "pass"
    entry = report["clauses"]["MSDA-2"]
    assert entry["verdict"] == "deviation"
    assert entry["deviation"] == {"kind": "bug", "reason": "rounds", "link": "https://example.org"}


def test_a_deviation_covers_only_what_it_names(clauses: dict[str, Clause]) -> None:
    half = known(dtypes=("float16",))
    failing = [result("MSDA-2", "fail", dtype="float16"), result("MSDA-2", "fail", dtype="float32")]
    report = report_of(clauses, start(), *failing, finish(1), deviations=(half,))
    assert report["clauses"]["MSDA-2"]["verdict"] == "fail"
    assert report["clauses"]["MSDA-2"]["failure"]["dtype"] == "float32"
    assert report_of(clauses, start(), failing[0], finish(1), deviations=(half,))["verdict"] == "pass"


@pytest.mark.parametrize(
    ("deviation", "selected", "verdict"),
    [
        (known(), {}, "fail"),
        (known(dtypes=("float32",)), {}, "fail"),
        (known(dtypes=("float32",)), {"dtype": "float32"}, "fail"),
        (known(dtypes=("float32", "float16")), {}, "pass"),  # float16 was not exercised
        (known(operations=("ms_deform_attn_module",)), {}, "pass"),
        (known(), {"dtype": "float32"}, "pass"),  # it may show in float16
        (known(), {"operations": ("ms_deform_attn",)}, "fail"),
        (known(), {"replay": "case.safetensors"}, "pass"),
    ],
)
def test_an_unexpected_pass_fails_if_all_that_is_named_ran(
    clauses: dict[str, Clause], deviation: Deviation, selected: dict[str, Any], verdict: str
) -> None:
    report = report_of(clauses, start(), result("MSDA-2"), finish(), deviations=(deviation,), **selected)
    assert report["verdict"] == report["clauses"]["MSDA-2"]["verdict"] == verdict
    if verdict == "fail":
        assert "unexpected pass: remove the deviation" in report["clauses"]["MSDA-2"]["message"]


def test_a_deviation_for_other_versions_fails(clauses: dict[str, Clause]) -> None:
    stale = known(versions="<1")
    report = report_of(clauses, start(), result("MSDA-2", "fail"), finish(1), deviations=(stale,))
    assert report["clauses"]["MSDA-2"]["verdict"] == report["verdict"] == "fail"
    assert 'for versions "<1" and the target is 1.0' in report["clauses"]["MSDA-2"]["message"]
    elsewhere = report_of(clauses, start(), result("MSDA-10"), finish(), deviations=(stale,))
    assert elsewhere["verdict"] == "fail"


def test_a_deviation_of_an_unknown_clause_fails(clauses: dict[str, Clause]) -> None:
    report = report_of(clauses, start(), result("MSDA-2"), finish(), deviations=(known("MSDA-99"),))
    assert report["verdict"] == "fail"
    assert "MSDA-99" in report["message"]


def test_two_runs_agree_but_for_times_whatever_the_order(clauses: dict[str, Clause]) -> None:
    failing = [
        result("MSDA-2", "fail", test=name, seconds=seconds, case_file=f"{name}.safetensors")
        for name, seconds in (("b", 0.1), ("a", 0.2))
    ]
    one = report_of(clauses, start(), *failing, result("MSDA-10"), finish(1))
    other = report_of(clauses, start(), result("MSDA-10"), *reversed(failing), {**finish(1), "seconds": 9})
    assert one.pop("times") != other.pop("times")
    assert json.dumps(one) == json.dumps(other)


def test_the_worst_verdict_is_the_least_sure() -> None:
    reports = [{"verdict": verdict} for verdict in ("pass", "error", "fail")]
    assert [exit_code(worst_verdict(reports[:n])) for n in (1, 2, 3)] == [0, 2, 2]
    assert combine(reports)["verdict"] == "error"


def test_the_stream_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert list(tail.new()) == []
    with path.open("a") as stream:
        stream.write('{"event":"collected","tests":3}\n{"event":"fin')
        stream.flush()
        assert [event["event"] for event in tail.new()] == ["collected"]
        stream.write('ish","exit":0,"seconds":NaN}\nnonsense\n')
    finished, nonsense = tail.new()
    assert finished == {"event": "finish", "exit": 0, "seconds": None}
    assert "cannot be read" in nonsense["message"]


def test_a_report_is_written_whole_and_read_back(tmp_path: Path, clauses: dict[str, Clause]) -> None:
    report = report_of(clauses, start(), result("MSDA-2"), finish())
    path = tmp_path / "report.json"
    path.write_text("old")
    write_json(path, report)
    assert read_reports(path) == {"mine": report}
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["report.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {**report, "message": float("nan")})
    assert read_reports(path) == {"mine": report}
    with pytest.raises(FileError, match="No such file"):
        write_json(tmp_path / "none" / "report.json", report)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "no schema_version"),
        ('{"schema_version": 2}', "schema_version 2"),
        ('{"schema_version": 1}', "lacks target, verdict or clauses"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(FileError, match=said):
        read_reports(path)


HARD = {
    "where": "output[0, 3, 17]",
    "expected": "0.25",
    "got": "[bold]0[/bold]",
    "limit": "3e-07",
    "count": "12 of 480 elements",
    "detail": "one\n  two\x1b[31m\x00",
}


def hard_run() -> list[Event]:
    """A run with every kind of verdict, and text that markup, XML and terminals trip over."""
    return [
        start(),
        result("MSDA-2", "fail", failure=HARD, case_file="detr-cases/x.safetensors", message="<wrong> & [red]"),
        result("MSDA-3", "fail"),
        result("MSDA-10", worst_error_ratio=None, mismatches=0),
        finish(1),
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_every_clause_and_the_failure(
    chapters: list[Chapter], clauses: dict[str, Clause], width: int
) -> None:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_report(console, report_of(clauses, *hard_run()), chapters)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("MSDA-2", "MSDA-3", "MSDA-10", "[bold]0[/bold]", "output[0, 3, 17]"):
        assert shown in text
    assert "Rows [first], then columns." in text
    assert "\ndetr-spec" not in text
    assert "detr-spec check my.py:target --replay detr-cases/x.safetensors" in text
    assert text.splitlines()[-1] == "FAIL  mine does not conform: 1 failed, 1 passed, 1 warning (1.5 s)"
    table = text.partition("MSDA-2 (MUST)")[0]
    assert max(map(len, table.splitlines())) <= width
    assert all(ord(character) >= 32 or character == "\n" for character in text)


def test_ids_are_named_in_runs() -> None:
    assert compact_ids(["A-3", "A-1", "A-2", "A-10", "B-1", "B-2"]) == "A-1 to A-3, A-10, B-1, B-2"


def test_junit_agrees_with_the_verdict(clauses: dict[str, Clause]) -> None:
    events = [*hard_run(), result("MSDA-10", "not-provided", test="z.py::t")]
    deviations = (known("MSDM-1", versions="<1"),)
    suite = ET.fromstring(junit_xml([(report_of(clauses, *events, deviations=deviations), digest(events).results)]))[0]
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "2", "errors": "0", "skipped": "2"}
    message = suite.find("testcase/failure").get("message")  # type: ignore[union-attr]
    assert message == "<wrong> & [red]"


def test_junit_says_what_could_not_be_told(clauses: dict[str, Clause]) -> None:
    report = report_of(clauses, start(), {"event": "error", "message": "no CUDA"})
    suite = ET.fromstring(junit_xml([(report, [])]))[0]
    assert suite.find("testcase/error").get("message") == "no CUDA"  # type: ignore[union-attr]


def test_the_web_page_escapes_what_it_shows(chapters: list[Chapter], clauses: dict[str, Clause]) -> None:
    page = web_page([report_of(clauses, *hard_run())], chapters)
    assert "MSDA-2" in page
    assert "&lt;wrong&gt; &amp; [red]" in page


def test_a_chapter_of_two_operations_of_which_one_is_provided() -> None:
    """Nobody is told that clauses about what he does not provide were not exercised."""
    clauses = load_clauses()
    events = [start(provides=("mlp",)), {**result("FFN-14"), "operation": "mlp"}, finish()]
    report = build_report(events, clauses, target="mine", selection=Selection())
    verdicts = {
        clause: report["clauses"][clause]["verdict"] for clause in ("FFN-1", "FFN-14", "FFN-15", "BLK-1", "SA-1")
    }
    assert verdicts == {
        "FFN-1": "not-provided",
        "FFN-14": "pass",
        "FFN-15": "not-exercised",
        "BLK-1": "not-exercised",
        "SA-1": "not-provided",
    }
