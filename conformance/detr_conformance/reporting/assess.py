"""The verdict on one clause, from the results of its tests and the deviations declared for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from detr_conformance.evidence.catalogue import CoveringTest, covering_tests
from detr_conformance.evidence.clauses import Clause
from detr_conformance.operations import OPERATIONS
from detr_conformance.reporting.deviations import Deviation
from detr_conformance.reporting.events import Digest, Event
from detr_conformance.reporting.selection import Selection, replay_command

Entry = dict[str, Any]

NOT_PASSED = ("fail", "undecided")


def assess_clause(
    clause: Clause,
    results: Sequence[Event],
    deviations: Sequence[Deviation],
    said: Digest,
    target: str,
    selection: Selection,
) -> Entry:
    """The report's entry of a clause that tests reported on; `results` are sorted by test."""
    ran = _with_outcome(results, "pass", *NOT_PASSED)
    failed = _with_outcome(results, *NOT_PASSED)
    unknown = [result for result in failed if not any(entry.covers(result) for entry in deviations)]
    entry = _entry(clause, _verdict(clause, results, unknown))
    entry["tests"] = [result["test"] for result in results if result["outcome"] != "not-provided"]
    entry["worst_error_ratio"] = _nested(ran, "worst_error_ratio", max)
    entry["mismatches"] = _nested([r for r in ran if r.get("mismatches") is not None], "mismatches", sum)
    entry["message"] = _remark(results, ran)
    if entry["verdict"] == "undecided":
        entry["undecided"] = {"clause": unknown[0].get("undecided_by"), "message": unknown[0].get("message")}
    if failed:
        _describe_failure(entry, unknown or failed, failed, target, selection)
    if deviations:
        _apply_deviations(entry, results, deviations, said, selection)
    return entry


def unexercised_clause(clause: Clause, deviations: Sequence[Deviation], said: Digest) -> Entry:
    """The report's entry of a clause that no test reported on."""
    operations = _operations(clause)
    provided = not operations or operations & set(said.info.get("provides", ()))
    entry = _entry(clause, "not-exercised" if provided else "not-provided")
    _refuse_stale(entry, deviations, said)
    return entry


def is_asked(clause: Clause, selection: Selection) -> bool:
    """Whether the clause is about one of the operations that were asked for, if some were named."""
    about = _operations(clause)
    return not selection.operations or not about or not about.isdisjoint(selection.operations)


def _operations(clause: Clause) -> set[str]:
    """The operations that a clause is about: those of its tests, or of its chapter if these do not say."""
    tests = [test for test in _covering_tests() if test.clause == clause.id]
    if tests and all(test.operations for test in tests):
        return {operation for test in tests for operation in test.operations}
    return {name for name, operation in OPERATIONS.items() if clause.chapter in operation.chapters}


@cache
def _covering_tests() -> list[CoveringTest]:
    return covering_tests()


def _entry(clause: Clause, verdict: str) -> Entry:
    return {
        "level": clause.level,
        "verdict": verdict,
        "tests": [],
        "worst_error_ratio": {},
        "mismatches": {},
        "message": None,
        "failed_tests": [],
        "failure": None,
        "case_file": None,
        "replay": None,
        "deviation": None,
        "undecided": None,
    }


def _verdict(clause: Clause, results: Sequence[Event], unknown_failures: Sequence[Event]) -> str:
    outcomes = {result["outcome"] for result in results}
    if any(result.get("died") for result in results):
        return "fail"  # whatever was declared: nothing excuses the end of the process
    if unknown_failures and all(result["outcome"] == "undecided" for result in unknown_failures):
        return "undecided"
    if unknown_failures:
        return "fail" if clause.level == "MUST" else "warn"
    if not outcomes.isdisjoint(NOT_PASSED):
        return "deviation"
    if "error" in outcomes:
        return "not-exercised"  # a pass elsewhere would claim more than is known
    if "pass" in outcomes:
        return "pass"
    return "not-exercised" if "not-exercised" in outcomes else "not-provided"


def _with_outcome(results: Sequence[Event], *outcomes: str) -> list[Event]:
    return [result for result in results if result["outcome"] in outcomes]


def _remark(results: Sequence[Event], ran: Sequence[Event]) -> str | None:
    """What a reader of a passing or silent clause should know."""
    if broken := _with_outcome(results, "error"):
        return f"the suite itself failed in {broken[0]['test']}: {broken[0].get('message')}"
    missed = _with_outcome(results, "not-exercised")
    if missed and ran:
        return f"not exercised: {', '.join(result['test'] for result in missed)}"
    return next((result["message"] for result in [*missed, *results] if result.get("message")), None)


def _nested(results: Sequence[Event], key: str, merge: Callable[[list[Any]], Any]) -> dict[str, Any]:
    """{operation: {device: {dtype: merged}}}; None where no result has a number."""
    numbers: dict[tuple[str, str, str], list[Any]] = {}
    for result in results:
        if result.get("operation"):
            place = (result["operation"], result.get("device") or "-", result.get("dtype") or "-")
            numbers.setdefault(place, []).extend([] if result.get(key) is None else [result[key]])
    nested: dict[str, Any] = {}
    for (operation, device, dtype), values in sorted(numbers.items()):
        nested.setdefault(operation, {}).setdefault(device, {})[dtype] = merge(values) if values else None
    return nested


def _describe_failure(
    entry: Entry, candidates: Sequence[Event], failed: Sequence[Event], target: str, selection: Selection
) -> None:
    """Show one failure in full, the first that is decided and has numbers, and name the others."""
    shown = max(candidates, key=lambda result: (result["outcome"] == "fail", bool(result.get("failure"))))
    entry["message"] = shown.get("message")
    entry["failed_tests"] = [result["test"] for result in failed]
    entry["failure"] = {
        **{key: shown.get(key) for key in ("test", "operation", "device", "dtype")},
        **(shown.get("failure") or {}),
    }
    if shown.get("case_file"):
        entry["case_file"] = shown["case_file"]
        entry["replay"] = replay_command(target, shown["case_file"], selection)


def _apply_deviations(
    entry: Entry,
    results: Sequence[Event],
    deviations: Sequence[Deviation],
    said: Digest,
    selection: Selection,
) -> None:
    if entry["verdict"] == "deviation":
        failed = _with_outcome(results, *NOT_PASSED)
        holds = next(known for known in deviations if any(known.covers(result) for result in failed))
        entry["deviation"] = {"kind": holds.kind, "reason": holds.reason, "link": holds.link}
    for known in deviations:
        if _passes_unexpectedly(known, results, said, selection):
            entry["verdict"] = "fail"
            entry["message"] = f"unexpected pass: remove the deviation ({known.kind}: {known.reason})"
    _refuse_stale(entry, deviations, said)


def _refuse_stale(entry: Entry, deviations: Sequence[Deviation], said: Digest) -> None:
    for known in deviations:
        if problem := known.version_problem(said.target.get("version")):
            entry["verdict"] = "fail"
            entry["message"] = problem


def _passes_unexpectedly(known: Deviation, results: Sequence[Event], said: Digest, selection: Selection) -> bool:
    """Whether all that the entry names was exercised and nothing of it failed."""
    named = [result for result in results if known.covers(result)]
    passed = _with_outcome(named, "pass")
    if not passed or len(passed) < len([r for r in named if r["outcome"] != "not-provided"]):
        return False
    seen_operations = {result.get("operation") for result in passed}
    seen_dtypes = {result.get("dtype") for result in passed}
    return (
        seen_operations >= set(known.operations)
        and seen_dtypes >= set(known.dtypes)
        and not _narrowed_away(known, said, selection)
    )


def _narrowed_away(known: Deviation, said: Digest, selection: Selection) -> bool:
    """Whether the options of this run left out something in which the deviation might show: smoke and few shapes do."""

    def left_out(chosen: set[str], named: Sequence[str], claimed: str) -> bool:
        return bool(chosen) and not set(named or said.info.get(claimed, ())) <= chosen

    return (
        selection.replay is not None
        or selection.profile == "smoke"
        or selection.shapes == "few"
        or left_out(set(selection.operations), known.operations, "provides")
        or left_out({selection.dtype} if selection.dtype else set(), known.dtypes, "dtypes")
        or left_out({selection.device} if selection.device else set(), (), "devices")
    )
