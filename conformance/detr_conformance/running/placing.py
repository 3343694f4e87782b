"""Where a target runs: in this process, or in one of its own."""

from __future__ import annotations

from detr_conformance.reporting.selection import Selection
from detr_conformance.running.loaders import load_target
from detr_conformance.target import Target


def load(name: str, selection: Selection) -> Target:
    """One target, by a name that `resolve_names` gave.

    Raises:
        TargetError: it does not load.
    """
    if not selection.isolate:
        return load_target(name)
    from detr_conformance.isolation.process import Limits
    from detr_conformance.isolation.remote import isolated  # both take torch, which a command may not need

    return isolated(name, Limits(selection.time_limit, int(selection.memory_limit * 2**30)))
