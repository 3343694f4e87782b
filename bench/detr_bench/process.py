"""The pytest process that measures one unit, shielded from the user's pytest configuration as that of the check is."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from detr_bench.gate import Verdict
from detr_bench.plan import Asked
from detr_conformance.reporting.events import Event
from detr_conformance.running.runner import follow_process, pytest_environment


@dataclass
class Measured:
    """What came of one unit.

    Attributes:
        document: pytest-benchmark's JSON; None if it wrote none.
        refused: figures that could not be had, each an event with `message`, and `wrong` if the target is to blame.
        problem: why the process ended before it was finished; None if it did not.
    """

    document: dict[str, Any] | None = None
    refused: list[Event] = field(default_factory=list)
    problem: str | None = None


def measure(verdict: Verdict, asked: Asked, suite: str, show: Callable[[Event], None]) -> Measured:
    """Measure a unit that has passed its check by a file of the suite; `show` sees the events as they come."""
    found, running = Measured(), ""
    ended: Event | None = None  # before it was finished
    with tempfile.TemporaryDirectory(prefix="detr-bench-") as name:
        folder = Path(name)
        (folder / "checked.json").write_text(json.dumps([verdict.as_dict()]), encoding="utf-8")
        line, events, output = command(verdict, asked, suite, folder), folder / "events.jsonl", folder / "output.txt"
        with closing(follow_process(line, environment(asked), events, output)) as stream:
            for event in stream:
                show(event)
                running = event["test"] if event["event"] == "running" else running
                if event["event"] == "refused":
                    found.refused.append(event)
                elif event["event"] == "died" or (event["event"] == "finish" and event["exit"] > 1):
                    ended = event
                elif event["event"] == "output" and ended is not None:
                    found.problem = _problem(ended, running, event["lines"])
        if (folder / "run.json").exists():
            found.document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return found


def command(verdict: Verdict, asked: Asked, suite: str, folder: Path) -> list[str]:
    """The command line of the process."""
    root, unit = Path(str(files("detr_bench"))) / "suite", verdict.unit
    settings = Path(str(files("detr_conformance"))) / "isolated.ini"
    line = [sys.executable, "-P", "-m", "pytest", str(root / suite)]
    line += ["-c", str(settings), "--rootdir", str(root), "--noconftest", "--import-mode=append", "--quiet"]
    line += ["-p", "no:cacheprovider", "-p", "pytest_benchmark.plugin", "-p", "detr_bench.plugin", "--color=no"]
    line += ["--benchmark-quiet", f"--benchmark-json={folder / 'run.json'}"]
    options = {"target": unit.target, "operation": unit.operation, "device": unit.device, "dtype": unit.dtype}
    options |= {"profile": verdict.profile, "checked": str(folder / "checked.json"), "seconds": str(asked.seconds)}
    options |= {"events": str(folder / "events.jsonl")} | ({"threads": str(asked.threads)} if asked.threads else {})
    line += [f"--detr-bench-{name}={value}" for name, value in options.items()]
    line += [f"--detr-bench-workload={name}" for name in asked.workloads]
    return line + [f"--detr-bench-direction={name}" for name in asked.directions]


def environment(asked: Asked) -> dict[str, str]:
    """The environment of the process."""
    threads = {"OMP_NUM_THREADS": str(asked.threads)} if asked.threads else {}
    return pytest_environment() | threads


def _problem(event: Event, running: str, last_words: list[str]) -> str:
    manner = event.get("signal") or f"status {event.get('returncode', event.get('exit'))}"
    where = f" in {running}" if running else ""
    said = f": {last_words[-1]}" if last_words else ""
    return f"the measuring process ended with {manner}{where}{said}"
