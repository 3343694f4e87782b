"""What `detr-spec bench` does: check each target, measure those that pass, show and save what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from detr_bench.gate import Unit, Verdict, check, verdict_of
from detr_bench.plan import Asked, growth_rows, speed_rows, units
from detr_bench.process import measure
from detr_bench.table import WIDTH, print_growth, print_speeds
from detr_bench.workloads import TABLE
from detr_conformance.evidence.clauses import ClauseError
from detr_conformance.reporting.console import report_console, visible
from detr_conformance.reporting.events import Event
from detr_conformance.reporting.json_file import FileError, write_json
from detr_conformance.reporting.progress import LiveProgress
from detr_conformance.reporting.report import VERDICTS, exit_code
from detr_conformance.reporting.terminal import verdict_line
from detr_conformance.running.checking import refuse_unwritable
from detr_conformance.running.loaders import load_target, resolve_names
from detr_conformance.target import TargetError
from detr_reference.cli import CannotDo, need


@dataclass
class Bench:
    """One run of the command.

    Attributes:
        growth: whether exponents are measured, in place of speeds.
        problems: what there is no speed of, and why.
        verdict: the worst so far.
    """

    asked: Asked
    growth: bool
    console: Console
    progress: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    verdicts: list[Verdict] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    verdict: str = "pass"

    def target(self, name: str, alone: bool) -> None:
        """Everything asked for of one target; one of several may provide none of it."""
        try:
            target = load_target(name)
            found = units(name, target, self.asked)
        except TargetError as error:
            self.no_speed(name, None, str(error), "error")
            return
        if not found and alone:
            told = f"it provides none of {', '.join(self.asked.operations or TABLE)} at these workloads"
            self.no_speed(target.name, None, told, "error")
        rows = growth_rows if self.growth else speed_rows
        for unit in found:
            if any(rows(unit, target, self.asked)):
                self.unit(unit)
            else:
                told = f"nothing of what was asked for applies to {unit.operation} in {unit.dtype}"
                self.no_speed(target.name, None, told, "error")

    def unit(self, unit: Unit) -> None:
        """The check, and the measurement if it passes."""
        with LiveProgress(self.progress, unit.target) as live:
            report = check(unit, self.asked.profile, live.show)
        about = f"{unit.operation}, {unit.dtype}, {unit.device}, profile {self.asked.profile}"
        self.console.print(verdict_line(report), Text(about, style="dim"), sep="   ", soft_wrap=True)
        verdict = verdict_of(unit, self.asked.profile, report)
        self.verdicts.append(verdict)
        if not verdict.passed:
            self.no_speed(report["target"]["name"], None, verdict.told, verdict.verdict)
            return
        if not self.progress.is_terminal:
            self.progress.print(Text(f"measuring {unit.target}"))
        with self.progress.status("") as status:
            done = _Counter()

            def show(event: Event) -> None:
                status.update(Text(f"measuring {unit.target}   {done.told(event)}"))

            suite = "test_growth.py" if self.growth else "test_speed.py"
            found = measure(verdict, self.asked, suite, show)
        if found.document:
            self.documents.append(found.document)
        for event in found.refused:
            row = f"{event['workload']} {event['direction']} {event['dtype']}"
            self.no_speed(report["target"]["name"], row, event["message"], "fail" if event["wrong"] else "error")
        if found.problem:
            self.no_speed(report["target"]["name"], None, found.problem, "error")

    def no_speed(self, target: str, row: str | None, message: str, verdict: str) -> None:
        told = message if message.startswith("no speed") else f"no speed: {message}"
        self.problems.append({"target": target, "row": row, "message": told})
        self.verdict = max(self.verdict, verdict, key=VERDICTS.index)

    # -- what was found -------------------------------------------------------------------------------------

    def infos(self) -> Iterator[dict[str, Any]]:
        """`extra_info` of each benchmark."""
        for document in self.documents:
            yield from (each["extra_info"] for each in document["benchmarks"])

    def section(self, name: str) -> list[dict[str, Any]]:
        return [entry for document in self.documents for entry in document["detr_spec"][name]]

    def show(self) -> None:
        if self.growth:
            if growth := self.section("growth"):
                print_growth(self.console, growth)
        elif infos := list(self.infos()):
            print_speeds(self.console, infos, _distinct(self.section("ceilings")))
        for problem in self.problems:
            row = f" {problem['row']}" if problem["row"] else ""
            line = Text.assemble((problem["target"], "bold"), row, "  ", visible(problem["message"], "red"))
            self.console.print(line, soft_wrap=True)

    def document(self) -> dict[str, Any]:
        """pytest-benchmark's JSON of the whole run, with a section of ours."""
        from pytest_benchmark import __version__

        empty = {"machine_info": {}, "commit_info": {}, "datetime": datetime.now(UTC).isoformat()}
        first = self.documents[0] if self.documents else {**empty, "version": __version__}
        ours = {
            "schema_version": 1,
            "checks": [verdict.as_dict() for verdict in self.verdicts],
            "no_speed": self.problems,
            "ceilings": _distinct(self.section("ceilings")),
            "growth": self.section("growth"),
        }
        benchmarks = [each for document in self.documents for each in document["benchmarks"]]
        return {**first, "benchmarks": benchmarks, "detr_spec": ours}


def bench_targets(
    targets: Sequence[str], asked: Asked, growth: bool, json_file: str | None, picture: str | None
) -> int:
    """Bench everything that the TARGETs stand for; returns the exit status of `detr-spec bench`."""
    need("bench", "bench", "pytest_benchmark", *(["matplotlib"] if picture else []))
    for path in filter(None, (json_file, picture)):
        refuse_unwritable(path)
    console = report_console()
    console.width = console.width if console.is_terminal else WIDTH
    bench = Bench(asked, growth, console)
    try:
        for typed in targets:
            names = resolve_names(typed)
            for name in names:
                bench.target(name, alone=len(names) == 1)
    except (TargetError, ClauseError) as error:
        raise CannotDo(str(error)) from error
    if not bench.verdicts and not bench.problems:
        raise CannotDo(f"no target of {', '.join(targets)} provides what was asked for at these workloads")
    bench.show()
    try:
        if json_file:
            write_json(json_file, bench.document())
        if picture:
            _draw(bench, Path(picture))
    except FileError as error:
        raise CannotDo(str(error)) from error
    return exit_code(bench.verdict)


def _draw(bench: Bench, path: Path) -> None:
    from detr_bench.picture import draw_growth, draw_speeds

    infos, growth = list(bench.infos()), bench.section("growth")
    if growth:
        draw_growth(growth, path)
    elif infos:
        draw_speeds(infos, path)
    else:
        click.echo("no picture: there is no speed to draw", err=True)


@dataclass
class _Counter:
    """Where the measurement is."""

    total: int = 0
    begun: int = 0
    now: str = ""

    def told(self, event: Event) -> str:
        if event["event"] == "collected":
            self.total = event["tests"]
        elif event["event"] == "running":
            self.begun += 1
            self.now = event["test"]
        return f"{self.begun} of {self.total}   {self.now}" if self.total else "starting"


def _distinct(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each once: several units measure the same ceiling."""
    found = {(entry["device"], entry["dtype"]): entry for entry in reversed(entries)}
    return list(found.values())
