"""What `make quick` runs: the tests of what changed, and the gates that need no mutant.

`python spec_tests/helpers/touched.py mypy` and `... pytest` print the arguments; `--since REV` says against what.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import click

from detr_conformance.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"reference": "detr_reference", "conformance": "detr_conformance", "bench": "detr_bench"}
# Folder of the packages -> the folders of spec_tests that are about it; others are about the one of their own name.
ABOUT = {
    "evidence": ("harness", "commands"),
    "isolation": ("harness",),
    "harness": ("harness", "every_block"),
    "recording": ("commands",),
    "staging": ("detectors",),
    "comparing": ("commands", "detectors"),
    "likeness": ("reports",),
    "running": ("harness", "commands"),
    "reporting": ("reports", "commands"),
    "cli": ("commands",),
    "targets": ("harness", "kernels"),
    "commands": ("commands", "training"),
    "detr_bench": ("bench",),
    "spec": ("docs",),
}
GATES = "spec_tests/harness/test_gates.py"
ALWAYS = (
    "spec_tests/harness/test_layout.py",
    "spec_tests/harness/test_numbers.py",
    *(f"{GATES}::test_{name}" for name in ("every_clause_has_a_test", "every_test_names_a_clause")),
    *(f"{GATES}::test_{name}" for name in ("every_clause_has_a_mutant", "every_mutant_declares_a_clause")),
    f"{GATES}::test_no_clause_is_exempt_everywhere",
)


def folders_of(file: str) -> tuple[str, ...]:
    """The folders of spec_tests that a changed file of the project is about."""
    room, *parts = Path(file).parts
    if room == "docs" or not parts:
        return ("docs",)
    if room == "spec_tests":
        return tuple(parts[:1]) if len(parts) > 1 else ()
    inner = [part for part in parts[1:] if part != "topics"]
    folder = parts[0] if room == "bench" else inner[0]
    return ABOUT["running"] if folder.endswith(".py") else ABOUT.get(folder, (folder,))


def asked_of(files: Iterable[str]) -> list[str]:
    """Arguments for pytest: folders of tests, gates, and the reference under the suite of each operation touched."""
    folders = {folder for file in files for folder in folders_of(file)}
    there = [folder for folder in sorted(folders) if any((ROOT / "spec_tests" / folder).glob("test_*.py"))]
    # The gates of all mutants lie among the tests of the harness.
    tests = [
        str(file.relative_to(ROOT))
        for folder in there
        for file in sorted((ROOT / "spec_tests" / folder).glob("test_*.py"))
        if str(file.relative_to(ROOT)) not in (GATES, *ALWAYS)
    ]
    passing = [
        f"{GATES}::test_the_reference_passes_and_exercises_every_clause[{name}]"
        for name, operation in OPERATIONS.items()
        if operation.topic in folders
    ]
    return [*tests, *ALWAYS, *passing]


def packages_of(files: Iterable[str]) -> list[str]:
    """Arguments for mypy: the packages that changed."""
    rooms = {Path(file).parts[0] for file in files if file.endswith(".py")}
    return [word for room, package in PACKAGES.items() if room in rooms for word in ("-p", package)]


def changed(since: str) -> list[str]:
    """The files that differ from a revision, those that git does not track yet among them."""
    ours = _git("merge-base", since, "HEAD")[0]
    return _git("diff", "--name-only", ours) + _git("ls-files", "--others", "--exclude-standard")


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.split("\n")[:-1]


@click.command()
@click.argument("tool", type=click.Choice(["mypy", "pytest"]))
@click.option("--since", default="main", show_default=True, help="The revision to compare with.")
def main(tool: str, since: str) -> None:
    """Print what TOOL is to look at."""
    files = changed(since)
    click.echo(" ".join(packages_of(files) if tool == "mypy" else asked_of(files)))


if __name__ == "__main__":
    main()
