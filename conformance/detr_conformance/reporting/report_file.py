"""Reports on disk: written whole or not at all, and read with a check that they are reports."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from detr_conformance.reporting.report import SCHEMA_VERSION, VERDICTS, Report


class ReportError(Exception):
    """A file that is not a report, or cannot be read or written; the message says which and why."""


def write_report(path: str | Path, report: Report) -> None:
    """Write a report as JSON."""
    write_whole(path, json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_whole(path: str | Path, text: str) -> None:
    """Replace a file's content at once: a reader sees the old text or the new, never half of either.

    Raises:
        ReportError: the folder is missing or may not be written to.
    """
    path = Path(path).resolve()
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a named pipe
            path.write_text(text, encoding="utf-8")
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp leaves it readable to its owner alone
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}") from error


def read_reports(path: str | Path) -> dict[str, Report]:
    """The reports in a file, by target name; `check` of several targets writes several into one file.

    Raises:
        ReportError: not a file, not JSON, not a report, or of another schema version.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ReportError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or "schema_version" not in document:
        raise ReportError(f"{path} is not a report of `detr-spec check --json`: it has no schema_version")
    if document["schema_version"] != SCHEMA_VERSION:
        raise ReportError(
            f"{path} has schema_version {document['schema_version']!r}; this detr-spec reads {SCHEMA_VERSION}"
        )
    reports = document.get("reports", [document])
    if not isinstance(reports, list) or not all(map(_is_report, reports)):
        raise ReportError(f"{path} is not a report of `detr-spec check --json`: it lacks target, verdict or clauses")
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
