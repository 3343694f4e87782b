"""What a run reports while it goes on: its log and its progress."""

from __future__ import annotations

import time
from contextlib import ExitStack

from rich.console import Console

from detr_reference.training.detection.evaluation import Twelve
from detr_reference.training.learning.learner import StepResult
from detr_reference.training.logs import RunLog
from detr_reference.training.progress import RunProgress
from detr_reference.training.run import Run


class RunReport:
    """Log and progress, of the main process; the others report nothing."""

    def __init__(self, stack: ExitStack, run: Run, step: int, log_steps: int, console: Console | None) -> None:
        self._run, self._log_steps = run, log_steps
        self._last, self._since = step, time.monotonic()
        self._log = stack.enter_context(RunLog(run.output, step)) if run.group.main else None
        epochs = run.recipe.training.epochs
        shown = RunProgress(console or Console(quiet=True), epochs=epochs, steps=epochs * run.steps, step=step)
        self._progress = stack.enter_context(shown)

    def step(self, step: int, epoch: int, result: StepResult) -> None:
        if self._log is None or step % self._log_steps:
            return
        now = time.monotonic()
        speed = (step - self._last) * self._run.recipe.training.batch_size / max(now - self._since, 1e-9)
        self._last, self._since = step, now
        rate = max(result.rates.values())
        self._log.write(
            {
                "kind": "train",
                "step": step,
                "epoch": epoch + 1,
                "loss": result.loss,
                "losses": result.losses,
                "learning_rate": rate,
                "learning_rates": result.rates,
                "gradient_norm": result.gradient_norm,
                "images_per_second": speed,
            }
        )
        self._progress.at(step, epoch + 1, result.loss, rate, speed)

    def evaluation(self, step: int, epoch: int, figures: Twelve) -> None:
        if self._log is not None:
            self._log.write({"kind": "evaluation", "step": step, "epoch": epoch + 1, **figures.named()})
        self._progress.say(f"epoch {epoch + 1}: AP {figures.ap:.4f}, AP50 {figures.ap50:.4f}")
        self._last, self._since = step, time.monotonic()
