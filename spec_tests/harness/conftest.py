"""The gates of an operation follow each other, so that a process that has its right results at hand asks them all."""

from __future__ import annotations

import pytest

from detr_conformance.operations import OPERATIONS

ORDER = {operation: place for place, operation in enumerate(OPERATIONS)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gates = [place for place, item in enumerate(items) if item.path.name == "test_gates.py"]
    sorted_gates = sorted((items[place] for place in gates), key=_operation_of)
    for place, item in zip(gates, sorted_gates, strict=True):
        items[place] = item


def _operation_of(item: pytest.Item) -> int:
    """The place of the operation that a gate is about; those about all come first."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    judged = parameters.get("mutant") or parameters.get("twin")
    return ORDER.get(judged.operation if judged else parameters.get("operation"), -1)
