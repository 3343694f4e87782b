"""Chapter 20 says what the code does: its formats, configurations and links are real ones."""

from __future__ import annotations

import re

import pytest

from detr_conformance.evidence.clauses import parse_chapter
from detr_reference.checkpoints import FORMATS
from detr_reference.detectors.config import DeformableDETRConfig, DETRConfig, DINOConfig
from detr_reference.features.config import ResNetConfig
from helpers.places import CHAPTERS

CHAPTER = CHAPTERS / "20-checkpoints.md"
TEXT = CHAPTER.read_text(encoding="utf-8")
CONFIGS = {kind.__name__: kind for kind in (DETRConfig, DeformableDETRConfig, DINOConfig, ResNetConfig)}


def test_it_requires_nothing() -> None:
    assert parse_chapter(CHAPTER.name, TEXT).clauses == ()


def test_every_format_is_in_the_table_of_formats_and_in_that_of_proofs() -> None:
    formats, proofs = (section(title) for title in ("Formats", "How each map was proven"))
    for name in FORMATS:
        assert f"| `{name}` |" in formats
        assert re.search(rf"^\|.*`{name}`.*\|.*test_checkpoint_", proofs, re.MULTILINE), name


@pytest.mark.parametrize("written", sorted(set(re.findall(r"`(\w+Config\(.*?\))`", TEXT))))
def test_every_configuration_can_be_made(written: str) -> None:
    eval(written, {"__builtins__": {}}, CONFIGS)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 15
    assert [link for link in links if not (CHAPTER.parent / link).exists()] == []


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]
