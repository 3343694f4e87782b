"""`detr-spec site`: reports as a static site."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detr_reference.cli import CannotDo

if TYPE_CHECKING:
    from detr_conformance.reporting.pages.site import Pages

MARK = ".detr-spec-site"  # a folder that has it may be written anew
OWN = ("implementations", "clauses", "badges")


@click.command(short_help="Reports as a static site: a matrix, a page a clause, badges.")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.argument("reports", metavar="REPORT.json...", nargs=-1, required=True, type=click.Path(dir_okay=False))
def site(directory: str, reports: tuple[str, ...]) -> None:
    """Write reports of `check --json` into DIR as a site that any web server, or none, can show.

    There is a matrix of implementations by clause, a page for each implementation and each clause, the mutants that
    each clause rejects, and a badge for each implementation, as SVG and as the JSON of shields.io's endpoint badge.
    Several reports of one implementation are its history: give the oldest first. Reports named .json.gz are unpacked.
    DIR is made if it is not there; it must be empty, or hold a site that this command wrote, which is replaced.

    \b
    Exit status
      0  written
      2  a file cannot be read or is not a report, or DIR cannot be written
    """
    from detr_conformance.evidence.catalogue import CatalogueError
    from detr_conformance.evidence.clauses import ClauseError, load_chapters
    from detr_conformance.reporting.findings import KILL_MATRIX
    from detr_conformance.reporting.json_file import FileError, read_json
    from detr_conformance.reporting.pages.site import site as pages_of
    from detr_conformance.reporting.report_file import read_reports

    folder = Path(directory)
    try:
        told = [(_label(path), report) for path in reports for report in read_reports(path).values()]
        _take(folder)
        _write(folder, pages_of(told, load_chapters(), kill_matrix=read_json(KILL_MATRIX)))
    except (FileError, ClauseError, CatalogueError) as error:
        raise CannotDo(str(error)) from error
    except OSError as error:
        raise CannotDo(f"cannot write {error.filename or folder}: {error.strerror}") from error
    click.echo(f"{folder / 'index.html'}")


def _label(path: str) -> str:
    return Path(path).name.removesuffix(".gz").removesuffix(".json")


def _take(folder: Path) -> None:
    """Make the folder, or leave it alone if what lies there is somebody else's."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise CannotDo(f"{folder} is not empty, and holds no site of this command; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("Written by `detr-spec site`, which replaces what lies here.\n", encoding="utf-8")


def _write(folder: Path, pages: Pages) -> None:
    from detr_conformance.reporting.json_file import write_whole

    for own in (folder / name for name in OWN):  # pages of what is no longer there
        if own.is_symlink():
            own.unlink()
        elif own.is_dir():
            shutil.rmtree(own)
        own.mkdir()
    with click.progressbar(list(pages), label="writing", file=sys.stderr) as places:
        for place in places:
            write_whole(folder / place, pages[place]())
