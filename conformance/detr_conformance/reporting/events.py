"""The stream of events by which the suite, in a process of its own, tells `detr-spec check` what happens.

The pytest plugin appends one JSON object a line to the file named by `--detr-events`:

    start      target {name, version}, environment {...},
               target_info {provides, dtypes, devices, features, variants, sizes_left_out,
               deviations: absolute path or null}
    error      message     no verdict is possible: the target does not load, its device is absent, ...
    collected  tests       how many will run
    running    test, clauses
    result     test, clauses, operation, device, dtype, feature, outcome, worst_error_ratio, mismatches, cases,
               reached [{sizes, backward, calls}], message,
               failure {where, expected, got, limit, count, kind, raised, detail} or null, case_file, seconds,
               with few shapes: forms (numbers, of calls that no earlier test made), left_out (cases)
    finish     exit, seconds, stopped   the exit status of pytest; whether it stopped at a failure, as it was asked to

`outcome` is pass, fail, undecided (an ordinary call is wrong already), not-provided, not-exercised, or error (the suite
itself failed). The reader adds

    died       returncode, signal, seconds   the process ended without `finish`
    output     lines                         the last that it printed

Where it died in a test, another process goes on with the tests that are left: the stream begins again with `start`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]

# Signals by which a process goes wrong itself. Others (SIGKILL, SIGTERM) come from outside and prove nothing.
FAULTS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")
# pytest's exit statuses for interrupted, internal error, usage error.
SUITE_FAILED = (2, 3, 4)


class Tail:
    """Reads the events that were appended to a growing file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def new(self) -> Iterator[Event]:
        """The events on complete lines; a line still being written waits for the next call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._position)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield _parse(line)


def _parse(line: bytes) -> Event:
    try:
        event = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    return {"event": "error", "message": f"the suite wrote an event that cannot be read: {line[:80]!r}"}


@dataclass
class Digest:
    """What a whole stream says."""

    target: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    results: list[Event] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    collected: int | None = None
    seconds: float | None = None
    stopped: bool = False


def digest(events: Iterable[Event]) -> Digest:
    """Sort a stream into its parts; the death of the process becomes a failed test or an error."""
    found = Digest()
    running: dict[str, Event] = {}
    for event in events:
        match event["event"]:
            case "start":
                found.target = event.get("target", {})
                found.environment = event.get("environment", {})
                found.info = event.get("target_info", {})
            case "error":
                found.errors.append(event["message"])
            case "collected":
                found.collected = len(found.results) + event["tests"]
            case "running":
                running[_short(event["test"])] = event
            case "result":
                running.pop(_short(event["test"]), None)
                found.results.append(event)
            case "finish":
                found.seconds = (found.seconds or 0.0) + event.get("seconds", 0.0)
                found.stopped = event.get("stopped", False)
                _record_finish(found, event, list(running))
            case "died":
                found.seconds = (found.seconds or 0.0) + event.get("seconds", 0.0)
                _record_death(found, event, list(running.values()))
                running.clear()
    return found


def _short(test: str) -> str:
    return test.rpartition("::")[2]


def _record_finish(found: Digest, finish: Event, running: list[str]) -> None:
    if found.errors or found.stopped:
        return  # the stream already says why, or pytest was asked to stop
    if finish.get("exit") in SUITE_FAILED:
        found.errors.append(f"the suite itself failed (pytest ended with status {finish['exit']})")
    elif running:
        found.errors.append(f"the suite itself failed: {running[0]} began and gave no result")


def is_fault(death: Event) -> bool:
    """Whether a process died of what it did itself."""
    return death["signal"] in FAULTS if death["signal"] else death["returncode"] not in SUITE_FAILED


def _record_death(found: Digest, death: Event, running: list[Event]) -> None:
    if found.errors:
        return  # the stream already says why
    manner = f"died with {death['signal']}" if death["signal"] else f"ended with status {death['returncode']}"
    if len(running) != 1 or not is_fault(death):
        while_running = f" in {running[0]['test']}" if len(running) == 1 else ""
        found.errors.append(f"the suite's process {manner}{while_running} before it was finished")
        return
    (test,) = running
    found.results.append(
        {
            "test": test["test"],
            "clauses": test["clauses"],
            "outcome": "fail",
            "died": True,
            "message": f"the process {manner} in this test",
        }
    )
