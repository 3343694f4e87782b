"""The house is as DESIGN says: its folders, which way imports point, how long files are. Each rule is shown to fail."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from detr_conformance.evidence.catalogue import covering_tests, mutants
from detr_conformance.operations import OPERATIONS
from helpers.imports import PACKAGES, Graph, circles, imported, imports, modules, outside
from helpers.places import ROOT

TOPICS = {
    "every_block",
    "deformable_attention",
    "attention",
    "feed_forward",
    "transformer",
    "positions",
    "vision_transformer",
    "features",
    "queries",
    "denoising",
    "losses",
    "detectors",
    "training",
}
FOLDERS = {
    "reference/detr_reference": TOPICS | {"kernels", "checkpoints", "data", "commands", "spec"},
    "conformance/detr_conformance": {
        *(
            "adapters",
            "isolation",
            "evidence",
            "harness",
            "recording",
            "topics",
            "reporting",
            "running",
            "likeness",
            "cli",
            "targets",
            "deviations",
            "suite",
            "vectors",
            "staging",
            "comparing",
        ),
    },
    "conformance/detr_conformance/topics": TOPICS,
    "conformance/detr_conformance/reporting": {"pages"},
    "conformance/detr_conformance/reporting/pages": {"drawings"},
    "spec_tests": TOPICS
    | {
        "helpers",
        "harness",
        "reports",
        "commands",
        "data",
        "checkpoints",
        "kernels",
        "adapters",
        "bench",
        "docs",
        "vectors",
    },
}
IN_A_TOPIC = {"cases", "checks", "mutants", "twins"}  # beside tests: a file each, or a folder
BLOCKS_TAKE = {"torch", "scipy", "jaxtyping"}
OPTIONAL = {"detr_reference.features.auto_backbone": {"transformers"}}
LONGEST, FULLEST = 350, 20

# From below; a module may import what stands in its own row or in an earlier one.
ORDER = (
    ("detr_reference",),
    ("detr_conformance.operations", "detr_conformance.stages", "detr_conformance.target"),
    ("detr_conformance.adapters", "detr_conformance.isolation"),
    ("detr_conformance.evidence",),
    ("detr_conformance.harness",),
    ("detr_conformance.staging",),
    ("detr_conformance.recording",),
    ("detr_conformance.topics",),
    ("detr_conformance.reporting",),
    ("detr_conformance.running", "detr_conformance.likeness"),
    ("detr_conformance.vectors",),
    ("detr_conformance.comparing",),
    ("detr_conformance.cli", "detr_conformance.plugin"),
    ("detr_bench",),
)
# What takes less than its place in that order would allow.
ALLOWED = {
    "detr_conformance.reporting": (
        *("detr_conformance.reporting", "detr_conformance.evidence", "detr_reference.cli"),
        *("detr_conformance.operations", "detr_conformance.stages", "detr_conformance.target"),
    ),
    "detr_conformance.evidence": (
        *("detr_conformance.evidence", "detr_conformance.operations", "detr_conformance.stages"),
        "detr_conformance.target",
    ),
    "detr_conformance.adapters": (
        *("detr_conformance.adapters", "detr_conformance.operations", "detr_conformance.stages"),
        "detr_conformance.target",
    ),
    "detr_conformance.targets": (
        *("detr_conformance.targets", "detr_conformance.operations", "detr_conformance.stages"),
        *("detr_conformance.target", "detr_conformance.adapters", "detr_reference"),
    ),
}


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def row_of(name: str) -> int | None:
    return next((row for row, packages in enumerate(ORDER) if any(within(name, each) for each in packages)), None)


def upward(graph: Graph) -> list[str]:
    """Imports that point from a lower place to a higher one, or to where their own place may not look."""
    wrong = []
    for name, others in graph.items():
        allowed = next((places for package, places in ALLOWED.items() if within(name, package)), None)
        for other in sorted(others):
            rows = row_of(name), row_of(other)
            up = None not in rows and rows[1] > rows[0]  # type: ignore[operator]
            elsewhere = allowed is not None and not any(within(other, place) for place in allowed)
            if up or elsewhere:
                wrong.append(f"{name} imports {other}")
    return wrong


def is_block(name: str) -> bool:
    room, _, rest = name.partition(".")
    return room == "detr_reference" and rest.partition(".")[0] in TOPICS - {"training"}


def beside_blocks(graph: Graph) -> list[str]:
    """Imports of a block that lead to what is no block."""
    return [
        f"{name} imports {other}"
        for name, others in graph.items()
        if is_block(name)
        for other in sorted(others)
        if not is_block(other)
    ]


def strange(folder: Path, allowed: set[str]) -> list[str]:
    """Subfolders with modules that have no place there."""
    found = {child.name for child in folder.iterdir() if child.is_dir() and any(child.rglob("*.py"))}
    return sorted(found - allowed)


def modules_by_folder(files: list[Path]) -> Counter[Path]:
    return Counter(file.parent for file in files if file.name not in ("__init__.py", "conftest.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_those_of_the_list(folder: str) -> None:
    assert strange(ROOT / folder, FOLDERS[folder]) == []


def test_a_topic_has_cases_checks_tests_mutants_and_twins() -> None:
    topics = ROOT / "conformance/detr_conformance/topics"
    names = {
        child.relative_to(topics)
        for topic in topics.iterdir()
        if topic.is_dir()
        for child in topic.iterdir()
        if child.stem != "__init__" and not child.stem.startswith(("test_", "__pycache__"))
    }
    assert sorted(map(str, names)) == sorted(str(name) for name in names if name.stem in IN_A_TOPIC)


def test_tests_and_mutants_lie_in_the_topic_of_their_operation() -> None:
    """But for those of every block, and of training, which are about several."""
    of_tests = {(test.file, operation) for test in covering_tests() for operation in test.operations}
    of_mutants = {(each.file, each.operation) for each in mutants() if each.operation}
    misplaced = [
        (file, operation)
        for file, operation in of_tests | of_mutants
        if operation in OPERATIONS
        if file.partition("/")[0] not in (OPERATIONS[operation].topic, "every_block", "training")
    ]
    assert misplaced == []


def test_imports_point_downward() -> None:
    assert upward(imports()) == []


def test_an_import_that_points_upward_is_noticed() -> None:
    planted = {
        "detr_reference.losses.boxes": {"detr_conformance.target"},
        "detr_conformance.harness.case": {"detr_conformance.topics.losses.cases"},
        "detr_conformance.reporting.report": {"detr_conformance.harness.case"},
        "detr_conformance.targets.kernels": {"detr_conformance.harness.case"},
        "detr_conformance.running.trial": {"detr_conformance.topics.losses"},
    }
    assert [line.partition(" ")[0] for line in upward(planted)] == list(planted)[:4]


def test_imports_inside_functions_and_by_strings_are_seen() -> None:
    source = 'def f():\n    from detr_conformance.harness import case\n\nPLACE = "detr_bench.cli:bench"\n'
    assert imported(source, {"detr_conformance.harness.case", "detr_bench.cli"}) == {
        "detr_conformance.harness.case",
        "detr_bench.cli",
    }


def test_no_files_import_each_other() -> None:
    assert circles(imports()) == []


def test_a_circle_is_noticed() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_blocks_take_torch_scipy_and_jaxtyping_alone() -> None:
    for name, file in modules().items():
        if is_block(name) and not within(name, "detr_reference.training"):
            others = outside(file.read_text(encoding="utf-8")) - set(sys.stdlib_module_names) - {"lazy_loader"}
            assert others <= BLOCKS_TAKE | OPTIONAL.get(name, set()), name


def test_blocks_import_no_kernel_no_data_and_no_training() -> None:
    assert beside_blocks(imports()) == []
    assert beside_blocks({"detr_reference.losses.boxes": {"detr_reference.kernels.cpu"}}) != []


def test_no_file_is_long_and_no_folder_full() -> None:
    files = list(modules().values())
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {file: lines for file, lines in lengths.items() if lines > LONGEST} == {}
    full = modules_by_folder([*files, *(ROOT / "spec_tests").rglob("*.py")])
    assert {str(folder.relative_to(ROOT)): count for folder, count in full.items() if count > FULLEST} == {}


def test_test_files_have_names_of_their_own() -> None:
    rooms = [ROOT / "spec_tests", *(ROOT / room / package for package, room in PACKAGES.items())]
    names = Counter(file.name for room in rooms[:1] for file in room.rglob("test_*.py"))
    names_of_the_suite = Counter(file.name for room in rooms[1:] for file in room.rglob("test_*.py"))
    assert [name for counted in (names, names_of_the_suite) for name, count in counted.items() if count > 1] == []
