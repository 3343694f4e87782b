"""The results on the site: what `detr-spec site` makes of the saved reports, in the folder `results/`."""

from __future__ import annotations

from pathlib import Path

from places import ROOT

from detr_conformance.evidence.clauses import Chapter
from detr_conformance.reporting.findings import KILL_MATRIX
from detr_conformance.reporting.json_file import read_json
from detr_conformance.reporting.pages.site import site
from detr_conformance.reporting.report_file import read_reports

FOLDER = "results"
RUNS = ROOT / "docs" / "runs"
# In the order of the matrix. What is about the same target is its history, the oldest first.
SHOWN = (
    "reference",
    "reference-compiled",
    "torch",
    "transformers",
    "transformers-detectors",
    "numpy-core",
    "jax-core",
    "jax-core-jitted",
    "onnxruntime",
    "cpp-runner",
    "my-kernel",
    "my-broken-kernel",
    "ported-dino",
)


def result_pages(chapters: list[Chapter], runs: Path = RUNS) -> dict[str, str]:
    """Place on the site -> content; nothing where no run is saved."""
    saved = [(name, file) for name in SHOWN if (file := runs / f"{name}.json.gz").is_file()]
    if not saved:
        return {}
    reports = [(name, report) for name, file in saved for report in read_reports(file).values()]
    pages = site(reports, chapters, kill_matrix=read_json(KILL_MATRIX), documentation="../")
    return {f"{FOLDER}/{place}": made() for place, made in pages.items()}
