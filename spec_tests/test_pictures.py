"""The chapters' pictures: each is drawn by the script, each is shown in a chapter."""

from __future__ import annotations

import importlib.util
import re
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = Path(str(files("detr_reference") / "spec"))


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown() -> set[str]:
    """The pictures that chapters show."""
    text = "".join(chapter.read_text(encoding="utf-8") for chapter in SPEC.glob("*.md"))
    return set(re.findall(r"!\[[^\]]+\]\(pictures/([\w-]+\.png)\)", text))


@pytest.mark.usefixtures("unchecked_shapes")
def test_every_picture_is_drawn_kept_and_shown(tmp_path: Path) -> None:
    drawn = script().draw(tmp_path)
    assert all(path.stat().st_size > 5_000 for path in drawn)
    names = {path.name for path in drawn}
    assert names == {path.name for path in (SPEC / "pictures").iterdir()}
    assert names == shown()
