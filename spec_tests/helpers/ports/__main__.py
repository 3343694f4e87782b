"""DINO with ResNet-50 at 480 x 640, weights from a file as published: are right ports right, and mistakes named?

python -m helpers.ports [RESULT.json] [NAME ...], in spec_tests: those whose names begin so, or all. One
reference serves all that select the same cells; it takes most of the time, and some gigabytes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from detr_conformance import PARTS, STAGES, Target
from detr_conformance.comparing import command
from detr_conformance.comparing.command import Asked, prepared
from detr_conformance.comparing.comparison import Comparison, compare
from detr_conformance.comparing.reference import Reference
from detr_conformance.comparing.table import as_json
from detr_conformance.comparing.weights import random_weights
from detr_conformance.isolation.stage_values import StageCalls
from detr_conformance.staging.expectations import Expected
from detr_reference.detectors.config import DINOConfig
from helpers.ports.dino import MISTAKES, RIGHT, Build, as_published

RECIPE, SIZE = "dino-r50-4scale-12", "480x640"
PUBLISHED: dict[str, Any] = {"num_classes": 91, "label_embedding_size": 92, "shared_heads": True}


def published_file(path: Path) -> None:
    """Names and shapes of checkpoint0011_4scale.pth, random numbers."""
    state_dict = random_weights("dino", DINOConfig(**PUBLISHED), 0).tensors
    tensors = {name: tensor.float() for name, tensor in as_published(state_dict, DINOConfig(**PUBLISHED)).items()}
    torch.save({"model": tensors, "epoch": 11}, path)


def remember_the_reference() -> None:
    """What is right depends on the target by its selection alone."""
    actual, known = Reference.expected, dict[str, Expected]()

    def expected(self: Reference, calls: StageCalls, indices: Any) -> Expected:
        key = "" if indices is None else json.dumps(indices.tolist())
        if key not in known:
            known.clear()  # one is a gigabyte
            known[key] = actual(self, calls, indices)
        return known[key]

    Reference.expected = expected  # type: ignore[method-assign]


def run(name: str, build: Build, checkpoint: Path, console: Console) -> dict[str, Any]:
    command._target = lambda _: Target(name, {"dino": build}, stages=STAGES["dino"] | PARTS["dino"])  # type: ignore[assignment]
    ready = prepared(Asked(name, "dino", RECIPE, str(checkpoint), size=SIZE))
    start = time.perf_counter()
    with torch.no_grad(), Progress(console=console, transient=True) as progress:
        task = progress.add_task(name, total=1.0)
        found = compare(
            ready.subject, ready.case, lambda what, done: progress.update(task, description=what, completed=done)
        )
    return {"name": name, "seconds": round(time.perf_counter() - start, 1), **as_json(found), "worst": worst(found)}


def worst(found: Comparison) -> float:
    """The largest share of its limit that an agreeing stage reaches."""
    return round(max(stage.ratio for stage in found.stages if stage.agrees), 3)


def main(result: Path | None, wanted: tuple[str, ...]) -> int:
    console, wrong, runs = Console(), 0, []
    remember_the_reference()
    ports = {name: (build, None, None) for name, build in RIGHT.items()} | MISTAKES
    order = sorted(ports, key=lambda name: "select" in name)  # those that select the same one after another
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "checkpoint0011_4scale.pth")
        published_file(checkpoint)
        for name in order:
            build, stage, part = ports[name]
            if wanted and not name.startswith(wanted):
                continue
            found = run(name, build, checkpoint, console)
            named = (found["first_divergence"], found["part"]) == (stage, part)
            wrong += not named
            said = f"{found['first_divergence'] or 'agrees'}, {found['part'] or 'no part'}"
            console.print(
                f"{'ok' if named else 'WRONG'}  {name}: {said} ({found['seconds']} s, worst {found['worst']})"
            )
            for line in found["told"]:
                console.print(f"    {line}", highlight=False)
            runs.append(found)
            if result is not None:
                result.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    console.print(f"{len(runs)} ports, {wrong} not as expected")
    return int(wrong > 0)


if __name__ == "__main__":
    given = sys.argv[1:]
    file = Path(given.pop(0)) if given and given[0].endswith(".json") else None
    raise SystemExit(main(file, tuple(given)))
