"""`detr-spec site`: what it writes, what it refuses, with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detr_conformance.cli.site import MARK, site
from detr_conformance.reporting.json_file import write_json
from detr_conformance.reporting.report import combine
from helpers.reports.shown_reports import failing_report, passing_report


def run(*arguments: object) -> Result:
    return CliRunner().invoke(site, [str(argument) for argument in arguments])


@pytest.fixture
def report(tmp_path: Path) -> Path:
    write_json(tmp_path / "mine.json.gz", failing_report(3))
    return tmp_path / "mine.json.gz"


def test_a_site_is_written_and_written_anew(tmp_path: Path, report: Path) -> None:
    folder = tmp_path / "a" / "site"
    assert run(folder, report).exit_code == 0
    assert (folder / "implementations" / "planted.html").is_file()
    assert "rejected by" in (folder / "clauses" / "MSDA-2.html").read_text()
    assert json.loads((folder / "badges" / "planted.json").read_text())["message"] == "3 clauses fail"
    write_json(tmp_path / "two.json", combine([passing_report() | {"target": {"name": "another"}}]))
    done = run(folder, tmp_path / "two.json")
    assert (done.exit_code, done.stdout) == (0, f"{folder / 'index.html'}\n")
    assert [file.name for file in (folder / "implementations").iterdir()] == ["another.html"]


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path, report: Path) -> None:
    done = run(tmp_path, report)
    assert done.exit_code == 2
    assert "is not empty" in done.output
    assert {file.name for file in tmp_path.iterdir()} == {report.name}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("{}", "is not a report"),
        ('{"schema_version": 99}', "schema_version 99"),
        ('{"schema_version": 1, "reports": [1]}', "is not a report"),
    ],
)
def test_what_is_no_report_is_told_and_nothing_is_written(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    done = run(tmp_path / "site", tmp_path / "bad.json")
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "site").exists()


def test_what_cannot_be_written_is_told(tmp_path: Path, report: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "site", report)
    assert done.exit_code == 2
    assert "cannot write" in done.output


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, report: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / MARK).write_text("")
    (folder / "clauses").symlink_to(outside)
    run(folder, report)
    assert [file.name for file in outside.iterdir()] == ["kept"]
    assert (folder / "clauses" / "MSDA-1.html").is_file()
