"""What is happening while the suite runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from detr_conformance.reporting.events import Event

SECONDS_BETWEEN_LINES = 15.0


class LiveProgress:
    """Shows the events of one run. A context manager; the bar vanishes at the end."""

    def __init__(self, console: Console, target: str) -> None:
        self._console = console
        self._target = target
        self._total: int | None = None
        self._done = self._failed = 0
        self._begun = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.fields[target]}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn(
                    "{task.fields[now]}",
                    markup=False,
                    style="dim",
                    table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
                ),
                console=console,
                transient=True,
                expand=True,
            )
            self._task = self._bar.add_task("", total=None, target=target, now="starting")

    def __enter__(self) -> LiveProgress:
        if self._bar:
            self._bar.start()
        else:
            self._print(f"checking {self._target}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Take one event into account."""
        match event["event"]:
            case "collected":
                self._total = self._done + event["tests"]
                self._update(total=self._total)
            case "running":
                self._update(now=f"{', '.join(event['clauses'])} {event['test'].rpartition('::')[2]}")
            case "died":
                self._done, self._failed = self._done + 1, self._failed + 1
            case "result":
                self._done += 1
                self._failed += event["outcome"] in ("fail", "undecided", "error")
                self._update(completed=self._done)
                self._line_now_and_then()

    def _update(self, **values: object) -> None:
        if self._bar:
            self._bar.update(self._task, **values)  # type: ignore[arg-type]

    def _line_now_and_then(self) -> None:
        now = time.monotonic()
        if self._bar is None and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            of = f" of {self._total}" if self._total else ""
            failed = f", {self._failed} failed" if self._failed else ""
            self._print(f"  {self._done}{of} tests{failed}, {now - self._begun:.0f} s")

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
