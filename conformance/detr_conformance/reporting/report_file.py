"""Reports on disk, read with a check that they are reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detr_conformance.reporting.json_file import FileError, read_json
from detr_conformance.reporting.report import SCHEMA_VERSION, VERDICTS, Report


def read_reports(path: str | Path) -> dict[str, Report]:
    """The reports in a file, by target name; `check` of several targets writes several into one file.

    Raises:
        FileError: not a file, not JSON, not a report, or of another schema version.
    """
    document = read_json(path)
    if not isinstance(document, dict) or "schema_version" not in document:
        raise FileError(f"{path} is not a report of `detr-spec check --json`: it has no schema_version")
    if document["schema_version"] != SCHEMA_VERSION:
        raise FileError(
            f"{path} has schema_version {document['schema_version']!r}; this detr-spec reads {SCHEMA_VERSION}"
        )
    reports = document.get("reports", [document])
    if not isinstance(reports, list) or not all(map(_is_report, reports)):
        raise FileError(f"{path} is not a report of `detr-spec check --json`: it lacks target, verdict or clauses")
    return {report["target"]["name"]: report for report in reports}


def _is_report(report: Any) -> bool:
    return (
        isinstance(report, dict)
        and report.get("verdict") in VERDICTS
        and isinstance(report.get("target"), dict)
        and isinstance(report["target"].get("name"), str)
        and isinstance(report.get("environment"), dict)
        and isinstance(report.get("clauses"), dict)
        and all(isinstance(entry, dict) and "verdict" in entry for entry in report["clauses"].values())
    )
