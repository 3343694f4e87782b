"""What a run tells about itself: lines of JSON, and the same for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from detr_reference.training.atomic import whole_file

LOG, TENSORBOARD = "log.jsonl", "tensorboard"


class RunLog:
    """log.jsonl and tensorboard/ in the folder of a run.

    A line is {"kind": "train", "step", "epoch", "loss", "losses": {..}, "learning_rate", "learning_rates": {group: ..},
    "gradient_norm", "images_per_second"} after some steps, or {"kind": "evaluation", "step", "epoch", "AP", "AP50", ..,
    "AR large"} after some epochs. Steps count from 1, epochs too. No number is NaN or infinite.

    Args:
        folder: of the run; it exists.
        step: where the run goes on; what was logged of later steps is removed, as it comes again. 0 for a new run.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        path = folder / LOG
        kept = list(_lines_until(path, step)) if path.is_file() else []
        with whole_file(path) as file:
            file.write("".join(kept).encode())
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError: a number is not finite.
        """
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in _scalars(record):
            self._board.add_scalar(name, value, record["step"])

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()


def _lines_until(path: Path, step: int) -> Iterator[str]:
    """The evaluation at this step goes too: the run that goes on begins with it."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            last = step - 1 if record["kind"] == "evaluation" else step
            if record["step"] <= last:
                yield line + "\n"
        except (ValueError, KeyError, TypeError):  # cut off when the run was killed
            continue


def _scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names as TensorBoard groups them: by what stands before the slash."""
    for name, value in record.items():
        if name == "losses":
            yield from ((f"loss/{part}", number) for part, number in value.items())
        elif name == "learning_rates":
            yield from ((f"learning_rate/{group}", number) for group, number in value.items())
        elif name not in ("kind", "step", "learning_rate"):
            yield f"{record['kind']}/{name}", value
