"""What cannot be judged because of something else: a result that fails of what any call is held to.

An output of the wrong shape, no graph, a parameter without a name: whatever a test asks, it fails there. The clause
that says so (`detr_conformance.evidence.any_call.COMMON`) is the one that failed, and the others are undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from detr_conformance.evidence.any_call import clause_of
from detr_conformance.reporting.deviations import Deviation
from detr_conformance.reporting.events import Event

REMEDIES = {
    "graph": "backward is claimed, as Target does by default; if it is forward only, say features=()",
    "parameters": "gradients of parameters are read by name; where a module has names of its own, give it a method "
    "spec_parameters(self) that returns the own tensor by the reference's name, {{{example}: ..., }} of all of them",
}


def decided(results: Iterable[Event], deviations: Sequence[Deviation]) -> list[Event]:
    """The results; one that fails of what any call is held to is undecided, if the clause that says so fails itself."""
    every = list(results)
    failing = {
        (result.get("operation"), clause)
        for result in every
        for clause in result["clauses"]
        if result["outcome"] == "fail"
        and clause == _held_to(result)
        and not any(entry.clause == clause and entry.covers(result) for entry in deviations)
    }
    return [_undecided(result) if _stands_behind(result, failing) else result for result in every]


def remedies(results: Iterable[Event]) -> list[str]:
    """What is to be done about a failure that stands before all others, once each."""
    found: dict[str, str] = {}
    for result in results:
        failure = result.get("failure") or {}
        kind = failure.get("kind")
        if result["outcome"] == "fail" and kind in REMEDIES:
            found.setdefault(kind, REMEDIES[kind].format(example=f'"{failure.get("where")}"'))
    return list(found.values())


def _held_to(result: Event) -> str | None:
    return clause_of((result.get("failure") or {}).get("kind"), result.get("operation") or "")


def _stands_behind(result: Event, failing: set[tuple[str | None, str]]) -> bool:
    clause = _held_to(result)
    return (
        result["outcome"] in ("fail", "undecided")
        and clause not in result["clauses"]
        and (result.get("operation"), clause) in failing
    )


def _undecided(result: Event) -> Event:
    return result | {"outcome": "undecided", "undecided_by": _held_to(result)}
