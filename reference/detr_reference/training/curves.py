"""Plots of training runs, from the lines of JSON that they log."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, FAINT = "#222222", "#bbbbbb"
COLOURS = {"loss": INK, "loss_class": "#3b78b5", "loss_bbox": "#c0392b", "loss_giou": "#d9843b"}
FIGURES = {"AP": INK, "AP50": "#3b78b5", "AP75": "#c0392b"}
STYLES = ("-", "--", ":", "-.")  # of the runs
SMOOTHED = 60  # points of a line: what is denser is shown faint, and the mean of neighbours on it


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a log, in rising order of their steps.

    A line that was cut off when its run was killed is left out; of a step that was logged again after a resume the
    later record counts.

    Raises:
        ValueError: there is no such file, or a line in its midst is not a JSON object with a step.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no log at {path}")
    lines = path.read_text(encoding="utf-8").splitlines()
    records: dict[tuple[Any, int], dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            records[record.get("kind"), int(record["step"])] = record
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is no record with a step: {line[:60]!r}") from error
    return sorted(records.values(), key=lambda record: record["step"])


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: str | os.PathLike[str]) -> None:
    """Writes a PNG: the losses of the last layer over the steps, the learning rate, and AP where it was measured.

    Several runs are drawn in the same panels, each in its own kind of line.

    Args:
        runs: name of the run -> its records, as `read_log` gives them. Those of kind "train" have "loss", "losses" and
            "learning_rate", those of kind "evaluation" COCO's figures.

    Raises:
        ValueError: there are no records of training.
    """
    trained = {name: [each for each in records if each["kind"] == "train"] for name, records in runs.items()}
    measured = {name: [each for each in records if each["kind"] == "evaluation"] for name, records in runs.items()}
    if not any(trained.values()):
        raise ValueError("there is no record of training to draw")
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        _figure(trained, measured).savefig(path, dpi=110)


def _figure(trained: Mapping[str, list[Any]], measured: Mapping[str, list[Any]]) -> Figure:
    panels = 2 + any(measured.values())
    figure = Figure(figsize=(5 * panels, 4.4), layout="constrained")
    axes = [*figure.subplots(1, panels)]
    for style, records in zip(_styles(trained), trained.values(), strict=True):
        steps = [record["step"] for record in records]
        for part, colour in COLOURS.items():
            _line(axes[0], steps, [_part(record, part) for record in records], colour, style)
        rates = [record["learning_rate"] for record in records]
        axes[1].plot(steps, rates, color=INK, linestyle=style, drawstyle="steps-post")
    for style, records in zip(_styles(measured), measured.values(), strict=True):
        for name, colour in FIGURES.items() if records else ():
            points = [(record["step"], record[name]) for record in records if record[name] >= 0]
            axes[2].plot(*zip(*points, strict=True), color=colour, linestyle=style, marker=".")
    _finish(axes)
    if len(trained) > 1:
        lines = axes[1].lines
        figure.legend(lines, trained, loc="outside lower center", ncols=len(lines), fontsize=9, frameon=False)
    return figure


def _styles(runs: Mapping[str, Any]) -> list[str]:
    return [STYLES[number % len(STYLES)] for number in range(len(runs))]


def _part(record: Mapping[str, Any], part: str) -> float:
    return float(record["loss"] if part == "loss" else record["losses"].get(part, np.nan))


def _line(axes: Axes, steps: list[int], values: list[float], colour: str, style: str) -> None:
    width = len(values) // SMOOTHED
    if width > 1:
        axes.plot(steps, values, color=colour, alpha=0.15, linewidth=0.8)
        steps, values = steps[width - 1 :], np.convolve(values, np.ones(width) / width, mode="valid").tolist()
    axes.plot(steps, values, color=colour, linestyle=style, linewidth=1.6)


def _finish(axes: Sequence[Axes]) -> None:
    titles = ("loss: the total, and the last layer's parts", "learning rate", "AP on the validation images")
    last = max(each.get_xlim()[1] for each in axes)
    for each, title in zip(axes, titles, strict=False):
        each.set_title(title, fontsize=10)
        each.set(xlabel="step", xlim=(0, last))
        each.grid(color=FAINT, linewidth=0.4)
        each.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes[0].set_yscale("log")
    _legend(axes[0], {("total" if part == "loss" else part): colour for part, colour in COLOURS.items()})
    axes[1].set_ylim(bottom=0)
    axes[1].ticklabel_format(axis="y", scilimits=(-2, 3))
    if len(axes) > 2:
        axes[2].set_ylim(0, 1)
        _legend(axes[2], FIGURES)


def _legend(axes: Axes, colours: Mapping[str, str]) -> None:
    """Below the panel, where it hides no line."""
    lines = [Line2D([], [], color=colour) for colour in colours.values()]
    axes.legend(
        lines,
        list(colours),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=len(lines),
        columnspacing=1.2,
        fontsize=9,
        frameon=False,
    )
