"""The saved runs: reports and measurements as .json.gz, short results of docs/*.py as .json, output, pictures."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from detr_conformance.reporting.json_file import read_json

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "docs" / "runs"
COLOURS = 256


@cache
def saved(name: str) -> Any:
    """What a run left as JSON."""
    plain = RUNS / f"{name}.json"
    return read_json(plain if plain.exists() else RUNS / f"{name}.json.gz")


def lines_of(name: str) -> list[str]:
    """What a run printed, its command first."""
    return (RUNS / f"{name}.txt").read_text(encoding="utf-8").rstrip().splitlines()


def make_small(picture: Path) -> None:
    """Replace a picture's colours by the best few, to a fifth of its size."""
    with Image.open(picture) as whole:
        whole.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1).save(picture, optimize=True)
