"""What the commands of `detr-spec vectors` do and say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from detr_conformance.evidence.clauses import load_chapters
from detr_conformance.reporting.console import report_console
from detr_conformance.reporting.events import digest
from detr_conformance.reporting.json_file import FileError, write_json, write_whole
from detr_conformance.reporting.junit import junit_xml
from detr_conformance.reporting.pages.report_page import web_page
from detr_conformance.reporting.report import build_report, exit_code
from detr_conformance.reporting.selection import Selection
from detr_conformance.reporting.terminal import print_report
from detr_conformance.running.checking import Outputs as Files
from detr_conformance.running.checking import refuse_unwritable
from detr_conformance.vectors.export import MANIFEST, Export, Show, Wanted, collect
from detr_conformance.vectors.lint import findings
from detr_conformance.vectors.reading import Vectors, VectorsError, against_schema, read_vectors
from detr_conformance.vectors.verify import Outputs, events
from detr_reference.cli import CannotDo, need

SECONDS_BETWEEN_LINES = 15.0


def export_vectors(folder: str, wanted: Wanted, npz: bool) -> None:
    need("vectors", "vectors", "jsonschema")
    path = _empty_folder(folder)
    export = _collected(wanted)
    if not export.vectors:
        raise CannotDo("no test of this selection becomes a vector; --operation or --dtype leaves none")
    try:
        manifest = export.write(path, npz)
    except FileError as error:
        raise CannotDo(str(error)) from error
    assert against_schema(manifest) is None
    size = sum(file.stat().st_size for file in path.iterdir())
    left_out = sum(entry.left_out for entry in export.tests.values())
    click.echo(
        f"{len(export.vectors)} vectors of {len(export.cases)} cases in {folder}: {size / 1e6:.1f} MB"
        + (f"; {left_out} cases left out for their size" if left_out else "")
    )


def verify_outputs(folder: str, outputs: str, name: str | None, files: Files) -> int:
    need("vectors", "vectors", "jsonschema")
    for path in filter(None, (files.json, files.junit, files.html)):
        refuse_unwritable(path)
    vectors = _read(folder)
    target = name or Path(outputs).resolve().name
    try:
        found = list(events(vectors, Outputs.of(Path(outputs), vectors), target))
    except VectorsError as error:
        raise CannotDo(str(error)) from error
    chapters = load_chapters()
    clauses = {c.id: c for chapter in chapters for c in chapter.clauses if c.level != "retired"}
    selection = Selection(profile=vectors.manifest["profile"], seed=vectors.manifest["seed"])
    report = build_report(found, clauses, target=target, selection=selection)
    if report["clauses"]:
        print_report(report_console(), report, chapters)
    else:
        click.echo(f"Error: cannot tell whether {target} conforms: {report['message']}", err=True)
    try:
        if files.json:
            write_json(files.json, report)
        if files.junit:
            write_whole(files.junit, junit_xml([(report, digest(found).results)]))
        if files.html:
            write_whole(files.html, web_page([report], chapters))
    except FileError as error:
        raise CannotDo(str(error)) from error
    return exit_code(report["verdict"])


def lint_vectors(folder: str) -> int:
    need("vectors", "vectors", "jsonschema")
    vectors = _read(folder)
    manifest = vectors.manifest
    wanted = Wanted(manifest["profile"], tuple(manifest["operations"]), tuple(manifest["dtypes"]), manifest["seed"])
    found = list(findings(vectors, _collected(wanted)))
    for line in found:
        click.echo(line)
    click.echo(f"{len(found)} differences" if found else f"{len(manifest['vectors'])} vectors are as derived")
    return int(bool(found))


def _collected(wanted: Wanted) -> Export:
    with _progress() as show:
        return collect(wanted, show)


def _read(folder: str) -> Vectors:
    try:
        return read_vectors(Path(folder))
    except VectorsError as error:
        raise CannotDo(str(error)) from error


def _empty_folder(folder: str) -> Path:
    """Files of an earlier export would be taken for this one's."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        others = [child.name for child in path.iterdir()]
    except OSError as error:
        raise CannotDo(f"cannot write to {folder}: {error.strerror}") from error
    if others and MANIFEST not in others:
        raise CannotDo(f"{folder} is not empty and holds no vectors; name a new folder")
    for child in path.iterdir():
        if child.suffix in (".safetensors", ".npz") and child.is_file():
            child.unlink()
    return path


@contextmanager
def _progress() -> Iterator[Show]:
    """A bar on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        last = time.monotonic()

        def line(done: int, total: int, what: str) -> None:
            nonlocal last
            if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                console.print(f"  {done} of {total} tests", markup=False)

        yield line
        return
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
