"""Tables of verdicts: real implementations, the causes of their deviations, and what stands behind a verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from detr_conformance.evidence.catalogue import covering_tests, mutants
from detr_conformance.evidence.clauses import load_chapters, load_clauses
from detr_conformance.reporting.findings import KILL_MATRIX
from detr_conformance.reporting.json_file import read_json
from filling.runs import BLOCKS, DETECTORS
from filling.saved import saved

REAL = ("torch", "transformers", "reference-compiled", "transformers-detectors")
FAMILIES = 10  # of transformers, in the short table
JUDGED = ("pass", "warn", "by-design", "bug")  # of a clause, the worst last


def reports(*runs: str) -> Iterator[dict[str, Any]]:
    """The saved reports of these runs."""
    for name in runs:
        report = saved(name)
        yield from report.get("reports", [report])


def blocks() -> str:
    return _by_target(BLOCKS, "torch", "transformers", "reference-compiled")


def detectors() -> str:
    return _by_target(DETECTORS, "transformers-detectors")


def _by_target(about: list[str], *names: str) -> str:
    """A line an implementation: what it provides of these operations and where it differs."""
    lines = ["| target | operations | passes | declared deviations | warnings | verdict |", "|---" * 6 + "|"]
    for report in reports(*names):
        by_verdict: dict[str, list[str]] = {}
        for clause, entry in report["clauses"].items():
            by_verdict.setdefault(entry["verdict"], []).append(clause)
        operations = ", ".join(f"`{operation}`" for operation in report["target"]["provides"] if operation in about)
        deviations, warnings = (shortened(by_verdict.get(verdict, [])) for verdict in ("deviation", "warn"))
        passed = len(by_verdict.get("pass", []))
        name, verdict = report["target"]["name"], report["verdict"]
        lines.append(f"| {name} | {operations} | {passed} | {deviations} | {warnings} | {verdict} |")
    return "\n".join(lines)


def shortened(clauses: list[str]) -> str:
    """MSDA-1, MSDA-3, MHA-2 as "MSDA-1, 3; MHA-2"."""
    numbers: dict[str, list[str]] = {}
    for clause in clauses:
        prefix, _, number = clause.rpartition("-")
        numbers.setdefault(prefix, []).append(number)
    return "; ".join(f"{prefix}-{', '.join(several)}" for prefix, several in numbers.items())


def in_short() -> str:
    """torch, and the families of transformers that have most operations: how many clauses passed, and which did not."""
    operations: dict[str, int] = {}
    judged: dict[str, dict[str, str]] = {}
    for report in reports(*REAL):
        name = report["target"]["name"]
        operations[name] = len(report["target"]["provides"])
        of_clause = judged.setdefault(name, {})
        for clause, entry in report["clauses"].items():
            found = (entry["deviation"] or {}).get("kind", entry["verdict"])
            if found in JUDGED:  # both runs ask the clauses of every block
                of_clause[clause] = max(of_clause.get(clause, "pass"), found, key=JUDGED.index)
    families = sorted((name for name in judged if "transformers-" in name), key=operations.__getitem__, reverse=True)
    lines = [
        "| implementation | operations | clauses: pass | warning | by design | bug |",
        "|---" * 6 + "|",
    ]
    for name in [*(name for name in judged if "torch-" in name), *families[:FAMILIES]]:
        counts = Counter(judged[name].values())
        cells = " | ".join(str(counts[verdict]) for verdict in JUDGED)
        lines.append(f"| {name} | {operations[name]} | {cells} |")
    return "\n".join(lines)


def causes() -> str:
    """Each declared deviation once: the clause, its kind and cause, and who has it."""
    having: dict[tuple[str, str, str], list[str]] = {}
    for report in reports(*REAL):
        for clause, entry in report["clauses"].items():
            if known := entry["deviation"]:
                reason = re.sub(r" \([\w/.]+\.py:[\d, -]+\)$", "", known["reason"])
                having.setdefault((clause, known["kind"], reason), []).append(report["target"]["name"])
    lines = ["| clause | kind | cause | targets |", "|---" * 4 + "|"]
    clauses = load_clauses()
    order = list(clauses)
    for (clause, kind, reason), names in sorted(having.items(), key=lambda item: order.index(item[0][0])):
        short = [name.removeprefix("transformers-") for name in names]
        lines.append(f"| {clause} {clauses[clause].short} | {kind} | {reason} | {', '.join(short)} |")
    return "\n".join(lines)


def chapters() -> str:
    """What there is: clauses, tests and mutants of each chapter."""
    tests, wrong = covering_tests(), mutants()
    lines = ["| chapter | clauses | tests | mutants |", "|---" * 4 + "|"]
    for chapter in load_chapters():
        if not chapter.clauses:
            continue
        ids = {clause.id for clause in chapter.clauses}
        link = f"[{chapter.title}](reference/detr_reference/spec/{chapter.file})"
        count = len({(test.file, test.test) for test in tests if test.clause in ids})
        lines.append(f"| {link} | {len(ids)} | {count} | {sum(mutant.clause in ids for mutant in wrong)} |")
    return "\n".join(lines)


def kill_rates() -> str:
    found = read_json(KILL_MATRIX)
    total, declared, naive = (found[key] for key in ("total", "rejected_by_declared_clause", "rejected_by_naive_check"))
    return (
        f"Of {total} mutants {declared} are rejected by the clause they declare; a naive check (initial weights, "
        f"H = W, locations in [0, 1), tolerance 1e-2) rejects {naive}."
    )
