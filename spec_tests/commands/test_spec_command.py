"""`detr-spec spec`: one clause or a list of them, for people or as JSON, and the search for words."""

from __future__ import annotations

import json
from importlib.resources import files

from detr_conformance.evidence.behind import evidence_of
from detr_conformance.evidence.catalogue import covering_tests, mutants
from detr_conformance.evidence.clauses import load_clauses, natural_key
from detr_conformance.operations import OPERATIONS
from helpers.commands import run
from helpers.places import ROOT


def listed(*arguments: str) -> list[str]:
    """The ids in the JSON of a list."""
    result = run("spec", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [clause["id"] for clause in json.loads(result.stdout)]


def test_the_json_of_a_clause_is_the_clause() -> None:
    shown = json.loads(run("spec", "msda-15", "--json").stdout)
    clause = load_clauses()["MSDA-15"]
    for name in ("id", "level", "condition", "title", "requirement", "notes", "chapter", "line"):
        assert shown[name] == getattr(clause, name)


def test_the_json_of_a_clause_names_its_tests_and_mutants_by_place() -> None:
    shown = json.loads(run("spec", "MSDA-15", "--json").stdout)
    assert [test["name"] for test in shown["tests"]] == [
        test.test for test in covering_tests() if test.clause == "MSDA-15"
    ]
    assert [mutant["name"] for mutant in shown["mutants"]] == [
        mutant.name for mutant in mutants() if mutant.clause == "MSDA-15"
    ]
    for entry in shown["tests"]:
        lines = (files("detr_conformance") / entry["file"]).read_text().splitlines()
        assert lines[entry["line"] - 1].startswith((f"def {entry['name']}(", f"class {entry['name']}"))
        assert entry["operations"] == ["ms_deform_attn"]
    assert all(mutant["origin"] and mutant["line"] for mutant in shown["mutants"])


def test_the_json_of_a_prefix_is_a_list_in_natural_order() -> None:
    ids = listed("msdm")
    assert ids == sorted((name for name in load_clauses() if name.startswith("MSDM-")), key=natural_key)


def test_the_json_of_everything_has_every_clause() -> None:
    assert set(listed()) == set(load_clauses(retired=True))


def test_a_search_looks_for_a_phrase_in_any_case() -> None:
    assert "MSDA-13 " in run("spec", "--search", "UPPER left, upper right, lower left").output
    assert run("spec", "--search", "upper right, upper left, lower left").exit_code == 1


def test_a_search_looks_across_lines_and_past_marks() -> None:
    clause = load_clauses()["MSDA-7"]
    assert "level and point, in this\norder" in clause.requirement
    assert "MSDA-7" in listed("--search", "point, in this order")
    assert "`sampling_locations` and of" in clause.requirement
    assert "MSDA-7" in listed("--search", "of sampling_locations and of attention_weights are")
    assert "MSDA-7" in listed("--search", "of `sampling_locations` and of")


def test_a_search_looks_at_titles_and_notes() -> None:
    assert "MSDA-7" in listed("--search", "levels before points")
    assert "MSDA-7" in listed("--search", "every published model")


def test_a_search_may_be_among_the_clauses_of_a_prefix() -> None:
    everywhere, among = listed("--search", "clamp"), listed("MSDA", "--search", "clamp")
    assert among == [name for name in everywhere if name.startswith("MSDA-")]
    assert 0 < len(among) < len(everywhere)


def test_a_search_prints_the_list_that_a_prefix_prints() -> None:
    found = run("spec", "msda", "--search", "cell centres").output.strip().splitlines()
    whole = run("spec", "msda").output.splitlines()
    assert len(found) == 2
    assert found[0] in whole
    assert found[1].split() in [line.split() for line in whole]


def test_a_search_that_finds_nothing_says_so_in_a_line_and_exits_1() -> None:
    result = run("spec", "MSDA", "--search", "xyzzy")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "no clause of MSDA contains 'xyzzy'\n")
    result = run("spec", "--search", "xyzzy", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])
    assert result.stderr == "no clause contains 'xyzzy'\n"


def test_an_unknown_id_stays_a_mistake_with_options() -> None:
    for options in (("--json",), ("--search", "cell")):
        result = run("spec", "MSDA-999", *options)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "did you mean" in result.stderr


def test_a_clause_leads_to_the_code_that_it_is_about() -> None:
    shown = json.loads(run("spec", "SEL-41", "--json").output)
    assert shown["code"] == [{"operation": "refine_boxes", "file": "detr_reference/queries/box_refinement.py"}]
    assert json.loads(run("spec", "BLK-1", "--json").output)["code"] == []  # about every block
    found = {name: file for each in evidence_of(load_clauses().values()) for name, file in each.code.items()}
    assert found.keys() == OPERATIONS.keys()
    assert all((ROOT / "reference" / file).is_file() for file in found.values())
