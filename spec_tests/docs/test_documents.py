"""Every figure in the documents is that of a saved run; and the gate, shown to fail on planted faults."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

from helpers.places import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("fill")


def place(name: str, text: str = "") -> str:
    return f"before\n<!-- run: {name} -->\n{text}<!-- end -->\nafter\n"


def test_the_documents_show_the_saved_runs() -> None:
    command = [sys.executable, str(ROOT / "docs" / "fill.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_figure_is_found(script: ModuleType) -> None:
    document = ROOT / "README.md"
    right = script.filled(place("kill-rates"), document)
    assert right.startswith("before\n<!-- run: kill-rates -->\nOf ")
    assert script.filled(right, document) == right
    assert script.filled(right.replace("Of 1", "Of 2"), document) == right


def test_an_unknown_place_is_found(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"README\.md has a place 'kill-rate', which nothing fills"):
        script.filled(place("kill-rate"), ROOT / "README.md")


def test_a_place_that_no_document_has_is_found(script: ModuleType) -> None:
    shown = "".join(place(name) for name in script.PLACES if name != "smoke")
    assert script.unshown([shown]) == {"smoke"}


def test_links_are_written_from_the_documents_folder(script: ModuleType) -> None:
    text = "[a](docs/runs/bench.png) [b](docs/index.md#set-up) [c](https://example.org/docs) ![d](README.md)"
    assert script.linked_from(ROOT / "README.md", text) == text
    assert script.linked_from(ROOT / "docs" / "guides" / "measure.md", text) == (
        "[a](../runs/bench.png) [b](../index.md#set-up) [c](https://example.org/docs) ![d](../../README.md)"
    )
