"""`detr-spec check` as a user runs it: verdicts, exit codes, replays, equal reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.places import EXAMPLES

KERNEL = EXAMPLES / "grid_sample_kernel.py"


def quick(*clauses: int) -> tuple[str, ...]:
    """A short run of these clauses of the core."""
    asked = [part for clause in clauses for part in ("--clause", f"MSDA-{clause}")]
    return ("--profile", "smoke", "--dtype", "float32", *asked)


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "detr_reference.cli", "check", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def report(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    del found["times"]
    return found


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of the broken example, in a folder of its own."""
    folder = tmp_path_factory.mktemp("failed")
    return folder, check(folder, f"{KERNEL}:broken", *quick(1, 15, 21), "--json", "first.json")


def test_a_right_kernel_conforms(tmp_path: Path) -> None:
    done = check(
        tmp_path,
        f"{KERNEL}:target",
        *quick(21, 41, 43),
        "--clause",
        "MSDM-1",
        "--json",
        "report.json",
        "--junit",
        "report.xml",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = report(tmp_path / "report.json")
    assert found["verdict"] == "pass"
    assert found["clauses"]["MSDA-21"]["worst_error_ratio"]["ms_deform_attn"]["cpu"]["float32"] < 1
    assert {found["clauses"][clause]["verdict"] for clause in ("MSDA-41", "MSDA-43")} == {"warn"}
    assert found["clauses"]["MSDM-1"]["verdict"] == "not-provided"
    assert (tmp_path / "report.xml").is_file()


def test_a_wrong_kernel_does_not(failed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = failed
    assert done.returncode == 1, done.stdout + done.stderr
    clause = report(folder / "first.json")["clauses"]["MSDA-15"]
    assert clause["verdict"] == "fail"
    assert {"where", "expected", "got", "limit"} <= set(clause["failure"])
    assert "MSDA-15" in done.stdout
    assert "--replay" in done.stdout


def test_a_crash_leaves_no_other_clause_unjudged(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(
        "import os\n"
        "from detr_conformance import Target\n"
        "from detr_reference import ms_deform_attn\n"
        "def kernel(value, shapes, starts, locations, weights):\n"
        "    if not locations.isfinite().all(): os.abort()\n"
        "    return ms_deform_attn(value, shapes, starts, locations, weights)\n"
        "target = Target(name='crashing', provides={'ms_deform_attn': kernel})\n"
    )
    done = check(tmp_path, "crashing.py:target", *quick(13, 33, 40), "--json", "report.json")
    assert done.returncode == 1, done.stdout + done.stderr
    clauses = {name: entry for name, entry in report(tmp_path / "report.json")["clauses"].items() if "MSDA-" in name}
    assert "the process died with SIGABRT in this test" in clauses["MSDA-40"]["message"]
    assert "not-exercised" not in {entry["verdict"] for entry in clauses.values()}
    assert clauses["MSDA-13"]["verdict"] == clauses["MSDA-33"]["verdict"] == "pass"


def test_an_infinite_output_is_a_finding(tmp_path: Path) -> None:
    """Infinity where a number is due fails the clause; neither the suite nor the report may break on it."""
    (tmp_path / "infinite.py").write_text(
        "from detr_conformance import Target\n"
        "from detr_reference.deformable_attention.core import ms_deform_attn\n"
        "def core(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):\n"
        "    far = (sampling_locations.detach().abs() > 2).any()\n"
        "    output = ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)\n"
        "    return output + float('inf') if far else output\n"
        "target = Target('infinite', {'ms_deform_attn': core})\n"
    )
    done = check(tmp_path, "infinite.py:target", *quick(1, 16), "--json", "report.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert report(tmp_path / "report.json")["clauses"]["MSDA-16"]["verdict"] == "fail"


def test_two_runs_give_the_same_report(failed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = failed
    check(folder, f"{KERNEL}:broken", *quick(1, 15, 21), "--json", "second.json")
    assert report(folder / "first.json") == report(folder / "second.json")


def test_a_replay_judges_one_case(failed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """It fails the kernel that it was saved for, and passes another."""
    folder, _ = failed
    case = report(folder / "first.json")["clauses"]["MSDA-15"]["case_file"]
    assert check(folder, f"{KERNEL}:broken", "--replay", case).returncode == 1
    repaired = check(folder, f"{KERNEL}:target", "--replay", case)
    assert repaired.returncode == 0
    assert "this case passes now" in repaired.stdout


def test_no_verdict_without_an_ordinary_call(tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(
        "from detr_conformance import Target\n"
        "def core(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):\n"
        "    raise RuntimeError('no kernel image')\n"
        "target = Target('raises', {'ms_deform_attn': core})\n"
        "short = Target('short', {'ms_deform_attn': lambda value: value})\n",
        encoding="utf-8",
    )
    for attribute, said in (("target", "no kernel image"), ("short", "wrong signature"), ("none", "its targets are")):
        done = check(tmp_path, f"raises.py:{attribute}")
        assert done.returncode == 2, done.stdout + done.stderr
        assert said in " ".join((done.stdout + done.stderr).split())
        assert "Traceback" not in done.stdout + done.stderr


def test_inside_somebodys_own_test_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--pyargs", "detr_conformance.suite", "-q", "-p", "no:cacheprovider"]
    command += ["-k", "test_zeros_beyond_the_border", "--detr-profile", "smoke", "--detr-json", "report.json"]
    for attribute, code in (("target", 0), ("broken", 1)):
        done = subprocess.run(
            [*command, "--detr-target", f"{KERNEL}:{attribute}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert report(tmp_path / "report.json")["clauses"]["MSDA-15"]["verdict"] == ("fail" if code else "pass")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "--detr-target" in done.stdout + done.stderr
