"""What `detr-spec check` does: run the suite for each target, show what happens, write what was asked for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.console import Console

from detr_conformance.evidence.clauses import Chapter, ClauseError, load_chapters
from detr_conformance.likeness.asking import behaves_like
from detr_conformance.operations import TRAINED
from detr_conformance.reporting.console import report_console
from detr_conformance.reporting.deviations import Deviation, DeviationError, load_deviations
from detr_conformance.reporting.events import Event, digest
from detr_conformance.reporting.findings import led_by
from detr_conformance.reporting.json_file import FileError, write_json, write_whole
from detr_conformance.reporting.junit import junit_xml
from detr_conformance.reporting.pages.report_page import web_page
from detr_conformance.reporting.progress import LiveProgress
from detr_conformance.reporting.report import Report, build_report, combine, exit_code, worst_verdict
from detr_conformance.reporting.selection import Selection
from detr_conformance.reporting.terminal import print_report, print_summary
from detr_conformance.reporting.terminal_reached import print_reached
from detr_conformance.running.loaders import resolve_names
from detr_conformance.running.placing import load, words_of
from detr_conformance.running.runner import run_suite
from detr_conformance.target import TargetError
from detr_reference.cli import CannotDo, need

CURVES_SECONDS = 600
INTERRUPTED = 130  # the exit status that shells give to Ctrl-C

Run = tuple[Report, list[Event]]


@dataclass(frozen=True)
class Outputs:
    """Files to write; None for those not asked for."""

    json: str | None
    junit: str | None
    html: str | None
    curves: str | None = None
    coverage: bool = False  # of the terminal's report


def check_targets(target: str, selection: Selection, outputs: Outputs) -> int:
    """Check everything that TARGET stands for; returns the exit status of `detr-spec check`."""
    for path in filter(None, (outputs.json, outputs.junit, outputs.html, outputs.curves)):
        refuse_unwritable(path)
    try:
        chapters = load_chapters()
    except ClauseError as error:
        raise CannotDo(str(error)) from error
    if outputs.curves:
        _refuse_curves(target)
    runs = _run_all(target, selection, chapters)
    reports = [report for report, _ in runs]
    for report in reports if outputs.coverage else ():
        print_reached(report_console(), report)
    try:
        _write(runs, reports, chapters, outputs)
        if outputs.curves and reports[0]["clauses"]:
            _draw_curves(target, selection, outputs.curves)
    except FileError as error:
        raise CannotDo(str(error)) from error
    return INTERRUPTED if is_interrupted(reports[-1]) else exit_code(worst_verdict(reports))


def is_interrupted(report: Report) -> bool:
    return str(report.get("incomplete") or "").startswith("interrupted")


def _run_all(target: str, selection: Selection, chapters: Sequence[Chapter]) -> list[Run]:
    try:
        names = [target] if selection.runner and words_of(target) else resolve_names(target)
    except TargetError as error:
        # A report all the same, so that no older file is taken for this run's.
        click.echo(f"Error: {error}", err=True)
        events: list[Event] = [{"event": "error", "message": str(error)}]
        return [(build_report(events, {}, target=target, selection=selection), [])]
    console = report_console()
    runs = []
    for name, own in _asked_for(names, selection):
        runs.append(_run_one(name, own, chapters, console))
        if is_interrupted(runs[-1][0]):
            break
    if len(runs) > 1:
        print_summary(console, [report for report, _ in runs])
    return runs


def _asked_for(names: Sequence[str], selection: Selection) -> list[tuple[str, Selection]]:
    """Of several targets those that provide some of the operations asked for, each asked for these alone."""
    if len(names) > 1 and selection.profile == "training" and not selection.operations:
        selection = replace(selection, operations=TRAINED)
    if len(names) == 1 or not selection.operations:
        return [(name, selection) for name in names]
    found = []
    for name in names:
        try:
            provided = tuple(load(name, selection).provides)
        except TargetError:
            provided = selection.operations  # its own run says why it does not load
        if own := tuple(operation for operation in selection.operations if operation in provided):
            found.append((name, replace(selection, operations=own)))
    return found or [(name, selection) for name in names]


def _run_one(target: str, selection: Selection, chapters: Sequence[Chapter], console: Console) -> Run:
    events: list[Event] = []
    progress = LiveProgress(Console(stderr=True, highlight=False), target)
    with progress:
        report = judge(target, selection, chapters, events, progress.show)
    if report["clauses"]:
        report["behaves_like"] = behaves_like(target, selection, report, digest(events).results)
        for entry in report["behaves_like"]:
            report["findings"] = led_by(report["findings"], entry["names"])
        print_report(console, report, chapters)
    elif is_interrupted(report):
        click.echo(report["message"], err=True)
    else:
        name = report["target"]["name"]
        click.echo(f"Error: cannot tell whether {name} conforms: {report['message']}", err=True)
    if report["verdict"] == "error" or any(event["event"] == "died" for event in events):
        _show_last_words(events)
    return report, digest(events).results


def judge(
    target: str, selection: Selection, chapters: Sequence[Chapter], events: list[Event], show: Callable[[Event], None]
) -> Report:
    """Run the suite on one target; its events are appended to `events` and shown as they come.

    The deviation file is read as soon as the target names it. After Ctrl-C the report is of what was judged until then.
    """
    clauses = {c.id: c for chapter in chapters for c in chapter.clauses if c.level != "retired"}
    deviations: list[Deviation] = []
    interrupted = None
    try:
        with closing(run_suite(target, selection)) as stream:
            for event in stream:
                events.append(event)
                show(event)
                if event["event"] == "start" and (file := event.get("target_info", {}).get("deviations")):
                    deviations.extend(load_deviations(file, event["target"]["name"]))
    except DeviationError as error:
        events.append({"event": "error", "message": str(error)})
    except KeyboardInterrupt:
        running = [event["test"] for event in events if event["event"] == "running"]
        interrupted = "interrupted" + (f" in {running[-1]}" if running else "")
    return build_report(events, clauses, deviations, target=target, selection=selection, interrupted=interrupted)


def _show_last_words(events: Sequence[Event]) -> None:
    """What the suite's process printed, unless an event already says what is wrong."""
    if not any(event["event"] == "error" for event in events):
        for line in next((event["lines"] for event in events if event["event"] == "output"), ()):
            click.echo(f"  | {line}", err=True)


def refuse_unwritable(path: str) -> None:
    """Before the run, not after it."""
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise CannotDo(f"cannot write {path}: there is no folder {folder}")
    if Path(path).is_dir():
        raise CannotDo(f"cannot write {path}: it is a folder")
    if not os.access(folder, os.W_OK):
        raise CannotDo(f"cannot write {path}: permission denied")


def _refuse_curves(target: str) -> None:
    """Before the run: one picture shows one target, and drawing takes a package that checking does not."""
    need("--curves", "pictures", "matplotlib")
    with contextlib.suppress(TargetError):  # its run says why it does not load
        if len(names := resolve_names(target)) > 1:
            raise CannotDo(f"--curves draws one target, and {target} stands for {', '.join(names)}")


def _draw_curves(target: str, selection: Selection, path: str) -> None:
    """Information beside the verdict, so in a process of its own: whatever happens there changes nothing here."""
    command = [sys.executable, "-P", "-m", "detr_conformance.running.training_curves", target, path]
    command += ["--seed", str(selection.seed), "--dtype", selection.dtype or "float32"]
    command += ["--device", selection.device] if selection.device else []
    command += [part for operation in selection.operations for part in ("--operation", operation)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CURVES_SECONDS)
        said = done.stderr.strip().splitlines()
        problem = None if done.returncode == 0 else said[-1] if said else f"exit status {done.returncode}"
    except subprocess.TimeoutExpired:
        problem = f"no end after {CURVES_SECONDS} seconds"
    click.echo(f"curves: {path}" if problem is None else f"no curves: {problem}", err=problem is not None)


def _write(runs: Sequence[Run], reports: Sequence[Report], chapters: Sequence[Chapter], outputs: Outputs) -> None:
    if outputs.json:
        write_json(outputs.json, reports[0] if len(reports) == 1 else combine(reports))
    if outputs.junit:
        write_whole(outputs.junit, junit_xml(runs))
    if outputs.html:
        write_whole(outputs.html, web_page(reports, chapters, Path()))
