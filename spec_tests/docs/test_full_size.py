"""The saved runs at full size: of the published models, at 800 x 1333, and as the chapters quote them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.places import CHAPTERS, ROOT

CHAPTER = CHAPTERS / "19-dino.md"
QUERIES, DENOISING, LAYERS, CLASSES = 900, 200, 6, 80  # 20 boxes: 5 groups of 20 positives and 20 negatives


@pytest.fixture
def saved() -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "runs" / "full-size.json").read_text(encoding="utf-8"))


def test_the_models_are_the_published_ones(saved: dict[str, Any]) -> None:
    assert saved["image"] == [800, 1333]
    runs = {run["name"]: run for run in saved["runs"]}
    trained, looked = runs["DINO, forward and backward"], runs["DINO, forward"]
    assert trained["parameters"] == looked["parameters"] == 47_650_316
    assert trained["shapes"] == {
        "pred_logits": [LAYERS, 1, QUERIES, CLASSES],
        "dn_logits": [LAYERS, 1, DENOISING, CLASSES],
    }
    assert set(trained["seconds"]) == {"forward", "losses", "backward"}
    assert trained["peak_mib"] > looked["peak_mib"] > 47_650_316 * 4 / 2**20


def test_the_chapter_quotes_them(saved: dict[str, Any]) -> None:
    rows = [
        f"| {run['name']} | {sum(run['seconds'].values()):.0f} s | {run['peak_mib'] / 1024:.1f} GiB |"
        for run in saved["runs"]
    ]
    assert [row for row in rows if row not in CHAPTER.read_text(encoding="utf-8")] == []
