"""The table of `detr-spec check --coverage`: which sizes, and which pairs of sizes, the calls of a run reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detr_conformance.reporting.report import Report

# As wide as what stands below them.
SHORT = {"channels": "chan.", "coordinates": "coord.", "embed_dim": "embed", "optional tensors": "opt."}


def print_reached(console: Console, report: Report) -> None:
    """A table of dimensions and one of pairs for each operation."""
    for operation, found in report.get("reached", {}).items():
        console.print()
        heading = Text(f"sizes of the {found['calls']} calls that {operation} of {report['target']['name']} received")
        console.print(Text.assemble((heading.plain, "bold")), soft_wrap=True)
        console.print(_dimensions(found["dimensions"]))
        if found["pairs"]:
            console.print(Text("pairs of classes met, of those possible with the classes of each", style="dim"))
            console.print(_pairs(found))


def _dimensions(dimensions: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("dimension", "least", "most", "with gradients", "classes, from a power of two to the next"):
        numbers = column[0] in "lmw"
        wraps = column.startswith("classes")
        table.add_column(column, no_wrap=not wraps, overflow="fold", justify="right" if numbers else "left")
    for name, reached in dimensions.items():
        most_backward = "-" if reached["most_backward"] is None else str(reached["most_backward"])
        classes = " ".join(map(str, reached["classes"]))
        table.add_row(Text(name), str(reached["least"]), str(reached["most"]), most_backward, classes)
    return table


def _pairs(found: Mapping[str, Any]) -> Table:
    """A row and a column a dimension; below the diagonal is what is above it, and left out."""
    names = list(found["dimensions"])
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    for name in names[1:]:
        table.add_column(SHORT.get(name, name), justify="right", no_wrap=True)
    for row, one in enumerate(names[:-1]):
        table.add_row(
            Text(one), *("" if column <= row else _met(found, one, names[column]) for column in range(1, len(names)))
        )
    return table


def _met(found: Mapping[str, Any], one: str, other: str) -> str:
    possible = len(found["dimensions"][one]["classes"]) * len(found["dimensions"][other]["classes"])
    return f"{len(found['pairs'][f'{one}, {other}'])}/{possible}"
