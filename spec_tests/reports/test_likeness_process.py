"""What is kept of the mutants between runs, and the process that compares a target with them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from detr_conformance.harness.case_files import write_case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.likeness import asking
from detr_conformance.likeness.known import Known
from detr_conformance.likeness.store import FORMAT, Store, cache_folder, digest_of_sources, forget_old
from detr_conformance.likeness.traces import Trace, Traced
from detr_conformance.reporting.selection import Selection
from detr_conformance.reporting.terminal_likeness import print_likeness
from detr_conformance.topics.deformable_attention.cases.core import Structure, border, case_at
from helpers.reports import wrong_kernels
from helpers.reports.wrong_kernels import WRONG

OF_TEST = "test_ms_deform_attn_border.py::test_zeros_beyond_the_border"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "detr-spec" / "likeness"


# -- what is kept ---------------------------------------------------------------------------------------------


def subject() -> Traced:
    return Traced("ms_deform_attn", WRONG["align-corners"])


def test_results_are_read_as_they_were_written() -> None:
    store = Store.of(subject())
    results = [("output", torch.tensor([1.0, float("nan")])), ("output", torch.zeros(2, 0)), ("of", torch.tensor(3))]
    store.keep_traces("some", {"a": Trace(results, "passed"), "b": None})
    read = store.traces("some")
    assert read.keys() == {"a", "b"}
    assert read["b"] is None
    again = read["a"]
    assert again is not None
    assert (again.end, [name for name, _ in again.results]) == ("passed", ["output", "output", "of"])
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for (_, a), (_, b) in zip(again.results, results, strict=True)
    )
    limit = Expectation(torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    store.keep_limits({"a": {"output": limit}})
    assert torch.equal(store.limits()["a"]["output"].expected, limit.expected)


@pytest.mark.parametrize("damage", ["cut", "garbage", "foreign", "without numbers", "no dict", "missing"])
def test_a_damaged_or_foreign_file_is_as_if_it_were_not_there(damage: str) -> None:
    store = Store.of(subject())
    store.keep_traces("some", {"a": Trace([("output", torch.ones(3))], "passed")})
    file = store.folder / "some.safetensors"
    whole = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(whole[:-5])
        case "garbage":
            file.write_bytes(b"\\x80\\x04}q." * 20)
        case "foreign":
            save_file({"a/0": torch.ones(3)}, file, {"format": "another", "about": "{}"})
        case "without numbers":
            save_file({"b": torch.ones(3)}, file, {"format": FORMAT, "about": '{"a": {"end": "", "names": ["x"]}}'})
        case "no dict":
            save_file({"b": torch.ones(3)}, file, {"format": FORMAT, "about": "[" * 2000 + "]" * 2000})
        case "missing":
            file.unlink()
    assert store.traces("some") == {}
    store.keep_traces("some", {"a": None})
    assert store.traces("some") == {"a": None}


def test_a_second_run_computes_no_mutant_again(monkeypatch: pytest.MonkeyPatch) -> None:
    like = Traced("valid_ratios", lambda mask, **_: mask)
    first = Known(like, Store.of(like), most=2)
    calls = first.calls(like)
    assert [first.mutant("ratios-height-first", call) is None for call in calls] == [False, False]
    first.save()
    monkeypatch.setattr("detr_conformance.likeness.known.traced", None)
    again = Known(like, Store.of(like), most=2)
    assert [again.mutant("ratios-height-first", call) is None for call in calls] == [False, False]


def test_a_folder_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    Store.of(subject()).keep_traces("some", {"a": None})
    forget_old()
    assert Store.of(subject()).traces("some") == {}


def test_results_of_old_sources_go_and_nothing_else(cache: Path) -> None:
    others = [cache / f"{number:016x}" for number in range(6)]
    for folder in (*others, cache / digest_of_sources(), cache / "of-somebody"):
        folder.mkdir(parents=True)
    forget_old()
    left = {folder.name for folder in cache_folder().iterdir()}
    assert {digest_of_sources(), "of-somebody"} <= left
    assert len(left & {folder.name for folder in others}) == 3


# -- the process ----------------------------------------------------------------------------------------------


def report_of(target: str, tmp_path: Path, **more: Any) -> list[dict[str, Any]]:
    """What a report says that a target is like, which failed in one case."""
    case = case_at(subject(), Structure(), border)
    path = write_case(tmp_path, case, clause="MSDA-15", test=OF_TEST)
    report = {"verdict": "fail", "environment": {}, "clauses": {"MSDA-15": {"verdict": "fail"}}} | more
    place = {"test": f"{OF_TEST}[cpu-float32]", "operation": "ms_deform_attn", "device": "cpu", "dtype": "float32"}
    result = {**place, "outcome": "fail", "clauses": ["MSDA-15"], "case_file": str(path)}
    return asking.behaves_like(f"{wrong_kernels.__file__}:{target}", Selection(), report, [result])


def test_a_wrong_kernel_is_named(tmp_path: Path) -> None:
    (found,) = report_of("border", tmp_path)
    assert (found["operation"], found["names"], found["cases"]) == ("ms_deform_attn", ["border-everywhere"], 1)
    assert found["probes"] >= 10
    assert found["summaries"][0].startswith("Clamps locations")


def test_a_process_that_dies_says_nothing(tmp_path: Path) -> None:
    assert report_of("dying", tmp_path) == []


def test_a_process_that_takes_too_long_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.5)
    assert report_of("border", tmp_path) == []


def test_a_target_that_passes_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "follow_process", None)
    assert report_of("border", tmp_path, verdict="pass") == []
    assert report_of("border", tmp_path, clauses={"MSDA-15": {"verdict": "deviation"}}) == []


@pytest.mark.parametrize(
    "said",
    [
        {"names": []},
        {"names": "align-corners"},
        {"names": ["align-corners", "of-nobody"]},
        {"names": [["align-corners"]]},
        {"names": ["hand-written-backward"]},
        {"names": ["align-corners"], "operation": "mlp"},
    ],
)
def test_names_that_nobody_has_are_not_repeated(said: dict[str, Any]) -> None:
    event = {"event": "likeness", "operation": "ms_deform_attn"} | said
    assert asking.entry(event, {"ms_deform_attn": {}}) is None


def test_counts_are_numbers() -> None:
    event = {"operation": "ms_deform_attn", "names": ["align-corners"], "cases": -1, "probes": "many"}
    found = asking.entry(event, {"ms_deform_attn": {}})
    assert found is not None
    assert (found["cases"], found["probes"]) == (0, 0)


def test_failures_are_shown_in_one_dtype_first() -> None:
    results = [
        {"test": f"t.py::{name}[cpu-{dtype}]", "dtype": dtype, "device": "cpu", "case_file": "x"}
        for name in ("a", "b")
        for dtype in ("float64", "float32")
    ]
    shown = [(each["test"][6:7], each["dtype"]) for each in asking.shown(results)]
    assert shown == [("a", "float32"), ("b", "float32"), ("a", "float64"), ("b", "float64")]


# -- what is printed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "mlp behaves like `a` (all of 2 probes and 1 failing case)"),
        (["a", "b"], "mlp behaves like `a` or `b` (all of"),
        (["a", "b", "c", "d", "e"], "mlp behaves like `a`, `b`, `c` or 2 more that no probe tells apart (all of"),
    ],
)
def test_the_line_of_a_report(names: list[str], said: str) -> None:
    entry = {
        "operation": "mlp",
        "names": names,
        "summaries": [f"Is {name}." for name in names],
        "cases": 1,
        "probes": 2,
    }
    stream = io.StringIO()
    print_likeness(Console(file=stream, width=200), {"behaves_like": [entry]})
    assert said in stream.getvalue()
    assert "Is a." in stream.getvalue()
    assert "Is d." not in stream.getvalue()


def test_an_old_report_says_nothing() -> None:
    stream = io.StringIO()
    print_likeness(Console(file=stream), {})
    assert stream.getvalue() == ""
