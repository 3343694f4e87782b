"""`make quick` looks at what a change is about."""

from __future__ import annotations

import pytest

from helpers.imports import modules
from helpers.places import ROOT
from helpers.touched import GATES, asked_of, folders_of, packages_of


@pytest.mark.parametrize(
    ("file", "folders"),
    [
        ("reference/detr_reference/losses/boxes.py", ("losses",)),
        ("conformance/detr_conformance/topics/losses/mutants/matching.py", ("losses",)),
        ("conformance/detr_conformance/running/trial.py", ("harness", "commands")),
        ("reference/detr_reference/spec/07-transformer-layers.md", ("docs",)),
        ("bench/detr_bench/race.py", ("bench",)),
        ("spec_tests/queries/test_box_refinement.py", ("queries",)),
        ("docs/guides/measure.md", ("docs",)),
        ("README.md", ("docs",)),
    ],
)
def test_a_file_is_about_some_tests(file: str, folders: tuple[str, ...]) -> None:
    assert folders_of(file) == folders


def test_every_module_below_a_folder_is_about_tests_that_exist() -> None:
    for name, file in modules().items():
        place = file.relative_to(ROOT)
        if len(place.parts) > 3 and "suite" not in place.parts and "recipes" not in place.parts:
            for folder in folders_of(str(place)):
                assert any((ROOT / "spec_tests" / folder).glob("test_*.py")), name


def test_the_suite_of_touched_operations_is_asked_and_no_mutant() -> None:
    asked = asked_of(["reference/detr_reference/feed_forward/mlp.py"])
    assert "spec_tests/feed_forward/test_feed_forward.py" in asked
    assert [each.partition("[")[2] for each in asked if "the_reference_passes" in each] == ["feed_forward]", "mlp]"]
    assert GATES not in asked_of(["conformance/detr_conformance/running/trial.py"])


def test_mypy_looks_at_changed_packages_alone() -> None:
    assert packages_of(["bench/detr_bench/race.py", "docs/index.md"]) == ["-p", "detr_bench"]
    assert packages_of(["README.md"]) == []
