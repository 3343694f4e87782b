"""Parts of a recorded call that are calls too: some of its images, of its queries."""

from __future__ import annotations

from collections.abc import Iterator

from detr_conformance.harness.case import Case

# The axis of what can be left out, by argument. Of other operations a call is shown as it was.
AXES = (
    {"sampling_locations": 1, "attention_weights": 1, "grad_output": 1},
    {"value": 0, "sampling_locations": 0, "attention_weights": 0, "grad_output": 0},
)


def parts_of_call(case: Case) -> Iterator[Case]:
    """Halves of the call, the second of each first; none where nothing is left to halve."""
    for axes in AXES if AXES[1].keys() <= case.tensors.keys() else ():
        length = case["sampling_locations"].shape[axes["sampling_locations"]]
        half = length // 2
        for start, size in ((half, length - half), (0, half)) if half else ():
            yield case.having(**{name: case[name].narrow(axis, start, size).clone() for name, axis in axes.items()})
