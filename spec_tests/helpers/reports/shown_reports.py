"""Reports for pages to show: one with as many failures as asked for, and one with none. No target was run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.harness.case import Case
from detr_conformance.harness.case_files import write_case
from detr_conformance.reporting.report import Report

HOSTILE = "<script>alert(1)</script><img src=https://example.org/x.png>"
OPERATION = "ms_deform_attn"
WHERE = "output[0, 2, 4]"


def case_of_samples() -> Case:
    """Two levels, three queries; of the last one, samples lie inside, on the border and outside."""
    locations = torch.full((1, 3, 2, 2, 3, 2), 0.5)
    locations[0, 2, 1, :, 1] = torch.tensor([0.01, 0.5])
    locations[0, 2, 1, :, 2] = torch.tensor([1.4, -0.3])
    tensors = {
        "value": torch.ones(1, 24 + 6, 2, 3),
        "spatial_shapes": torch.tensor([[4, 6], [2, 3]]),
        "level_start_index": torch.tensor([0, 24]),
        "sampling_locations": locations,
        "attention_weights": torch.ones(1, 3, 2, 2, 3),
    }
    return Case(tensors, note="planted")


def passing_report() -> Report:
    return _report({name: _entry("pass") for name in _ids(40)}, "pass")


def failing_report(failures: int = 30, cases: Path | None = None) -> Report:
    """Failures, of which the second is the cause of most; two undecided, a warning, a deviation, passes, a likeness."""
    names = _ids(failures + 10)
    failed, rest = names[:failures], names[failures:]
    entries = {name: _failure(name, cases) for name in failed}
    entries |= {name: _entry("pass") for name in rest}
    for name in rest[:2]:
        entries[name] = _entry("undecided") | {
            "undecided": {"clause": failed[1], "message": f"the plain call is wrong {HOSTILE}"}
        }
    entries[rest[2]] = _failure(rest[2], None) | {"verdict": "warn"}
    entries[rest[3]] = _failure(rest[3], None) | {
        "verdict": "deviation",
        "deviation": {"kind": "bug", "reason": f"known {HOSTILE}", "link": "javascript:alert(1)"},
    }
    entries[rest[4]] = _entry("not-provided") | {"message": "the feature export is not claimed"}
    report = _report(entries, "fail")
    report["findings"] = [
        {"clause": failed[1], "follows": failed[2 : failures - 2]},
        {"clause": failed[0], "follows": []},
    ]
    report["behaves_like"] = [
        {"operation": OPERATION, "names": ["border-clamp"], "summaries": [f"Clamps {HOSTILE}"], "cases": 5, "probes": 7}
    ]
    report["hints"] = [f"do this {HOSTILE}"]
    return report


def _ids(count: int) -> list[str]:
    return [name for name, clause in load_clauses().items() if clause.chapter.startswith("01-")][:count]


def _report(entries: dict[str, Any], verdict: str) -> Report:
    target = {"name": "planted", "version": "1.2", "provides": [OPERATION], "dtypes": ["float32", "float16"]}
    environment = {"profile": "smoke", "seed": 0, "torch": "2.13.0", "devices": {"cpu": "x86_64"}}
    return {
        "schema_version": 1,
        "target": target,
        "environment": environment,
        "verdict": verdict,
        "message": None,
        "clauses": entries,
        "times": {"seconds": 1.5, "tests": {}},
    }


def _entry(verdict: str) -> dict[str, Any]:
    return {
        "level": "MUST",
        "verdict": verdict,
        "tests": ["test_x.py::test_y[cpu-float32]"],
        "worst_error_ratio": {OPERATION: {"cpu": {"float32": 0.5, "float16": 0.02}}},
        "mismatches": {},
        "message": None,
        "failed_tests": [],
        "failure": None,
        "case_file": None,
        "replay": None,
        "deviation": None,
    }


def _failure(name: str, cases: Path | None) -> dict[str, Any]:
    failure = {
        "test": "test_x.py::test_y[cpu-float32]",
        "operation": OPERATION,
        "device": "cpu",
        "dtype": "float32",
        "where": WHERE,
        "expected": "0.5",
        "got": "4.25",
        "limit": "2.4e-05",
        "count": "3 of 18 elements",
        "detail": f"planted {HOSTILE}",
    }
    entry = _entry("fail") | {
        "worst_error_ratio": {OPERATION: {"cpu": {"float32": 156250.0, "float16": 0.02}}},
        "message": f"{WHERE}: expected 0.5, got 4.25, limit 2.4e-05 {HOSTILE}",
        "failed_tests": [failure["test"]],
        "failure": failure,
        "replay": f"detr-spec check mine.py:target --replay {name}.safetensors",
    }
    if cases is not None:
        entry["case_file"] = str(write_case(cases, case_of_samples(), clause=name, test=failure["test"]))
    return entry
