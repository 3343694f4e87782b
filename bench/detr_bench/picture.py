"""The figures as pictures: bars of speed against the reference, and lines of growing cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

INK, FAINT = "#222222", "#bbbbbb"
COLOURS = ("#3b78b5", "#c0392b", "#7a9e3b", "#e8a87c", "#6b4f9e", "#888888")
BAR, GAP = 0.28, 0.5  # inches a bar, and between groups

Info = Mapping[str, Any]


def draw_speeds(infos: Sequence[Info], path: Path) -> None:
    """A group of bars for each workload and direction, a bar a target; the line in the middle is the reference."""
    places = list(dict.fromkeys(map(_place, infos)))
    groups = list(dict.fromkeys(map(_group, infos)))
    targets = list(dict.fromkeys(info["name"] for info in infos))
    height = 1.5 + len(infos) * BAR + len(groups) * GAP * BAR
    figure = Figure(figsize=(8.5, height), layout="constrained")
    axes = figure.subplots()
    at, ticks = 0.0, []
    for group in groups:
        own = [info for info in infos if _group(info) == group]
        for number, info in enumerate(own):
            _bar(axes, at + number, info, COLOURS[targets.index(info["name"]) % len(COLOURS)])
        ticks.append(at + (len(own) - 1) / 2)
        at += len(own) + GAP
    named = [(group if len(places) > 1 else group[1:]) for group in groups]
    axes.set_yticks(ticks, ["\n".join(group) for group in named])
    if len(places) == 1:
        axes.set_title(places[0], fontsize=10)
    axes.invert_yaxis()
    _speed_axis(axes, infos)
    for number, name in enumerate(targets):
        axes.barh(0, 0, color=COLOURS[number % len(COLOURS)], label=name)
    figure.legend(loc="outside lower center", ncols=min(3, len(targets)), frameon=False)
    figure.savefig(path, dpi=130, format="png")


def draw_growth(growth: Sequence[Info], path: Path) -> None:
    """Time against each size in log-log, beside the reference's; the dotted line grows as expected."""
    axes_named = list(dict.fromkeys(entry["axis"] for entry in growth))
    panels = list(dict.fromkeys((e["direction"], e["dtype"]) for e in growth))
    figure = Figure(figsize=(2.3 * len(axes_named), 0.8 + 2.7 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), len(axes_named), squeeze=False, sharey="row", sharex=True)
    for row, panel in zip(grid, panels, strict=True):
        for axes, axis in zip(row, axes_named, strict=True):
            own = [e for e in growth if e["axis"] == axis and (e["direction"], e["dtype"]) == panel]
            _lines(axes, own)
            axes.set_title(axis, fontsize=10)
        row[0].set_ylabel(f"{', '.join(panel)}\nmilliseconds")
    figure.supxlabel("times the base size", fontsize=10)
    figure.savefig(path, dpi=130, format="png")


def _place(info: Info) -> str:
    return f"{info['operation']}, {info['dtype']}, {info['device']}"


def _group(info: Info) -> tuple[str, str, str]:
    return _place(info), info["workload"], info["direction"]


def _bar(axes: Axes, at: float, info: Info, colour: str) -> None:
    speed = info["speed"]
    left, right = sorted((1.0, speed["median"]))
    axes.barh(at, right - left, left=left, height=0.8, color=colour, alpha=0.4 if speed["unsteady"] else 1)
    axes.plot((speed["q1"], speed["q3"]), (at, at), color=INK, linewidth=1.2)
    end = max(speed["q3"], 1.0)
    axes.annotate(f"{speed['median']:.2f}x", (end, at), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _speed_axis(axes: Axes, infos: Sequence[Info]) -> None:
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    low = min(0.5, *(0.8 * info["speed"]["q1"] for info in infos))
    axes.set_xlim(low, max(2.0, *(1.6 * info["speed"]["q3"] for info in infos)))
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
    axes.set_xticks([step for step in steps if axes.get_xlim()[0] <= step <= axes.get_xlim()[1]])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    unsteady = "; pale: unsteady" if any(info["speed"]["unsteady"] for info in infos) else ""
    axes.set_xlabel(f"speed against the reference; lines: quartiles{unsteady}")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _lines(axes: Axes, entries: Sequence[Info]) -> None:
    for number, entry in enumerate(entries):
        sides = [("own", entry["name"], COLOURS[number % len(COLOURS)])]
        sides += [("reference", "reference", INK)] if number == 0 else []
        for side, name, colour in sides:
            found, factors = entry[side], entry["factors"]
            told = f"{name}: {found['exponent']:.2f} ± {found['error']:.2f}"
            milliseconds = [1e3 * each for each in found["seconds"]]
            axes.plot(factors, milliseconds, "o-", color=colour, markersize=3, linewidth=1.2, label=told)
            expected = [milliseconds[0] * factor ** entry["expected"] for factor in factors]
            axes.plot(factors, expected, ":", color=colour, linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(entries[0]["factors"], [f"{factor}" for factor in entries[0]["factors"]])
    axes.legend(frameon=False, fontsize=7, loc="upper left")
    axes.grid(color=FAINT, linewidth=0.4)
