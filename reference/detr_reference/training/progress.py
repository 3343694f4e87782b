"""How far a run is, on a terminal or, line by line, elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

SECONDS_BETWEEN_LINES = 20.0


class RunProgress:
    """A bar over all steps of a run; where the console is no terminal, a plain line now and then.

    Args:
        console: where to.
        epochs, steps: of the whole run.
        step: where it begins.
    """

    def __init__(self, console: Console, *, epochs: int, steps: int, step: int = 0) -> None:
        self._console, self._epochs, self._steps = console, epochs, steps
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # takes the room that the numbers leave
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            expand=True,
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps, completed=step, numbers="")
        self._began, self._first, self._told = time.monotonic(), step, float("-inf")

    def at(self, step: int, epoch: int, loss: float, rate: float, images_per_second: float) -> None:
        """After a step."""
        numbers = f"loss {loss:.2f}, lr {rate:.1e}, {images_per_second:.1f} images/s"
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}/{self._epochs}", numbers=numbers)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._told > SECONDS_BETWEEN_LINES or step == self._steps):
            self._told = now
            left = (now - self._began) / (step - self._first) * (self._steps - step)
            self.say(f"epoch {epoch}/{self._epochs}, step {step}/{self._steps}: {numbers}, {_duration(left)} left")

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, soft_wrap=True, highlight=False)

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
