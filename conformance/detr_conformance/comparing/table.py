"""What a comparison shows: a table of stages in the terminal, or JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from detr_conformance.comparing.comparison import AGREES, DIFFERS, FOLLOWS, INHERITS, Comparison
from detr_conformance.reporting.console import visible
from detr_conformance.reporting.json_file import finite_or_none
from detr_conformance.staging.judging import Stage

STYLES = {AGREES: "green", DIFFERS: "bold red", INHERITS: "yellow", FOLLOWS: "yellow"}


def table_of(found: Comparison) -> Table:
    """A line for each stage; beneath the one that differs first its parts."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for column in ("error", "limit", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for stage in found.stages:
        verdict = found.verdict(stage)
        _add(table, stage.name, stage, verdict)
        if found.first is not None and stage.name == found.first.name:
            for part in found.parts:
                _add(table, f"  {part.name.removeprefix(stage.name)}", part, AGREES if part.agrees else DIFFERS)
    return table


def _add(table: Table, name: str, stage: Stage, verdict: str) -> None:
    numbers = (f"{number:.2g}" if number == number else "" for number in (stage.error, stage.limit, stage.ratio))
    table.add_row(visible(name), *numbers, visible(verdict, STYLES[verdict]))


def as_json(found: Comparison) -> dict[str, Any]:
    """The same as plain values, without infinities."""
    return {
        "verdict": "agree" if found.first is None else "differ",
        "first_divergence": found.first.name if found.first else None,
        "part": found.part.name if found.part else None,
        "told": found.told(),
        "stages": [_plain(stage, found.verdict(stage), stage.name in found.outputs) for stage in found.stages],
        "parts": [_plain(part, AGREES if part.agrees else DIFFERS, False) for part in found.parts],
        "on_the_references_input": {name: finite_or_none(stage.ratio) for name, stage in found.handed.items()},
    }


def _plain(stage: Stage, verdict: str, output: bool) -> dict[str, Any]:
    return {
        "name": stage.name,
        "output": output,
        "error": finite_or_none(stage.error),
        "limit": finite_or_none(stage.limit),
        "share": finite_or_none(stage.ratio),
        "verdict": verdict,
        "message": stage.message,
    }
