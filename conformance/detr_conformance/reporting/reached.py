"""What of a target was reached: the sizes of the calls that it received, and what it claims and no test judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from detr_conformance.reporting.events import Digest, Event
from detr_conformance.reporting.selection import Selection
from detr_conformance.target import FEATURES

# Claimed by default, and nothing of these has a gradient.
WITHOUT_GRADIENT = ("hungarian_matching",)
PAIRED = ("ms_deform_attn", "ms_deform_attn_module")  # of the others the extents of arguments are no independent sizes


def reached_sizes(results: Iterable[Event]) -> dict[str, Any]:
    """By operation: how many calls it received, and of each dimension and pair of dimensions what they reached.

    Sizes are counted in classes, each from a power of two to below the next; a class is named by that power.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        rows.setdefault(result.get("operation") or "", []).extend(result.get("reached") or ())
    return {operation: _reached(found, operation in PAIRED) for operation, found in sorted(rows.items()) if found}


def _reached(rows: Sequence[Mapping[str, Any]], paired: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"calls": sum(row["calls"] for row in rows), "dimensions": {}, "pairs": {}}
    for name in dict.fromkeys(name for row in rows for name in row["sizes"]):
        backward = [row["sizes"][name] for row in rows if name in row["sizes"] and row["backward"]]
        every = [row["sizes"][name] for row in rows if name in row["sizes"]]
        found["dimensions"][name] = {
            "least": min(every),
            "most": max(every),
            "most_backward": max(backward, default=None),
            "classes": sorted(set(map(size_class, every))),
        }
    if paired:
        for one, other in combinations(found["dimensions"], 2):
            met = {
                (size_class(row["sizes"][one]), size_class(row["sizes"][other]))
                for row in rows
                if one in row["sizes"] and other in row["sizes"]
            }
            found["pairs"][f"{one}, {other}"] = [f"{first} {second}" for first, second in sorted(met)]
    return found


def few_shapes(results: Iterable[Event]) -> dict[str, Any]:
    """Of a run with few shapes, by operation: forms of calls, cases tried, and of each clause the cases left out."""
    found: dict[str, Any] = {}
    forms: dict[str, set[int]] = {}
    for result in results:
        if "forms" not in result:
            continue
        operation = result["operation"]
        entry = found.setdefault(operation, {"forms": 0, "cases": 0, "cases_left_out": 0, "clauses": {}})
        forms.setdefault(operation, set()).update(result["forms"])
        entry["forms"] = len(forms[operation])
        entry["cases"] += result["cases"]
        entry["cases_left_out"] += result["left_out"]
        for clause in result["clauses"] if result["left_out"] else ():
            entry["clauses"][clause] = entry["clauses"].get(clause, 0) + result["left_out"]
    return found


def size_class(size: int) -> int:
    """The largest power of two that is no larger; zero of zero."""
    return 1 << (size.bit_length() - 1) if size else 0


def claimed_and_not_judged(said: Digest, selection: Selection) -> dict[str, list[str]]:
    """Feature -> operations for which it is claimed and no test asked it; of those that the run was about."""
    if selection.replay or selection.calls or selection.clauses or selection.profile in ("training", "full-size"):
        return {}
    asked = {(result.get("operation"), result.get("feature")) for result in said.results if _judges(result)}
    ran = {operation for operation, _ in asked}
    found = {}
    for feature in (feature for feature in FEATURES if feature in said.info.get("features", ())):
        operations = [each for each in said.info.get("provides", ()) if each in ran and (each, feature) not in asked]
        if feature == "backward":
            operations = [each for each in operations if each not in WITHOUT_GRADIENT]
        if operations:
            found[feature] = operations
    return found


def _judges(result: Event) -> bool:
    return result["outcome"] in ("pass", "fail", "undecided")
