"""The process of a target, seen from the judge: it is started, asked, timed out, and started again."""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any

from detr_conformance.isolation.protocol import PROTOCOL

STARTING = 60.0  # seconds for the greeting, whatever a call may take
STARTS = 21  # after so many ends a target is not started again
LONGEST_LINE = 1 << 26
LAST_WORDS, LAST_BYTES = 12, 1 << 20
PATIENCE = 2.0  # seconds for an end that was asked for
Answers = queue.SimpleQueue[Any]
Outbox = queue.SimpleQueue[bytes | None]


class Died(BaseException):
    """The target's process ended, gave no answer, or answered with what is none. Nobody but the judge may catch it."""

    def __init__(self, message: str, got: str, detail: str = "") -> None:
        super().__init__(message)
        self.message, self.got, self.detail = message, got, detail


class NotDone(BaseException):
    """The runner does not do what it is asked for, or cannot be asked for it: it is right or wrong, nobody knows."""


class Refused(Exception):
    """The target cannot be served: it does not load, or does not do what it is asked for."""


@dataclass(frozen=True)
class Limits:
    """What one message may take."""

    seconds: float = 60.0
    memory: int = 0  # bytes of the target's process; 0: three quarters of the machine's

    @property
    def bytes(self) -> int:
        return self.memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


class Process:
    """One runner, by the command that starts it."""

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        self.command, self.limits = list(command), limits
        self.folder = tempfile.TemporaryDirectory(prefix="target-")
        self.generation = 0  # what was made in an earlier one is gone
        self.numbers = itertools.count(1)
        self.waiting: dict[int, Answers] = {}
        self.outbox: Outbox = queue.SimpleQueue()
        self.unasked: Garbage | None = None  # what came when nobody waited
        self.open = False
        self.lock = Lock()
        self.popen: subprocess.Popen[bytes] | None = None

    # -- starting ---------------------------------------------------------------------------------------------

    def start(self) -> dict[str, Any]:
        """Starts it and returns its `hello`.

        Raises:
            Refused: the target does not load.
            Died: it ended before it had said so, or has ended too often.
        """
        self.end()
        if self.generation >= STARTS:
            raise Died(f"the target's process has ended {STARTS} times and is not started again", "no process")
        self.generation += 1
        self.errors = Path(self.folder.name) / f"errors-{self.generation}.txt"
        with self.errors.open("wb") as sink:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=environment(),
                start_new_session=True,
            )
        hello: Answers = queue.SimpleQueue()
        self.waiting, self.open = {0: hello}, True
        self.outbox, self.unasked = queue.SimpleQueue(), None
        Thread(target=self._listen, args=(self.popen, self.waiting), daemon=True).start()
        Thread(target=_write, args=(self.popen.stdin, self.outbox), daemon=True).start()
        answer = self._wait(hello, max(STARTING, self.limits.seconds), "when it was started")
        if answer.get("message") == "refused":
            raise Refused(str(answer.get("reason")))
        if answer.get("message") != "hello" or answer.get("protocol") != PROTOCOL:
            raise Refused(f"the runner greets with {str(answer)[:200]}, not with hello of protocol {PROTOCOL}")
        return answer

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    # -- asking -----------------------------------------------------------------------------------------------

    def ask(self, message: Mapping[str, Any], times: int = 1) -> dict[str, Any]:
        """Sends a message and waits for its answer.

        Raises:
            Died: there is none, for whatever reason.
        """
        number = message["id"]
        answers: Answers = queue.SimpleQueue()
        with self.lock:
            self.waiting[number] = answers
            if self.unasked is not None or not self.open:
                answers.put(self.unasked)
            self.outbox.put(json.dumps(message).encode() + b"\n")
        return self._wait(answers, self.limits.seconds * max(1, times / 100), "in the call")

    def _wait(self, answers: Answers, seconds: float, when: str) -> dict[str, Any]:
        try:
            answer = answers.get(timeout=seconds)
        except queue.Empty:
            self.end()
            hint = ", before it had greeted; is its first line flushed?" if "started" in when else ""
            raise Died(
                f"the target's process gave no answer within {seconds:g} s and was ended{hint}",
                "no answer",
                self._said(),
            ) from None
        if isinstance(answer, Garbage):
            self.end()
            raise Died(f"the target's process wrote what is no message: {answer.line!r}", "no message", self._said())
        if answer is None:
            raise self._died(when)
        found: dict[str, Any] = answer
        return found

    def _died(self, when: str) -> Died:
        assert self.popen is not None
        try:
            status = self.popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.end()
            return Died(f"the target's process closed its output {when}", "no answer", self._said())
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        return Died(f"the target's process {how} {when}", how, self._said())

    def _said(self) -> str:
        with self.errors.open("rb") as file:
            file.seek(max(0, self.errors.stat().st_size - LAST_BYTES))
            lines = file.read(LAST_BYTES).decode(errors="replace").splitlines()
        fatal = next((number for number, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
        said = lines[-LAST_WORDS:] if fatal is None else lines[fatal : fatal + LAST_WORDS]
        return "\n".join(["the last that it wrote:", *said]) if said else ""

    # -- ending -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Asks it to end, and ends it if it does not."""
        self.outbox.put(b'{"message": "stop"}\n')
        with suppress(subprocess.TimeoutExpired):
            if self.popen is not None:
                self.popen.wait(timeout=PATIENCE)
        self.end()

    def end(self) -> None:
        """Ends the process and whatever it has started."""
        if self.popen is None:
            return
        self.outbox.put(None)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def _listen(self, popen: subprocess.Popen[bytes], waiting: dict[int, Answers]) -> None:
        """Gives each answer to whoever waits for it; after the last one everybody is told that there will be none."""
        assert popen.stdout is not None
        while line := popen.stdout.readline(LONGEST_LINE):
            try:
                answer = json.loads(line)
                at_start = answer.get("message") in ("hello", "refused") and "id" not in answer
                waiting.pop(0 if at_start else answer["id"]).put(answer)
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
                self._garbage(Garbage(line[:200].decode(errors="replace").strip()), popen, waiting)
        popen.stdout.close()
        with self.lock:
            if self.popen is popen:
                self.open = False
            for each in waiting.values():
                each.put(None)

    def _garbage(self, found: Garbage, popen: subprocess.Popen[bytes], waiting: dict[int, Answers]) -> None:
        with self.lock:
            if self.popen is popen:
                self.unasked = found
            for each in list(waiting.values()):
                each.put(found)


@dataclass(frozen=True)
class Garbage:
    line: str


def _write(stream: IO[bytes], outbox: Outbox) -> None:
    """Sends messages to a process that may never read one, while somebody else looks at the clock."""
    with suppress(OSError), stream:  # it is no longer there, which the listener says
        while (line := outbox.get()) is not None:
            stream.write(line)
            stream.flush()


def environment() -> dict[str, str]:
    """The user's, without what would tell the target that it is being judged."""
    return {name: value for name, value in os.environ.items() if "PYTEST" not in name}


def python_command(target: str, limits: Limits) -> list[str]:
    """How a target in Python is served."""
    return [sys.executable, "-P", "-m", "detr_conformance.running.serve", target, str(limits.bytes)]


def runner_command(command: Sequence[str], limits: Limits) -> list[str]:
    """How any other program is started, on memory that is not zero where it is fresh."""
    return [sys.executable, "-P", "-m", "detr_conformance.isolation.limited", str(limits.bytes), *command]
