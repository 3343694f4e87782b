"""What was reached is counted from the calls that arrive, and what is claimed and not judged is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.evidence.reached import Reached
from detr_conformance.harness import block
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import OPERATIONS
from detr_conformance.reporting.reached import reached_sizes, size_class
from detr_conformance.reporting.report import Report, build_report
from detr_conformance.reporting.selection import Selection
from detr_conformance.reporting.terminal import verdict_line
from detr_conformance.reporting.terminal_reached import print_reached
from detr_conformance.targets.reference import target
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, everywhere
from detr_conformance.topics.deformable_attention.cases.module import ModuleStructure, module_case
from detr_reference import ms_deform_attn

LEVELS = ((3, 9), (2, 2))


def event(operation: str, **changes: object) -> dict[str, object]:
    return {
        "event": "result",
        "test": f"test_x.py::test_y[{operation}]",
        "clauses": ["MSDA-2"],
        "operation": operation,
        "device": "cpu",
        "dtype": "float32",
        "feature": None,
        "outcome": "pass",
        **changes,
    }


def report_of(*events: dict[str, object], features: tuple[str, ...] = ("backward",), **selected: str) -> Report:
    provides = list(dict.fromkeys(each["operation"] for each in events))
    said = {"provides": provides, "features": list(features)}
    start = {"event": "start", "target": {"name": "mine", "version": None}, "target_info": said}
    selection = replace(Selection(), **selected)
    stream = [start, *events, {"event": "finish", "exit": 0, "seconds": 1.0}]
    return build_report(stream, load_clauses(), target="mine", selection=selection)


def test_calls_that_arrive_are_counted_with_their_sizes() -> None:
    subject = Subject("ms_deform_attn", ms_deform_attn)
    case = case_at(subject, Structure(LEVELS, batch=5, queries=7, heads=2, channels=3, points=1), everywhere)
    for _ in range(2):
        subject.forward(case)
    subject.run(case)
    (forward, backward) = subject.reached.rows()
    assert forward["sizes"] == backward["sizes"]
    assert forward["sizes"]["batch"] == 5
    assert forward["sizes"]["width"] == 9
    assert (forward["calls"], backward["calls"]) == (2, 1)
    assert (forward["backward"], backward["backward"]) == (False, True)


def test_calls_of_a_module_are_counted_through_whoever_calls_it() -> None:
    subject = Subject("ms_deform_attn_module", target.provides["ms_deform_attn_module"])
    case = module_case(subject, ModuleStructure(LEVELS, heads=3, channels=4, points=5))
    block.forward(subject, case)
    (row,) = subject.reached.rows()
    assert (row["sizes"]["heads"], row["sizes"]["points"], row["sizes"]["embed_dim"]) == (3, 5, 12)


def test_nothing_is_reached_by_a_generator_whose_cases_are_not_called() -> None:
    subject = Subject("ms_deform_attn", ms_deform_attn)
    case_at(subject, Structure(LEVELS), everywhere)
    assert subject.reached.rows() == []
    assert Reached().rows() == []


def test_dimensions_and_pairs_of_a_report() -> None:
    rows = [
        {"sizes": {"batch": 1, "queries": 33}, "backward": True, "calls": 3},
        {"sizes": {"batch": 5, "queries": 1}, "backward": False, "calls": 1},
    ]
    found = reached_sizes([event("ms_deform_attn", reached=rows[:1]), event("ms_deform_attn", reached=rows[1:])])
    core = found["ms_deform_attn"]
    assert core["calls"] == 4
    assert core["dimensions"]["batch"] == {"least": 1, "most": 5, "most_backward": 1, "classes": [1, 4]}
    assert core["pairs"] == {"batch, queries": ["1 32", "4 1"]}
    assert [size_class(size) for size in (0, 1, 3, 4, 1023)] == [0, 1, 2, 4, 512]


def test_the_table_shows_every_dimension_and_pair() -> None:
    rows = [{"sizes": {"batch": 1, "queries": 33, "width": 4}, "backward": False, "calls": 3}]
    console = Console(width=100, record=True, file=None)
    print_reached(console, report_of(event("ms_deform_attn", reached=rows)))
    text = console.export_text()
    assert "the 3 calls" in text
    assert "queries" in text
    assert text.count("1/1") == 3


def test_a_claim_that_no_test_judged_is_in_the_verdict_line() -> None:
    asked = event("dino", feature="compile")
    report = report_of(asked, event("vit", feature="autocast"), features=("autocast", "compile"))
    assert report["claimed_and_not_judged"] == {"autocast": ["dino"], "compile": ["vit"]}
    line = verdict_line(report).plain
    assert line.endswith("; claimed and not judged: compile of vit; autocast of dino")
    absent = report_of({**asked, "outcome": "not-provided"}, event("dino"), features=("compile",))
    assert absent["claimed_and_not_judged"] == {"compile": ["dino"]}


def test_what_is_judged_or_not_about_the_run_is_not_named() -> None:
    assert report_of(event("vit", feature="backward"))["claimed_and_not_judged"] == {}
    assert report_of(event("hungarian_matching"))["claimed_and_not_judged"] == {}
    replayed = report_of(event("vit"), features=("export",), replay="a file")
    assert replayed["claimed_and_not_judged"] == {}
    assert "claimed" not in verdict_line(replayed).plain


@pytest.mark.parametrize("operation", OPERATIONS)
def test_sizes_of_every_operation_can_be_counted(operation: str) -> None:
    from detr_conformance.running.handshake import shake_hands

    subject = Subject(operation, target.provides[operation], features=target.features)
    shake_hands(subject)
    assert subject.reached.rows()
