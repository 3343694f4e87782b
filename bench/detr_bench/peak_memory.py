"""The most memory that a call needs beyond its inputs: of a CPU by the high-water mark of a process of its own.

`python -m detr_bench.peak_memory REQUEST.json` writes the figures beside the request. Linux alone lets a process reset
its high-water mark; elsewhere nothing is measured. A page that the allocator kept from an earlier call is in use before
and after, so that small calls are told a few megabytes too low.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def can_measure() -> bool:
    """Whether the high-water mark of a process can be read and reset here."""
    return os.access(STATUS, os.R_OK) and os.access(REFERENCES, os.W_OK)


def peak_bytes(function: Callable[[], object]) -> int:
    """How far resident memory rises above where it was, while the function runs."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    REFERENCES.write_text(RESET_PEAK)
    before = _kilobytes("VmRSS")
    function()
    return max(0, _kilobytes("VmHWM") - before) * 1024


def _kilobytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])


def peaks_in_a_process(
    target: str, operation: str, workload: str, directions: Sequence[str], dtype: str, threads: int
) -> dict[str, int]:
    """Bytes for each direction, in a fresh process; empty where that cannot be measured."""
    if not can_measure():
        return {}
    request = {"target": target, "operation": operation, "workload": workload, "directions": list(directions)}
    with tempfile.TemporaryDirectory(prefix="detr-bench-") as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request | {"dtype": dtype, "threads": threads}))
        command = [sys.executable, "-P", "-m", "detr_bench.peak_memory", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        answer = path.with_suffix(".answer")
        if not answer.exists():
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise RuntimeError(f"while its memory was measured: {last}")
        found: dict[str, int] = json.loads(answer.read_text())
        return found


def main(path: Path) -> None:
    """Answers one request."""
    import torch

    from detr_bench.calls import make_call, make_scene
    from detr_bench.race import Runner
    from detr_bench.workloads import find
    from detr_conformance.running.loaders import load_target

    asked = json.loads(path.read_text())
    torch.set_num_threads(asked["threads"])
    sizes = find(asked["operation"], asked["workload"])
    assert sizes is not None
    scene = make_scene(asked["operation"], sizes, "cpu", getattr(torch, asked["dtype"]))
    call = make_call(scene, load_target(asked["target"]).provides[asked["operation"]])
    runners = {direction: Runner(call, direction) for direction in asked["directions"]}
    for runner in runners.values():  # what only a first call allocates is not counted
        runner.round()
        runner.let_go()
    answer = {}
    for direction, runner in runners.items():
        runner.prepare()
        answer[direction] = peak_bytes(runner.go)
        runner.let_go()
    path.with_suffix(".answer").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
