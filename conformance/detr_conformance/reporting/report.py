"""From the suite's events to the JSON report: one verdict a clause, and one for the target.

Two runs of the same commit, target and seed give equal reports but for `times`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detr_conformance.evidence.clauses import Clause, natural_key
from detr_conformance.operations import TRAINING_CHAPTER
from detr_conformance.reporting.assess import NOT_PASSED, assess_clause, is_asked, unexercised_clause
from detr_conformance.reporting.deviations import Deviation
from detr_conformance.reporting.events import Digest, Event, digest
from detr_conformance.reporting.findings import findings
from detr_conformance.reporting.reached import claimed_and_not_judged, few_shapes, reached_sizes
from detr_conformance.reporting.selection import Selection
from detr_conformance.reporting.undecided import decided, remedies

SCHEMA_VERSION = 1
Report = dict[str, Any]

# From what leaves one surest to what leaves one least sure; exit statuses 0, 1, 2.
VERDICTS = ("pass", "fail", "error")


def build_report(
    events: Iterable[Event],
    clauses: Mapping[str, Clause],
    deviations: Sequence[Deviation] = (),
    *,
    target: str,
    selection: Selection,
    interrupted: str | None = None,
) -> Report:
    """The report of one target.

    Args:
        events: the stream of `detr_conformance.reporting.events`, possibly broken off.
        clauses: the clauses in force, by id.
        deviations: those that the target declares.
        target: TARGET as typed; the name in the report if the target never said its own.
        selection: what was asked to run.
        interrupted: where the run was ended from outside; what was judged until then stands.
    """
    said = digest(events)
    said.results = decided(said.results, deviations)
    assessed = _clauses(said, clauses, deviations, target, selection)
    verdict, message = _verdict(said, clauses, deviations, assessed)
    incomplete = _incomplete(said, interrupted)
    if interrupted and verdict != "fail":
        verdict, message = "error", incomplete
    return {
        "schema_version": SCHEMA_VERSION,
        "target": {"name": target, "version": None, **said.target, **_claims(said.info)},
        "environment": dict(sorted(said.environment.items())),
        "verdict": verdict,
        "message": message,
        "incomplete": incomplete,
        "findings": findings([name for name, entry in assessed.items() if entry["verdict"] == "fail"], said.results),
        "clauses": assessed,
        "claimed_and_not_judged": claimed_and_not_judged(said, selection),
        "few_shapes": few_shapes(said.results),
        "hints": remedies(said.results),
        "reached": reached_sizes(said.results),
        "sizes_left_out": said.info.get("sizes_left_out", []),
        "times": {
            "seconds": said.seconds,
            "tests": {result["test"]: result.get("seconds") for result in _by_test(said.results)},
        },
    }


def combine(reports: Sequence[Report]) -> Report:
    """One document for several targets; the verdict is the worst."""
    return {"schema_version": SCHEMA_VERSION, "verdict": worst_verdict(reports), "reports": list(reports)}


def worst_verdict(reports: Iterable[Report]) -> str:
    """ "error" before "fail" before "pass": the worst is what leaves one least sure."""
    return max((report["verdict"] for report in reports), key=VERDICTS.index)


def exit_code(verdict: str) -> int:
    """0 conforms, 1 does not, 2 cannot tell."""
    return VERDICTS.index(verdict)


def _incomplete(said: Digest, interrupted: str | None) -> str | None:
    """Why not all was judged that was asked for, and how much was."""
    why = interrupted or ("stopped at the first failure" if said.stopped else None)
    return why and f"{why}, after {len(said.results)} of {said.collected or '?'} tests"


def _claims(info: Mapping[str, Any]) -> dict[str, Any]:
    return {key: info[key] for key in ("provides", "devices", "dtypes", "features", "variants") if key in info}


def _by_test(results: Iterable[Event]) -> list[Event]:
    return sorted(results, key=lambda result: result["test"])


def _clauses(
    said: Digest,
    clauses: Mapping[str, Clause],
    deviations: Sequence[Deviation],
    target: str,
    selection: Selection,
) -> dict[str, Any]:
    if not said.results:
        return {}
    results: dict[str, list[Event]] = {}
    for result in _by_test(said.results):
        for clause_id in result["clauses"]:
            results.setdefault(clause_id, []).append(result)
    assessed = {}
    trained = selection.profile == "training"
    asked = [c for c in clauses.values() if (c.chapter == TRAINING_CHAPTER) == trained and selection.asks([c.id])]
    in_order = sorted(asked, key=lambda clause: (clause.chapter, natural_key(clause.id)))
    for clause_id, clause in ((clause.id, clause) for clause in in_order):
        declared = [entry for entry in deviations if entry.clause == clause_id]
        if clause_id in results:
            assessed[clause_id] = assess_clause(clause, results[clause_id], declared, said, target, selection)
        elif is_asked(clause, selection):
            assessed[clause_id] = unexercised_clause(clause, declared, said)
    return assessed


def _verdict(
    said: Digest,
    clauses: Mapping[str, Clause],
    deviations: Sequence[Deviation],
    assessed: Mapping[str, Any],
) -> tuple[str, str | None]:
    if said.errors:
        return "error", said.errors[0]
    broken = [result for result in _by_test(said.results) if result["outcome"] == "error"]
    if broken:
        return "error", f"the suite itself failed in {broken[0]['test']}: {broken[0].get('message')}"
    unnamed = [result["test"] for result in _by_test(said.results) if not result["clauses"]]
    if unnamed:
        return "error", f"the suite itself failed: {unnamed[0]} names no clause"
    unworded = {name for result in said.results for name in result["clauses"]} - set(clauses)
    if unworded:
        return "error", f"tests name clauses that no chapter has: {', '.join(sorted(unworded))}"
    if not any(result["outcome"] in ("pass", *NOT_PASSED) for result in said.results):
        provided = ", ".join(said.info.get("provides", ())) or "nothing"
        return (
            "error",
            f"nothing was exercised: no test of the selection applies to what the target provides, {provided}",
        )
    unknown = sorted({entry.clause for entry in deviations} - set(clauses))
    if unknown:
        return "fail", f"the deviation file names clauses that are not in force: {', '.join(unknown)}"
    failed = [name for name, entry in assessed.items() if entry["verdict"] == "fail"]
    if failed:
        return "fail", f"{', '.join(failed)} failed"
    undecided = [e for e in assessed.values() if e["verdict"] == "undecided" and e["level"] == "MUST"]
    return ("fail", undecided[0]["undecided"]["message"]) if undecided else ("pass", None)
