"""Few shapes: structures rounded, contents drawn anew, forms counted, and an account of what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import find
from hypothesis import strategies as st

from detr_conformance.harness.case import Case
from detr_conformance.harness.drive import run_cases
from detr_conformance.harness.few_shapes.budget import FORMS_OF_A_CASE, Forms, LeftOut, NotTried, form_of
from detr_conformance.harness.few_shapes.drawing import SEEDS, STRUCTURES, composite, rounded
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.harness.suite_test import SuiteTest, decide
from detr_conformance.reporting.report import build_report
from detr_conformance.reporting.selection import Selection
from detr_conformance.reporting.terminal import verdict_line
from detr_conformance.running.runner import suite_command
from detr_conformance.topics.deformable_attention.cases.core import drawn_cases, everywhere, inside
from detr_reference import ms_deform_attn
from helpers.places import ROOT

FEW = Settings(few_shapes=True, shrink=False)
TOPICS = ROOT / "conformance/detr_conformance/topics"


def subject(**about: Any) -> Subject:
    return Subject("ms_deform_attn", ms_deform_attn, settings=FEW, **about)


def drawn(strategy: st.SearchStrategy[Any], seed: int) -> list[Any]:
    found: list[Any] = []
    run_cases(strategy, lambda case: found.append(case), examples=16, seed_value=seed, shrink=False)
    return found


def shapes(cases: list[Case]) -> set[int]:
    return {form_of(case.tensors, case.options) for case in cases}


def test_structures_are_the_same_few_in_every_test_and_contents_vary() -> None:
    with rounded(0):
        first, second = (drawn(drawn_cases(subject(), where), seed) for where, seed in ((inside, 1), (everywhere, 2)))
    assert len(shapes(first)) == STRUCTURES
    assert shapes(second) <= shapes(first)
    assert len({float(case["value"].sum()) for case in first}) > 2 * STRUCTURES
    assert len(shapes(drawn(drawn_cases(subject(), inside), 1))) > 2 * STRUCTURES  # as ever without


def test_another_seed_has_other_structures() -> None:
    found = []
    for seed in (0, 1):
        with rounded(seed):
            found.append(shapes(drawn(drawn_cases(subject(), inside), 1)))
    assert found[0] != found[1]


def test_contents_may_ask_for_more_than_was_recorded() -> None:
    @composite
    def growing(draw: st.DrawFn) -> list[int]:
        return [draw(st.integers(0, 3)) for _ in range(draw(SEEDS) % 5)]

    with rounded(0):
        assert len(find(growing(), lambda values: len(values) == 4)) == 4


def test_every_topic_draws_so() -> None:
    wrong = [
        file for file in TOPICS.rglob("*.py") if "st.composite" in file.read_text() or "2**16))" in file.read_text()
    ]
    assert [str(file.relative_to(TOPICS)) for file in wrong] == []


def listed(*sizes: int) -> list[Case]:
    return [Case({"x": torch.zeros(size)}) for size in sizes]


def asked(forms: Forms, cases: list[Case], property: Callable[[Subject, Case], None]) -> int:
    """How many of the cases a test tries."""
    own = subject(forms=forms)
    decide(own, SuiteTest("some", property, ("MSDA-1",), lambda _: cases, ("float32",), None, False, 1.0))
    return own.cases


def as_it_stands(subject: Subject, case: Case) -> None:
    assert subject.forms is not None
    subject.forms.admit(case.tensors, case.options)


def test_listed_cases_of_new_forms_are_left_out_when_there_are_enough() -> None:
    forms = Forms(limit=3)
    assert asked(forms, listed(1, 2, 3, 4, 5, 1), as_it_stands) == 4  # 1, 2, 3, 1
    assert (forms.left_out, len(forms.known)) == (2, 3)
    assert asked(forms, listed(9, 8, 2), as_it_stands) == 2  # the first all the same, and what is known
    assert (forms.left_out, len(forms.new), len(forms.known)) == (1, 1, 4)


def test_a_case_may_not_bring_many() -> None:
    def of_many(subject: Subject, case: Case) -> None:
        for other in listed(*range(10, 30)):
            as_it_stands(subject, other)

    forms = Forms()
    with pytest.raises(NotTried, match="more forms of calls than few shapes allow"):
        asked(forms, listed(1), of_many)
    assert len(forms.known) == FORMS_OF_A_CASE


def test_calls_are_counted_where_they_are_made() -> None:
    forms, cases = Forms(limit=0), drawn(drawn_cases(subject(), inside), 1)
    own = subject(forms=forms)
    for case in cases[:2]:
        forms.begin()
        forms.begin_case(case)
        own.forward(case)
    assert len(forms.known) == 2
    forms.begin_case(cases[0])
    with pytest.raises(LeftOut):
        own.forward(next(case for case in cases if not shapes([case]) & shapes(cases[:2])))


def results() -> Iterator[dict[str, Any]]:
    common = {"event": "result", "operation": "ms_deform_attn", "dtype": "float32", "outcome": "pass"}
    yield {**common, "test": "a", "clauses": ["MSDA-1"], "cases": 9, "forms": [1, 2], "left_out": 0}
    yield {**common, "test": "b", "clauses": ["MSDA-2"], "cases": 1, "forms": [2, 3], "left_out": 4}


def test_the_report_and_the_verdict_line_say_what_was_left_out() -> None:
    report = build_report(results(), {}, target="mine", selection=Selection(shapes="few"))
    assert report["few_shapes"] == {
        "ms_deform_attn": {"forms": 3, "cases": 10, "cases_left_out": 4, "clauses": {"MSDA-2": 4}}
    }
    said = verdict_line({**report, "verdict": "pass"}).plain
    assert said.endswith("; few shapes: 3 of ms_deform_attn, 4 cases left out")
    plain = [{key: each[key] for key in each if key not in ("forms", "left_out")} for each in results()]
    assert build_report(plain, {}, target="mine", selection=Selection())["few_shapes"] == {}


def test_the_option_reaches_the_suite(tmp_path: Path) -> None:
    assert "--detr-shapes=few" in suite_command("mine", Selection(shapes="few"), tmp_path / "events")
