"""The results on the documentation's site: which saved reports they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_conformance.evidence.clauses import load_chapters
from detr_conformance.reporting.report_file import read_reports
from helpers.places import RUNS
from helpers.site import site_module

results = site_module("results")


@pytest.mark.parametrize("name", results.SHOWN)
def test_every_run_shown_is_saved(name: str) -> None:
    assert read_reports(RUNS / f"{name}.json.gz")


def test_where_no_run_is_saved_there_are_no_results(tmp_path: Path) -> None:
    assert results.result_pages(load_chapters(), tmp_path) == {}


def test_of_what_is_saved_there_are_results_with_links_into_the_chapters(tmp_path: Path) -> None:
    (tmp_path / "my-kernel.json.gz").write_bytes((RUNS / "my-kernel.json.gz").read_bytes())
    pages = results.result_pages(load_chapters(), tmp_path)
    assert "results/implementations/my-kernel.html" in pages
    assert 'href="../../spec/01-deformable-attention.html#MSDA-7"' in pages["results/clauses/MSDA-7.html"]
    assert 'href="../index.html"' in pages["results/index.html"]
