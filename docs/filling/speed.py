"""What the documents say of speed, from saved runs: of kernels beside the reference, and of the suite itself."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from detr_conformance.evidence.catalogue import covering_tests
from detr_conformance.operations import OPERATIONS
from filling.saved import saved

WRITTEN = {"forward": "forward", "backward": "backward", "both": "forward + backward"}
ABOVE_ONE = "Above 1 is faster, or more memory."
LONGEST = 10  # operations shown of the suite's times


def infos(name: str) -> list[dict[str, Any]]:
    """What was measured, figure by figure."""
    return [each["extra_info"] for each in saved(name)["benchmarks"]]


def speeds() -> str:
    """The core: target by target at each workload, as multiples of the reference's speed and memory."""
    found = infos("bench")
    names = list(dict.fromkeys(info["name"] for info in found))
    by_place = {(info["workload"], info["direction"], info["name"]): info for info in found}
    heads = [f"{name} | memory" for name in names]
    lines = [f"| workload | | reference | {' | '.join(heads)} | {names[0]} over {names[1]} |"]
    lines.append("|---" * (4 + 2 * len(names)) + "|")
    for workload, direction in dict.fromkeys((info["workload"], info["direction"]) for info in found):
        own = [by_place[workload, direction, name] for name in names]
        cells = [f"{info['speed']['median']:.2f}x | {_memory(info)}" for info in own]
        over = own[0]["speed"]["median"] / own[1]["speed"]["median"]
        seconds = own[0]["reference_seconds"]["median"]
        lines.append(
            f"| `{workload}` | {WRITTEN[direction]} | {seconds:.3f} s | {' | '.join(cells)} | **{over:.1f}x** |"
        )
    return "\n".join([*lines, "", f"{_machine('bench')}. {ABOVE_ONE}"])


def in_short() -> str:
    """The core: how many times as fast as the reference each target is."""
    found = infos("bench")
    names = list(dict.fromkeys(info["name"] for info in found))
    speed = {(info["workload"], info["direction"], info["name"]): info["speed"]["median"] for info in found}
    lines = [f"| workload | | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for workload, direction in dict.fromkeys((info["workload"], info["direction"]) for info in found):
        cells = " | ".join(f"{speed[workload, direction, name]:.2f}x" for name in names)
        lines.append(f"| `{workload}` | {WRITTEN[direction]} | {cells} |")
    return "\n".join([*lines, "", f"{_machine('bench')}."])


def models() -> str:
    """The kernel inside modules and models."""
    lines = ["| | workload | | reference | cpu-kernel | memory |", "|---" * 6 + "|"]
    for info in infos("bench-models"):
        lines.append(
            f"| `{info['operation']}` | `{info['workload']}` | {WRITTEN[info['direction']]} "
            f"| {info['reference_seconds']['median']:.2f} s | {info['speed']['median']:.2f}x | {_memory(info)} |"
        )
    return "\n".join([*lines, "", f"{_machine('bench-models')}. {ABOVE_ONE}"])


def growth() -> str:
    """Fitted exponents."""
    lines = ["| size | | cpu-kernel | reference | expected |", "|---" * 5 + "|"]
    for entry in saved("bench-growth")["detr_spec"]["growth"]:
        own, reference = (f"{entry[k]['exponent']:.2f} ± {entry[k]['error']:.2f}" for k in ("own", "reference"))
        lines.append(
            f"| {entry['axis']} | {WRITTEN[entry['direction']]} | {own} | {reference} | {entry['expected']:g} |"
        )
    return "\n".join(lines)


def suite_times() -> str:
    """Where the time of the standard check goes."""
    report = saved("reference")
    seconds = Counter[str]()
    tests = [test for test in covering_tests() if len(test.operations) == 1]
    whole = {PurePosixPath(test.file).name: test.operations[0] for test in tests}
    for test, took in report["times"]["tests"].items():
        file, _, rest = test.partition("::")
        named = rest.partition("[")[2].split("-")[0]
        seconds[named if named in OPERATIONS else whole[file]] += took or 0.0
    total = sum(seconds.values())
    alone = saved("reference-one-process")["times"]["seconds"]
    lines = ["| operation | seconds | share |", "|---" * 3 + "|"]
    lines += [f"| `{name}` | {took:.0f} | {took / total:.0%} |" for name, took in seconds.most_common(LONGEST)]
    rest = sum(took for _, took in seconds.most_common()[LONGEST:])
    lines.append(f"| the other {len(seconds) - LONGEST} | {rest:.0f} | {rest / total:.0%} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Together {total:.0f} s of testing, in {report['times']['seconds']:.0f} s with `--jobs 2` and "
            f"{alone:.0f} s with one process.",
        ]
    )


def _memory(info: dict[str, Any]) -> str:
    own, reference = info["own_peak_bytes"], info["reference_peak_bytes"]
    return f"{own / reference:.2f}x" if own and reference else "not measured"


def _machine(name: str) -> str:
    machine = saved(name)["machine_info"]
    cpu = machine["cpu"].get("brand_raw", machine["cpu"].get("arch", "a CPU"))
    return f"float32, {machine['threads']} threads, torch {machine['torch']}, {cpu}"
