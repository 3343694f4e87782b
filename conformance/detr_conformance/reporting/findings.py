"""Which of the clauses that failed to look at first, and which only follow.

One mistake breaks many clauses. What breaks together is known from the kill matrix: of each mutant, an implementation
with one known mistake, it has the clause that the mistake is about and all that it fails. The clause named first is the
one that the mutants which failed most nearly the same clauses are about. Another clause follows from it if most mutants
that fail the first fail it too, or if both fail of the same exception.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from detr_conformance import evidence
from detr_conformance.evidence.any_call import clause_of
from detr_conformance.evidence.clauses import natural_key
from detr_conformance.operations import OPERATIONS
from detr_conformance.reporting.events import Event
from detr_conformance.reporting.json_file import read_json

KILL_MATRIX = Path(evidence.__file__).with_name("kill-matrix.json.gz")
MOSTLY = 0.6  # of the mutants that fail one clause, the share that must fail another for it to follow

Finding = dict[str, Any]


class Pattern(NamedTuple):
    """Whose operation one mutant is, what it is about, and what it fails."""

    operation: str
    about: str
    fails: frozenset[str]


def findings(failed: Sequence[str], results: Sequence[Event]) -> list[Finding]:
    """The clauses to look at, in order, each with those that follow from it.

    Args:
        failed: clauses with the verdict "fail".
        results: of all tests.
    """
    wrong = [result for result in results if result["outcome"] == "fail"]
    found: dict[str, list[str]] = {}
    left = set(failed)
    for operation in OPERATIONS:
        here = [result for result in wrong if result.get("operation") == operation]
        broken = {clause for result in here for clause in result["clauses"]} & set(failed)
        first = [clause for clause in sorted(broken, key=natural_key) if _stands_before_all(clause, here)]
        for clause in [*first, *in_order(broken - set(first), patterns().get(operation, []))]:
            if clause in left:
                left.discard(clause)
                follows = following(clause, broken & left, patterns().get(operation, []), here)
                left -= set(follows)
                found[clause] = follows
    return [{"clause": clause, "follows": follows} for clause, follows in found.items()] + [
        {"clause": clause, "follows": []} for clause in sorted(left, key=natural_key)
    ]


def _stands_before_all(clause: str, results: Sequence[Event]) -> bool:
    """Whether it failed of what any call is held to."""
    about = [result for result in results if clause in result["clauses"]]
    return any(clause_of((r.get("failure") or {}).get("kind"), r.get("operation") or "") == clause for r in about)


def in_order(broken: set[str], known: Sequence[Pattern]) -> list[str]:
    """The broken clauses of one operation, from the likeliest to name the cause."""
    often = Counter(clause for each in known for clause in each.fails)

    def weight(clauses: frozenset[str] | set[str]) -> float:
        return sum(math.log((len(known) + 1) / (often[clause] + 0.5)) for clause in clauses)

    alike: dict[str, float] = {}
    for each in known:
        if each.about in broken:
            likeness = weight(each.fails & broken) / (weight(each.fails | broken) or 1.0)
            alike[each.about] = max(alike.get(each.about, 0.0), likeness)
    order = {clause: (-alike.get(clause, 0.0), often[clause]) for clause in broken}
    return sorted(broken, key=lambda clause: (*order[clause], natural_key(clause)))


def following(clause: str, others: set[str], known: Sequence[Pattern], results: Sequence[Event]) -> list[str]:
    """Those of the other clauses that fail because this one does, as far as the mutants tell."""
    with_it = [each.fails for each in known if clause in each.fails]
    said = _exceptions(clause, results)

    def follows(other: str) -> bool:
        together = sum(other in fails for fails in with_it)
        return (together + 1) / (len(with_it) + 2) >= MOSTLY or bool(said & _exceptions(other, results))

    return sorted(filter(follows, others), key=natural_key)


def _exceptions(clause: str, results: Sequence[Event]) -> set[str]:
    """What was raised in the tests of a clause."""
    about = [
        result for result in results if clause in result["clauses"] and (result.get("failure") or {}).get("raised")
    ]
    return {str(result.get("message")) for result in about}


def led_by(found: Sequence[Finding], names: Sequence[str]) -> list[Finding]:
    """The findings of a target that behaves like one of these mutants: first what the mutant is about.

    What the mutant fails too follows from that.
    """
    known = _mutants()
    failed = {clause for each in found for clause in (each["clause"], *each["follows"])}
    for pattern in (known[name] for name in names if name in known):
        if pattern.about in failed:
            others = [each for each in found if pattern.about != each["clause"]]
            folded = [each for each in others if each["clause"] in pattern.fails or pattern.about in each["follows"]]
            own = [each for each in found if each["clause"] == pattern.about]
            follows = {clause for each in (*own, *folded) for clause in (each["clause"], *each["follows"])}
            first = {"clause": pattern.about, "follows": sorted(follows - {pattern.about}, key=natural_key)}
            return [first, *(each for each in others if each not in folded)]
    return list(found)


@cache
def patterns() -> Mapping[str, Sequence[Pattern]]:
    """Of each operation the mutants' patterns."""
    found: dict[str, list[Pattern]] = {}
    for pattern in _mutants().values():
        found.setdefault(pattern.operation, []).append(pattern)
    return found


@cache
def _mutants() -> Mapping[str, Pattern]:
    """By name, from the kill matrix."""
    return {
        name: Pattern(mutant["operation"], mutant["declares"], frozenset(mutant["rejected_by"]))
        for name, mutant in read_json(KILL_MATRIX)["mutants"].items()
    }
