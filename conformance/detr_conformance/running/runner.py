"""Run the suite in a pytest process of its own, shielded from the user's pytest configuration."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import FrameType

from detr_conformance.reporting.events import Event, Tail, is_fault
from detr_conformance.reporting.selection import Selection

POLL_SECONDS = 0.05
GRACE_SECONDS = 10.0  # between the last event and the end of the process
RESTARTS = 20  # after deaths in a test; a target that dies oftener is not asked further
OUTPUT_LINES = 25
FATAL_LINES = 8

_DOTS = re.compile(r"[.sFE]+ *(\[ *\d+%\])?")


def suite_command(target: str, selection: Selection, events: Path, done: Path | None = None) -> list[str]:
    """The command line of the suite's process; `done` is a file with the tests that need not be run, one a line."""
    package = Path(str(files("detr_conformance")))
    command = [sys.executable, "-P", "-m", "pytest", str(package / "topics")]
    command += ["-c", str(package / "isolated.ini"), "--rootdir", str(package)]
    command += [
        "--noconftest",
        "--import-mode=append",
        "-p",
        "no:cacheprovider",
        # Not needed here, and slow at every one of some hundred short tests.
        *("-p", "no:logging", "-p", "no:unraisableexception", "-p", "no:threadexception"),
        "-p",
        "detr_conformance.plugin",
    ]
    command += ["--quiet", "--color=no", "--tb=short"]
    if selection.jobs > 1:
        command += ["-p", "xdist.plugin", "-n", str(selection.jobs)]
    command += [f"--detr-{'runner' if selection.runner else 'target'}={target}"]
    command += [f"--detr-events={events}", f"--detr-cases={selection.cases_dir}"]
    command += [f"--detr-profile={selection.profile}", f"--detr-seed={selection.seed}"]
    command.append(f"--detr-shapes={selection.shapes}")
    command += [f"--detr-operation={operation}" for operation in selection.operations]
    command += [f"--detr-clause={clause}" for clause in selection.clauses]
    if done is not None:
        command.append(f"--detr-done={done}")
    if selection.exitfirst:
        command.append("--exitfirst")
    if selection.isolate:
        command.append("--detr-isolate")
    if selection.isolate or selection.runner:
        command.append(f"--detr-time-limit={selection.time_limit}")
        command.append(f"--detr-memory-limit={selection.memory_limit}")
    for option in ("device", "dtype", "replay", "calls"):
        if (value := getattr(selection, option)) is not None:
            command.append(f"--detr-{option}={value}")
    return command


def suite_environment(selection: Selection) -> dict[str, str]:
    """The environment of the suite's process."""
    # As `-P` does for the first process: a random.py of the user's must not replace Python's own.
    shielded = {"PYTHONSAFEPATH": "1"} if selection.jobs > 1 else {}
    # Threads that wait by spinning starve each other on a busy machine; a user's own choice stands.
    return {"OMP_WAIT_POLICY": "passive", **pytest_environment(), **shielded}


def pytest_environment() -> dict[str, str]:
    """The user's environment without what would reach into pytest."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_suite(target: str, selection: Selection) -> Generator[Event, None, None]:
    """Yield the suite's events as they come, then `died` if the process ended before it was finished, then `output`.

    Where a target brought the process down in a test, another one runs the tests that are left. Closing the generator,
    Ctrl-C and a polite kill all end the process and its children.
    """
    done: list[str] = []
    for _ in range(1 + RESTARTS):
        fatal = yield from _run_once(target, selection, done)
        if fatal is None:
            return
        done.append(fatal)


def _run_once(target: str, selection: Selection, done: list[str]) -> Generator[Event, None, str | None]:
    """One process of the suite; adds the tests that it finished to `done`, returns the one that it died in."""
    running: list[str] = []
    fatal = None
    with tempfile.TemporaryDirectory(prefix="detr-spec-") as folder:
        events, output, known = (Path(folder) / name for name in ("events.jsonl", "output.txt", "done.txt"))
        known.write_text("\n".join(done), encoding="utf-8")
        command = suite_command(target, selection, events, known if done else None)
        for event in follow_process(command, suite_environment(selection), events, output):
            match event["event"]:
                case "running":
                    running.append(event["test"])
                case "result":
                    done.append(event["test"])
                case "died":
                    left = [test for test in running if test not in done]
                    fatal = left[0] if len(left) == 1 and is_fault(event) else None
            yield event
    return fatal


def follow_process(
    command: Sequence[str], environment: Mapping[str, str], events: Path, output: Path
) -> Generator[Event, None, None]:
    """Run a command that writes events, and yield what `run_suite` does; what it prints goes to the file `output`."""
    with output.open("wb") as sink, _terminated_like_interrupted():
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C reaches us alone, and we end the whole group
        )
        try:
            yield from _follow(process, Tail(events))
            yield {"event": "output", "lines": _last_words(output)}
        finally:
            _end(process)


def _follow(process: subprocess.Popen[bytes], tail: Tail) -> Iterator[Event]:
    finished, begun = False, time.monotonic()
    while process.poll() is None:
        for event in tail.new():
            yield event
            finished = finished or event["event"] == "finish"
        if finished:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE_SECONDS)
            return
        time.sleep(POLL_SECONDS)
    for event in tail.new():
        yield event
        finished = finished or event["event"] == "finish"
    if not finished:
        name = signal.Signals(-process.returncode).name if process.returncode < 0 else None
        seconds = round(time.monotonic() - begun, 2)
        yield {"event": "died", "returncode": process.returncode, "signal": name, "seconds": seconds}


def _last_words(output: Path) -> list[str]:
    """The end of the output without pytest's dots; of a fatal error its beginning, which names the innermost call."""
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.strip() and not _DOTS.fullmatch(line)]
    fatal = next((number for number, line in enumerate(said) if line.startswith("Fatal Python error")), None)
    return said[-OUTPUT_LINES:] if fatal is None else said[fatal : fatal + FATAL_LINES]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and, where there are process groups, whatever it started."""
    for ending, patience in (("SIGTERM", 2.0), ("SIGKILL", None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, ending))
            elif process.poll() is None:
                process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Without this a SIGTERM from a CI system would leave the suite's process running."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
