"""The figures for human eyes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detr_conformance.reporting.console import visible

WIDTH = 132  # of a file or a pipe, which has none
EVEN = 0.01  # nearer to the reference than this is neither faster nor slower
SHARES = {"of copy": "share_of_copy", "of product": "share_of_product"}
NOT_MEASURED = Text("not measured", style="dim")

Info = Mapping[str, Any]


def print_speeds(console: Console, infos: Sequence[Info], ceilings: Sequence[Info]) -> None:
    """A table for each target and operation, device and dtype; then what its figures are to be read with."""
    for heading in dict.fromkeys(map(_heading, infos)):
        own = [info for info in infos if _heading(info) == heading]
        shares = _shares_told(own)
        table = _table("workload", "direction", "speed", "±", "time", "reference", "memory", *shares, "check")
        for info in own:
            table.add_row(*_cells(info), *(_share(info, name) for name in shares.values()), "pass")
        title = Text.assemble("\n", visible(heading[0], "bold"), "   ", visible(", ".join(heading[1:]), "dim"))
        console.print(title, soft_wrap=True)
        console.print(table)
    for line in _remarks(infos, ceilings):
        console.print(Text(line, style="dim"), soft_wrap=True)


def print_growth(console: Console, growth: Sequence[Info]) -> None:
    """Each exponent beside the reference's and the expected one."""
    table = _table("target", "size", "direction", "dtype", "exponent", "reference", "expected")
    for entry in growth:
        own, reference = (f"{e['exponent']:.2f} ± {e['error']:.2f}" for e in (entry["own"], entry["reference"]))
        names = (entry["name"], entry["axis"], entry["direction"], entry["dtype"])
        table.add_row(*map(visible, names), own, reference, f"{entry['expected']:g}")
    console.print(Text("\nms_deform_attn", style="bold"), Text("time ~ size ^ exponent", style="dim"), sep="   ")
    console.print(table)
    console.print(
        Text(
            "fitted to the fastest round at 1, 2, 4 and 8 times the base size; ± is the standard error of the fit",
            style="dim",
        )
    )


def speed_text(ratio: float) -> str:
    """1.25x faster, 1.25x slower"""
    if abs(ratio - 1) < EVEN:
        return "as fast"
    return f"{ratio:.2f}x faster" if ratio > 1 else f"{1 / ratio:.2f}x slower"


def seconds_text(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            shown = seconds / size
            return f"{shown:.{0 if shown >= 99.95 else 1 if shown >= 9.995 else 2}f} {unit}"
    raise AssertionError


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        named = column in ("target", "workload", "direction", "dtype", "check", "size")
        table.add_column(column, justify="left" if named else "right", no_wrap=True, overflow="fold")
    return table


def _heading(info: Info) -> tuple[str, ...]:
    threads = f"{info['threads']} thread{'s' * (info['threads'] > 1)}"
    place = [info["operation"], info["dtype"], info["device"], *([threads] if info["device"] == "cpu" else [])]
    return (info["name"], *place, f"check: {info['check']}")


def _shares_told(infos: Sequence[Info]) -> dict[str, str]:
    """Columns of the shares; a CPU's sampling core is nowhere near its matrix product."""
    told = SHARES if any(info["traffic"] for info in infos) else {}
    return {name: key for name, key in told.items() if infos[0]["device"] != "cpu" or name == "of copy"}


def _cells(info: Info) -> list[Text | str]:
    speed = info["speed"]
    style = "" if abs(speed["median"] - 1) < EVEN else "green" if speed["median"] > 1 else "red"
    return [
        *(visible(info[name]) for name in ("workload", "direction")),
        Text(("~" if speed["unsteady"] else "") + speed_text(speed["median"]), style=style),
        f"{speed['iqr'] / 2 / speed['median']:.0%}",
        seconds_text(info["own_seconds"]["median"]),
        seconds_text(info["reference_seconds"]["median"]),
        _memory(info),
    ]


def _memory(info: Info) -> Text | str:
    own, reference = info["own_peak_bytes"], info["reference_peak_bytes"]
    if own is None:
        return NOT_MEASURED
    return f"{own / 1e6:.0f} MB" + (f", {own / reference:.2f}x" if reference else "")


def _share(info: Info, name: str) -> str:
    return f"{info['traffic'][name]:.1%}" if info["traffic"] else ""


def _remarks(infos: Sequence[Info], ceilings: Sequence[Info]) -> list[str]:
    lines = [
        "\nspeed: the reference's time over the target's, round by round while both take turns: the median;",
        "±: half the distance of its quartiles, ~ where that is more than a tenth",
    ]
    if any(info["own_peak_bytes"] is not None for info in infos):
        lines.append("memory: the most that a call needs beyond its inputs, results included, and over the reference's")
    if any(info["traffic"] for info in infos):
        lines.append("of copy, of product: the least to be moved and computed, as a share of what the device can do:")
    for each in ceilings:
        lines.append(
            f"  {each['device']}, {each['dtype']}: copy {each['bytes_per_second'] / 1e9:.1f} GB/s, "
            f"matrix product {each['flops_per_second'] / 1e9:.0f} Gflop/s, measured in this run"
        )
    return lines
