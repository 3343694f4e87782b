"""The chapters' pictures: each is drawn by the script, each is shown in a chapter."""

from __future__ import annotations

import importlib
import re
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

from helpers.places import ROOT

SPEC = Path(str(files("detr_reference") / "spec"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("pictures")


def shown() -> set[str]:
    """The pictures that chapters show."""
    text = "".join(chapter.read_text(encoding="utf-8") for chapter in SPEC.glob("*.md"))
    return set(re.findall(r"!\[[^\]]+\]\(pictures/([\w-]+\.png)\)", text))


@pytest.mark.usefixtures("unchecked_shapes")
def test_every_picture_is_drawn_kept_and_shown(script: ModuleType, tmp_path: Path) -> None:
    drawn = script.draw(tmp_path)
    assert all(path.stat().st_size > 5_000 for path in drawn)
    names = {path.name for path in drawn}
    assert names == {path.name for path in (SPEC / "pictures").iterdir()}
    assert names == shown()
