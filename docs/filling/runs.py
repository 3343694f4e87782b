"""The runs that the documents show, and how each is made again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from platform import machine

from detr_conformance.operations import OPERATIONS
from detr_conformance.reporting.json_file import write_json
from detr_reference.training.curves import read_log
from filling.saved import ROOT, RUNS, make_small

EXAMPLE = "docs/examples/grid_sample_kernel.py"
PORT = "docs/examples/ported_dino.py"
SMOKE = "make smoke"
RUNNER = "detr-spec check --runner build/runner"

# What detectors are made of (chapters 1 to 9), and what is made of it (from chapter 11 on).
BLOCKS = [name for name, operation in OPERATIONS.items() if operation.chapters[0] < "10"]
DETECTORS = [name for name in OPERATIONS if name not in BLOCKS]


@dataclass(frozen=True)
class Command:
    """A `detr-spec` command.

    Attributes:
        typed: as a reader types it; what saves its result is added.
        status: the exit status it must have.
        shown: whether its output is kept.
        drawn: whether it draws a picture.
    """

    typed: str
    status: int = 0
    shown: bool = False
    drawn: bool = False

    def run(self, name: str) -> None:
        files = ["--json", f"docs/runs/{name}.json.gz", *(["--picture", f"docs/runs/{name}.png"] * self.drawn)]
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        command = [*self.typed.split(), *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != self.status:
            sys.exit(f"{self.typed}\nended with {done.returncode}, not {self.status}\n{done.stdout}{done.stderr}")
        if self.shown:
            (RUNS / f"{name}.txt").write_text(f"$ {self.typed}\n{done.stdout}", encoding="utf-8")
        if self.drawn:
            make_small(RUNS / f"{name}.png")


def _asking_for(operations: list[str]) -> str:
    return "".join(f" --operation {operation}" for operation in operations)


COMMANDS = {
    "reference": Command("detr-spec check reference --jobs 2", shown=True),
    "reference-one-process": Command("detr-spec check reference"),
    "reference-compiled": Command("detr-spec check reference-compiled"),
    "my-kernel": Command(f"detr-spec check {EXAMPLE}:target", shown=True),
    "my-broken-kernel": Command(f"detr-spec check {EXAMPLE}:broken", status=1, shown=True),
    "wrong-numpy": Command("detr-spec check docs/examples/numpy_kernel.py:wrong --profile smoke", status=1, shown=True),
    "wrong-jax": Command(
        "detr-spec check docs/examples/jax_kernel.py:wrong --profile smoke --shapes few", status=1, shown=True
    ),
    "ported-dino": Command(f"detr-spec check {PORT}:target --operation dino", status=1, shown=True),
    "training-check": Command(f"detr-spec check {EXAMPLE}:target --profile training", shown=True),
    "torch": Command("detr-spec check torch"),
    "numpy-core": Command("detr-spec check numpy-core --jobs 2"),
    "jax-core": Command("detr-spec check jax-core --shapes few --jobs 2 --dtype float32"),
    "jax-core-jitted": Command("detr-spec check jax-core-jitted --shapes few --jobs 2"),
    "onnxruntime": Command("detr-spec check onnxruntime --shapes few --jobs 2"),
    "transformers": Command(f"detr-spec check transformers --jobs 2{_asking_for(BLOCKS)}"),
    "transformers-detectors": Command(f"detr-spec check transformers --jobs 2{_asking_for(DETECTORS)}"),
    "bench": Command(
        "detr-spec bench cpu-kernel transformers-deformable_detr --operation ms_deform_attn --threads 2"
        " --workload dino-encoder --workload dino-encoder-1066 --workload dino-decoder",
        drawn=True,
    ),
    "bench-growth": Command("detr-spec bench cpu-kernel --growth --threads 1", drawn=True),
    "bench-models": Command(
        "detr-spec bench cpu-kernel --operation ms_deform_attn_module --operation dino --threads 2"
    ),
}


def _smoke() -> None:
    """The smoke training from nothing, with its two pictures."""
    output = ROOT / "runs" / "smoke"
    shutil.rmtree(output, ignore_errors=True)
    start = time.perf_counter()
    subprocess.run(SMOKE.split(), cwd=ROOT, check=True)
    seconds = time.perf_counter() - start
    evaluations = [line for line in read_log(output / "log.jsonl") if line["kind"] == "evaluation"]
    content = {
        "command": SMOKE,
        "seconds": round(seconds),
        "steps": evaluations[-1]["step"],
        "figures": {name: value for name, value in evaluations[-1].items() if name[:2] in ("AP", "AR")},
        "environment": {"torch": version("torch"), "machine": machine(), "cores": os.cpu_count()},
    }
    write_json(RUNS / "smoke.json", content)
    for picture in ("predictions", "curves"):
        shutil.copy(output / f"{picture}.png", RUNS / f"smoke-{picture}.png")
        make_small(RUNS / f"smoke-{picture}.png")


def _runner(name: str, program: str, command: Command, *flags: str) -> None:
    """The runner in C++, compiled as the Makefile says, and its verdict."""
    (ROOT / "build").mkdir(exist_ok=True)
    source = "docs/examples/cpp_runner/runner.cpp"
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, "-std=c++17", "-O2", *flags, "-o", program, source], cwd=ROOT, check=True)
    command.run(name)


def _script(name: str) -> None:
    """One of docs/*.py, which saves its own result."""
    subprocess.run([sys.executable, f"docs/{name}.py"], cwd=ROOT, check=True)


# `docs/overfit.py` is not among them: it needs photographs.
MAKE: dict[str, Callable[[], None]] = {
    **{name: partial(command.run, name) for name, command in COMMANDS.items()},
    "cpp-runner": partial(_runner, "cpp-runner", "build/runner", Command(RUNNER)),
    "wrong-cpp": partial(
        _runner,
        "wrong-cpp",
        "build/broken-runner",
        Command("detr-spec check --runner build/broken-runner --profile smoke", status=1, shown=True),
        "-DBROKEN",
    ),
    "smoke": _smoke,
    "dry-run": partial(_script, "dry_run"),
    "full-size": partial(_script, "full_size"),
    "small-comparison": partial(_script, "small_comparison"),
}
