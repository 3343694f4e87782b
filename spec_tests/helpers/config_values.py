"""Which values the suite's cases give to every field of a configuration, and to every setting of a function."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, NamedTuple

from detr_conformance.harness.block_case import config_of, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.drive import run_cases
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import SuiteTest
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.running.trial import exempt, suite_test_of, suite_tests

EXAMPLES = 12  # of each test whose cases are drawn
# What a target has to declare before it is asked for another value.
OTHER_VARIANTS = {
    name: {"giou_eps": "1e-6"} for name in ("generalized_box_iou", "hungarian_matching", "detection_losses")
}


class Field(NamedTuple):
    """A field of a configuration or a setting of a function; `default` is MISSING where there is none."""

    name: str
    default: Any


Values = dict[str, set[Any]]


def fields_of(operation: str) -> list[Field]:
    """All that a user can set, but for a dtype, which is the claimed one."""
    entry = OPERATIONS[operation]
    if entry.config is not None:
        return [Field(each.name, each.default) for each in fields(resolve(entry.config))]
    parameters = inspect.signature(resolve(entry.reference)).parameters
    return [Field(name, _default(parameters[name])) for name in entry.settings if name != "dtype"]


def _default(parameter: inspect.Parameter) -> Any:
    return MISSING if parameter.default is inspect.Parameter.empty else parameter.default


def given_values(operation: str, tests: Iterable[SuiteTest] | None = None) -> Values:
    """By field: each value that it has in some case of a test of the standard profile, or of these tests."""
    found: Values = {field.name: set() for field in fields_of(operation)}
    for test in map(suite_test_of, suite_tests()[operation]) if tests is None else tests:
        if test.runs_in("standard") and not exempt(operation, test):
            for variants in ({}, OTHER_VARIANTS[operation]) if operation in OTHER_VARIANTS else ({},):
                for name, values in _given(operation, test, variants).items():
                    found[name] |= values
    return found


def _given(operation: str, test: SuiteTest, variants: dict[str, str]) -> Values:
    found: Values = {field.name: set() for field in fields_of(operation)}
    dtype = "float32" if "float32" in test.dtypes else test.dtypes[0]
    subject = Subject(operation, resolve(OPERATIONS[operation].reference), dtype, variants=variants)

    def note(case: Case) -> None:
        for name, value in values_of(operation, case).items():
            if name in found:
                found[name].add(value)

    with contextlib.suppress(NotProvided):
        run_cases(test.cases(subject), note, examples=EXAMPLES, seed_value=0, shrink=False)
    return found


def values_of(operation: str, case: Case) -> dict[str, Any]:
    """The configuration of a module, or the settings of a function with their defaults."""
    if OPERATIONS[operation].config is not None:
        return asdict(config_of(operation, case))
    defaults = {name: default for name, default in fields_of(operation) if default is not MISSING}
    return defaults | settings_of(case)


def never_turned(operation: str, given: Values) -> list[str]:
    """Fields that have their default in every case, or one value in all of them."""
    return [
        f"{operation}.{name}: {', '.join(map(repr, given[name])) or 'no case'}"
        for name, default in fields_of(operation)
        if len(given[name]) < 2 or given[name] <= {default}
    ]


def lacking(operation: str, given: Values, named: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Fields of named values that do not have each of them in some case; a switch has two."""
    found = []
    for name, default in fields_of(operation):
        wanted = (False, True) if isinstance(default, bool) else named.get(name, ())
        missing = [value for value in wanted if value not in given[name]]
        if missing:
            found.append(f"{operation}.{name}: no {', '.join(map(repr, missing))}")
    return found
