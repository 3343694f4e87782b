"""JSON on disk: compressed by its name, the same bytes every time; what is damaged or too large is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detr_conformance.reporting import json_file
from detr_conformance.reporting.json_file import FileError, read_json, write_json
from helpers.commands import run

REPORT = {
    "schema_version": 1,
    "target": {"name": "mine"},
    "environment": {},
    "verdict": "pass",
    "clauses": {"A-1": {"verdict": "pass", "message": "größer"}},
    "times": {},
}


@pytest.mark.parametrize("name", ["report.json", "report.json.gz"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / name, REPORT)
    assert read_json(tmp_path / name) == REPORT
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_compressed_file_has_no_time_and_no_name(tmp_path: Path) -> None:
    for name in ("one.json.gz", "other.json.gz"):
        write_json(tmp_path / name, REPORT)
    one, other = ((tmp_path / name).read_bytes() for name in ("one.json.gz", "other.json.gz"))
    assert one == other
    assert one[3:8] == bytes(5)  # flags, then the time
    assert b", " not in gzip.decompress(one)


@pytest.mark.parametrize("name", ["report.json", "report.json.gz"])
def test_no_number_that_json_lacks(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / name, {"ratio": float("nan")})
    assert list(tmp_path.iterdir()) == []


def packed(document: Any) -> bytes:
    return gzip.compress(json.dumps(document).encode())


DAMAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is not JSON"),
    "not compressed": (lambda: json.dumps(REPORT).encode(), "damaged, or not compressed by gzip: Not a gzipped file"),
    "cut off": (lambda: packed(REPORT)[:-20], "damaged, or not compressed by gzip"),
    "a byte of the sum is wrong": (lambda: packed(REPORT)[:-8] + b"oddoddod", "CRC check failed"),
    "a byte of the stream is wrong": (lambda: packed(REPORT)[:12] + b"\xff" * 9 + packed(REPORT)[21:], "damaged"),
    "something behind the end": (lambda: packed(REPORT) + b"more", "Not a gzipped file"),
    "no text": (lambda: gzip.compress(b"\xff\xfe\xff"), "is not JSON"),
    "no JSON": (lambda: gzip.compress(b"{"), "is not JSON"),
    "nested without end": (lambda: gzip.compress(b"[" * 1_000_000), "is not JSON"),
    "no report": (lambda: packed({}), "is not a report of `detr-spec check --json`"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_diff_refuses_a_damaged_file_in_one_line(tmp_path: Path, damage: str) -> None:
    make, said = DAMAGES[damage]
    old, new = tmp_path / "old.json.gz", tmp_path / "new.json.gz"
    old.write_bytes(make())
    write_json(new, REPORT)
    result = run("diff", old, new)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert said in result.output
    assert "old.json.gz" in result.output


def test_diff_refuses_what_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "MAX_BYTES", 2**20)
    old, new = tmp_path / "old.json.gz", tmp_path / "new.json.gz"
    write_json(old, REPORT | {"message": "0" * 2**20})
    write_json(new, REPORT)
    assert old.stat().st_size < 5_000
    result = run("diff", old, new)
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "holds more than 1 MiB" in result.output


def test_a_report_as_large_as_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "report.json.gz", REPORT)
    size = len(gzip.decompress((tmp_path / "report.json.gz").read_bytes()))
    monkeypatch.setattr(json_file, "MAX_BYTES", size)
    assert read_json(tmp_path / "report.json.gz") == REPORT
    monkeypatch.setattr(json_file, "MAX_BYTES", size - 1)
    with pytest.raises(FileError, match="holds more than"):
        read_json(tmp_path / "report.json.gz")


def test_diff_compares_a_compressed_report_with_a_plain_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json.gz"
    write_json(old, REPORT)
    write_json(new, REPORT)
    assert run("diff", old, new).output == "no verdict differs\n"
    write_json(new, {**REPORT, "verdict": "fail", "clauses": {"A-1": {"verdict": "fail", "message": "wrong"}}})
    result = run("diff", old, new)
    assert result.exit_code == 1
    assert "A-1: pass -> fail (wrong)" in result.output
