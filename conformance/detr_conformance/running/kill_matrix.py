"""The kill matrix: every mutant against every clause, beside the check that the field usually does.

`python -m detr_conformance.running.kill_matrix FILE.json.gz FILE.md` writes both files; the Markdown one is drawn from
the JSON, which is compressed if its name ends in .gz.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import click
import torch
from rich.progress import track

from detr_conformance.evidence.clauses import load_clauses, natural_key
from detr_conformance.harness.drive import Undecided
from detr_conformance.harness.subject import Settings
from detr_conformance.reporting.json_file import FileError, read_json, write_json
from detr_conformance.running.mutants import MUTANTS, as_target
from detr_conformance.running.naive_check import naive_check
from detr_conformance.running.trial import profile_of, trials
from detr_reference.cli import CannotDo

# The declared clause is judged at the standard profile, all others at this one, without the tests that take seconds.
QUICK = Settings(profile="smoke", shrink=False)
DTYPES = ("float32",)  # a mutant of another dtype is judged in that one, by its declared clause


def judge(name: str) -> dict[str, Any]:
    """What rejects one mutant."""
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode(0)  # some mutants leave it changed
    mutant = MUTANTS[name]
    target = as_target(mutant)
    rejecting: set[str] = set()
    tests: set[str] = set()
    for test, _, failure in trials(target, dtypes=DTYPES, settings=QUICK, costly=False):
        if failure is not None and not isinstance(failure, Undecided):
            rejecting.update(test.clauses)
            tests.add(test.name)
    if mutant.rejects not in rejecting:
        settings = Settings(profile=profile_of(mutant.rejects), shrink=False)
        for test, _, failure in trials(as_target(mutant), {mutant.rejects}, settings=settings):
            if failure is not None and not isinstance(failure, Undecided):
                rejecting.update(test.clauses)
                tests.add(test.name)
    return {
        "operation": mutant.operation,
        "declares": mutant.rejects,
        "origin": mutant.origin,
        "summary": mutant.summary,
        "rejected_by": sorted(rejecting, key=natural_key),
        "failed_tests": sorted(tests),
        "survives_naive_check": naive_check(mutant.operation, mutant.build()),
    }


def matrix(workers: int, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole matrix.

    Args:
        workers: processes.
        known: mutants judged before, by name, which are not judged again.
    """
    found = {name: entry for name, entry in (known or {}).items() if name in MUTANTS}
    names = sorted(MUTANTS.keys() - found.keys())
    with ProcessPoolExecutor(workers) as pool:
        asked = {pool.submit(judge, name): name for name in names}
        for done in track(as_completed(asked), "mutants against clauses", total=len(names)):
            try:
                found[asked[done]] = done.result()
            except Exception as error:  # of the suite; it must not throw away an hour of the others
                click.echo(f"{asked[done]} is not judged: {type(error).__name__}: {error}", err=True)
    mutants = dict(sorted(found.items()))
    judged = list(mutants.values())
    return {
        "schema_version": 1,
        "torch": torch.__version__,
        "dtypes": list(DTYPES),
        "mutants": mutants,
        "rejected_by_declared_clause": sum(m["declares"] in m["rejected_by"] for m in judged),
        "rejected_by_naive_check": sum(not m["survives_naive_check"] for m in judged),
        "total": len(judged),
    }


def as_markdown(found: dict[str, Any]) -> str:
    """Rates, then a line a clause: who declares it and how many it rejects."""
    mutants, total = found["mutants"], found["total"]
    lines = [
        "# Kill matrix",
        "",
        f"{total} mutants. Rejected by the clause they declare: {found['rejected_by_declared_clause']}.",
        "Rejected by a naive check (initial weights, H = W, locations in [0, 1), tolerance 1e-2): "
        f"{found['rejected_by_naive_check']}.",
        "",
        "| clause | | rejects | declared by |",
        "|---|---|---|---|",
    ]
    for clause in load_clauses().values():
        declaring = [name for name, m in mutants.items() if m["declares"] == clause.id]
        rejected = sum(clause.id in m["rejected_by"] for m in mutants.values())
        lines.append(f"| {clause.id} | {clause.title} | {rejected} | {', '.join(declaring)} |")
    lines += ["", "| mutant | declares | rejected by | survives a naive check | what is wrong |", "|---" * 5 + "|"]
    for name, m in mutants.items():
        others = f"{len(m['rejected_by'])} clauses"
        survives = "yes" if m["survives_naive_check"] else "no"
        summary = m["summary"].replace("|", "\\|")
        lines.append(f"| {name} | {m['declares']} | {others} | {survives} | {summary} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("markdown_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--workers", default=2, show_default=True, help="Processes.")
@click.option("--missing", is_flag=True, help="Judge only the mutants that JSON_FILE lacks.")
def main(json_file: Path, markdown_file: Path, workers: int, missing: bool) -> None:
    """Judges every mutant by every clause and writes the matrix."""
    for path in (json_file, markdown_file):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        known = read_json(json_file)["mutants"] if missing and json_file.is_file() else None
        found = matrix(workers, known)
        write_json(json_file, found)
    except FileError as error:
        raise CannotDo(str(error)) from error
    markdown_file.write_text(as_markdown(found), encoding="utf-8")
    click.echo(f"{found['total']} mutants, {found['rejected_by_declared_clause']} rejected by their declared clause")


if __name__ == "__main__":
    main()
