"""Reports in the XML that CI systems read: a test case for each result, a test suite for each target."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detr_conformance.reporting.events import Event
from detr_conformance.reporting.report import Report

# What XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(runs: Iterable[tuple[Report, Sequence[Event]]]) -> str:
    """The document for one or several targets, each given by its report and the results of its tests.

    A failure that the report accepts (a known deviation, a warning) is a skipped case, so that the colour
    of the CI and the exit status of `check` agree.
    """
    root = ET.Element("testsuites", name="detr-spec")
    for report, results in runs:
        suite = ET.SubElement(root, "testsuite", name=_clean(report["target"]["name"]))
        for result in sorted(results, key=lambda result: result["test"]):
            _test_case(suite, report, result)
        _clause_cases(suite, report)
        if report["verdict"] == "error":
            _add(_case(suite, "detr-spec", "check"), "error", report["message"] or "")
        suite.set("tests", str(len(suite)))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
        suite.set("time", f"{report['times']['seconds'] or 0:.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _test_case(suite: ET.Element, report: Report, result: Event) -> None:
    file, _, name = result["test"].partition("::")
    case = _case(suite, file.removesuffix(".py"), f"{name} ({', '.join(result['clauses'])})")
    case.set("time", f"{result.get('seconds') or 0:.3f}")
    message = result.get("message") or ""
    match result["outcome"]:
        case "fail" | "undecided" if accepted := _accepted(report, result):
            _add(case, "skipped", f"{accepted}: {message}")
        case "fail" | "undecided":
            _add(case, "failure", message, _details(result))
        case "error":
            _add(case, "error", message, _details(result))
        case "not-provided" | "not-exercised" as outcome:
            _add(case, "skipped", f"{outcome}: {message}" if message else outcome)


def _clause_cases(suite: ET.Element, report: Report) -> None:
    """Clauses that fail without a failed test, for a deviation that no longer holds, and the like."""
    for clause, entry in report["clauses"].items():
        if entry["verdict"] == "fail" and not entry["failed_tests"]:
            _add(_case(suite, "clauses", clause), "failure", entry["message"] or "")
    if report["verdict"] == "fail" and not any(e["verdict"] == "fail" for e in report["clauses"].values()):
        _add(_case(suite, "detr-spec", "check"), "failure", report["message"] or "")


def _accepted(report: Report, result: Event) -> str:
    """Why a failure does not count, or "" if it does for one of its clauses."""
    verdicts = {report["clauses"].get(clause, {}).get("verdict") for clause in result["clauses"]}
    return " and ".join(sorted(map(str, verdicts))) if verdicts <= {"warn", "deviation"} else ""


def _details(result: Event) -> str:
    failure: Mapping[str, Any] = result.get("failure") or {}
    lines = [f"{key}: {value}" for key, value in failure.items() if value and key != "detail"]
    lines += [str(failure["detail"])] if failure.get("detail") else []
    lines += [f"case file: {result['case_file']}"] if result.get("case_file") else []
    return "\n".join(lines)


def _case(suite: ET.Element, classname: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=_clean(classname), name=_clean(name))


def _add(case: ET.Element, tag: str, message: str, text: str = "") -> None:
    child = ET.SubElement(case, tag, message=_clean(message))
    child.text = _clean(text) or None


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
