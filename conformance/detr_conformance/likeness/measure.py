"""How often "behaves like" is right: every mutant and twin as a target.

`python -m detr_conformance.likeness.measure FILE.json.gz FILE.md` writes both files; `--operation` measures some anew.
A mutant is asked by its plain calls and by the first failure of the clause that it declares, as a check asked for that
clause alone would see it. What else it fails is taken from the kill matrix, or found as there: mutants whose own clause
a target passes are no candidates.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich.progress import track

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.evidence.registry import Twin
from detr_conformance.harness.subject import Settings
from detr_conformance.isolation import ambient
from detr_conformance.likeness.known import Known
from detr_conformance.likeness.naming import Failed, likeness, still_possible
from detr_conformance.likeness.traces import Traced
from detr_conformance.operations import OPERATIONS
from detr_conformance.reporting.json_file import FileError, read_json, write_json
from detr_conformance.running.kill_matrix import judge
from detr_conformance.running.mutants import MUTANTS, TWINS, as_target
from detr_conformance.running.trial import rejection, suite_test_of, suite_tests
from detr_reference.cli import CannotDo

Measured = dict[str, Any]


def measure(operation: str, rejected: Mapping[str, list[str]], some: frozenset[str] | None = None) -> Measured:
    """Every mutant of an operation, or some, with the names that it gets; and the twins with theirs.

    Args:
        rejected: the clauses that a mutant fails, as far as they are known.
    """
    torch.set_num_threads(1)
    begun = time.monotonic()
    known: dict[tuple[str, ...], Known] = {}  # by claimed features
    found: dict[str, list[str]] = {}
    for name, mutant in MUTANTS.items():
        if mutant.operation == operation and (some is None or name in some):
            fails = rejected.get(name) or judge(name)["rejected_by"]
            found[name] = named(mutant, mutant.rejects, fails, known)
    twins = {name: named(each, None, [], known) for name, each in TWINS.items() if each.operation == operation}
    probes = max((len(each.probes) for each in known.values()), default=0)
    return {"probes": probes, "mutants": found, "twins": twins, "seconds": round(time.monotonic() - begun, 1)}


def named(written: Twin, clause: str | None, rejected: list[str], known: dict[tuple[str, ...], Known]) -> list[str]:
    """The names that a mutant or twin gets as a target.

    Args:
        clause: of the failure that is shown again; None for a twin, which has none.
        rejected: all clauses that it fails; none are known of a twin, so that every mutant is a candidate.
    """
    target = as_target(written)
    operation = written.operation

    def like(dtype: str) -> Traced:
        settings = Settings(shrink=False)
        how = target.features, target.variants, target.stages, settings
        return Traced(operation, target.provides[operation], dtype, "cpu", *how)

    with ambient.kept():
        shown = rejection(as_target(written), clause) if clause else None
        failed = []
        if shown is not None:
            test, dtype, failure = shown
            decides = next(each for each in suite_tests()[operation] if suite_test_of(each) is test)
            failed.append(Failed(decides, failure.case, like(dtype)))
        own = like("float32")
        mine = known.setdefault(target.features, Known(own))
        verdicts = dict.fromkeys(load_clauses(), "pass") | dict.fromkeys(rejected, "fail") if rejected else {}
        found = likeness(mine, own, failed, still_possible(operation, verdicts))
    return [] if found is None else list(found.names)


def summary(found: Mapping[str, Measured]) -> Measured:
    """What a whole measurement comes to, or that of an operation."""
    mutants = {name: names for each in found.values() for name, names in each["mutants"].items()}
    right = {name: names for name, names in mutants.items() if name in names}
    return {
        "total": len(mutants),
        "named": len(right),
        "alone": sum(len(names) == 1 for names in right.values()),
        "largest_class": max(map(len, right.values()), default=0),
        "wrong": sorted(name for name, names in mutants.items() if names and name not in names),
        "twins": sum(len(each["twins"]) for each in found.values()),
        "twins_named": sorted(name for each in found.values() for name, names in each["twins"].items() if names),
    }


def as_markdown(found: Mapping[str, Measured]) -> str:
    """A line an operation, then the classes and the mutants without a name."""
    whole = summary(found)
    lines = [
        "# Behaves like",
        "",
        f"{whole['named']} of {whole['total']} mutants, checked as a target, are named: {whole['alone']} alone, the"
        f" others in a class of at most {whole['largest_class']} that no probe tells apart. {len(whole['wrong'])} get"
        f" a wrong name, and {len(whole['twins_named'])} of {whole['twins']} twins get one.",
        "",
        "| operation | probes | mutants | named | alone | largest class | wrongly | twins named |",
        "|---" * 8 + "|",
    ]
    for operation, each in found.items():
        one = summary({operation: each})
        twins = f"{len(one['twins_named'])} of {one['twins']}"
        counts = [each["probes"], *(one[key] for key in ("total", "named", "alone", "largest_class"))]
        lines.append(f"| `{operation}` | {' | '.join(map(str, counts))} | {len(one['wrong'])} | {twins} |")
    mutants = {name: names for each in found.values() for name, names in each["mutants"].items()}
    classes = Counter(", ".join(sorted(names)) for names in mutants.values() if len(names) > 1)
    lines += ["", "Classes:", "", *(f"- {names}" for names in sorted(classes))]
    lines += ["", "Without a name:", "", *(f"- {name}" for name, names in sorted(mutants.items()) if not names)]
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("markdown_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--kill-matrix",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What else each mutant fails, as `make kill-matrix` found it.",
)
@click.option("--operation", multiple=True, help="Measure this anew and keep the rest of JSON_FILE; repeatable.")
@click.option("--workers", default=2, show_default=True, help="Processes.")
def main(
    json_file: Path, markdown_file: Path, kill_matrix: Path | None, operation: tuple[str, ...], workers: int
) -> None:
    """Measures which mutants are named, and whether any twin is."""
    if unknown := [each for each in operation if each not in OPERATIONS]:
        raise CannotDo(f"unknown operation {unknown[0]!r}; known: {', '.join(OPERATIONS)}")
    try:
        before = read_json(json_file)["operations"] if operation and json_file.is_file() else {}
        matrix = read_json(kill_matrix)["mutants"] if kill_matrix else {}
        asked = list(operation or OPERATIONS)
        one = partial(measure, rejected={name: each["rejected_by"] for name, each in matrix.items()})
        with ProcessPoolExecutor(workers) as pool:
            done = track(pool.map(one, asked), "mutants beside each other", total=len(asked))
            before |= dict(zip(asked, done, strict=True))
        found = {each: before[each] for each in OPERATIONS if each in before}
        write_json(json_file, {"schema_version": 1, "torch": torch.__version__, "operations": found} | summary(found))
    except FileError as error:
        raise CannotDo(str(error)) from error
    markdown_file.write_text(as_markdown(found), encoding="utf-8")
    whole = summary(found)
    click.echo(f"{whole['named']} of {whole['total']} mutants are named, {len(whole['wrong'])} wrongly")


if __name__ == "__main__":
    main()
