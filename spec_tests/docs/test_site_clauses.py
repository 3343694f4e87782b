"""Clauses on the site: each is an anchor, its id is a link to it elsewhere, and llms.txt names it."""

from __future__ import annotations

import re

import pytest

from detr_conformance.evidence.clauses import load_chapters, load_clauses
from helpers.places import CHAPTERS
from helpers.site import site_module

clause_anchors = site_module("clause_anchors")
llms_txt = site_module("llms_index").llms_txt
spec_index = site_module("spec_index").spec_index
docstring_text = site_module("docstring_text")

PLACES = {"AB-1": "spec/01-a.md", "CD-22": "spec/02-c.md"}


def test_a_clause_becomes_an_anchor() -> None:
    assert clause_anchors.with_anchors("**AB-1 (MUST) Title.** Text.") == (
        "**[AB-1](#AB-1){ #AB-1 .clause } (MUST) Title.** Text."
    )
    untouched = "Text **AB-1 (MUST)** within.\n\n```\n**AB-1 (MUST).** code\n```\n"
    assert clause_anchors.with_anchors(untouched) == untouched


def test_every_clause_of_every_chapter_becomes_an_anchor() -> None:
    for chapter in load_chapters():
        text = clause_anchors.with_anchors((CHAPTERS / chapter.file).read_text(encoding="utf-8"))
        assert re.findall(r"\{ #([A-Z]+-\d+) \.clause \}", text) == [clause.id for clause in chapter.clauses]


@pytest.mark.parametrize(
    ("place", "text", "shown"),
    [
        ("spec/01-a.md", "as AB-1 says", "as [AB-1](#AB-1) says"),
        ("spec/01-a.md", "as CD-22, says", "as [CD-22](02-c.md#CD-22), says"),
        ("guides/x.md", "(CD-22)", "([CD-22](../spec/02-c.md#CD-22))"),
        ("index.md", "| AB-1 |", "| [AB-1](spec/01-a.md#AB-1) |"),
        ("spec/01-a.md", "**[AB-1](#AB-1){ #AB-1 .clause } (MUST).**", None),
        ("spec/01-a.md", "`AB-1`", None),
        ("spec/01-a.md", "    AB-1 = code", None),
        ("spec/01-a.md", "## AB-1 in a heading", None),
        ("spec/01-a.md", "[see AB-1](x.md)", None),
        ("spec/01-a.md", '<a title="AB-1">', None),
        ("spec/01-a.md", "AB-11, XAB-1, AB-1-2 and ZZ-1", None),
        ("spec/01-a.md", "```sh\nspec AB-1\n```", None),
    ],
)
def test_an_id_in_a_text_becomes_a_link(place: str, text: str, shown: str | None) -> None:
    assert clause_anchors.with_mentions(text, place, PLACES) == (text if shown is None else shown)


def test_llms_txt_has_every_document_and_every_clause() -> None:
    chapters = load_chapters()
    text = llms_txt("What it is.", {"Guides": [("A guide", "guides/a.html", ""), ("B", "b.html", "of b")]}, chapters)
    assert text.startswith("# detr-spec\n\n> What it is.\n")
    assert "- [A guide](guides/a.html)\n- [B](b.html): of b\n" in text
    for clause in load_clauses(retired=True).values():
        level = f"{clause.level}, {clause.condition}" if clause.condition else clause.level
        page = f"spec/{clause.chapter.removesuffix('.md')}.html"
        assert f"- [{clause.id}]({page}#{clause.id}) ({level}): {clause.short}\n" in text


def test_the_index_of_the_specification_has_every_chapter() -> None:
    text = spec_index(load_chapters())
    for chapter in load_chapters():
        assert f"[{chapter.title}]({chapter.file})" in text
    assert f"| MSDA | {len(load_chapters()[0].clauses)} |" in text


@pytest.mark.parametrize(
    ("paragraph", "formula"),
    [
        ("out = identity + dropout(x)", True),
        ("x <- norm(x + attn(x))", True),
        ("G = max(1, n // M), M the largest count", True),
        ("sum of weight * loss over all predictions", True),
        ("Sizes of the module.", False),
        ("fc2(gelu(fc1(x))), with the exact GELU, x * Phi(x).", False),
        ("Groups for `AdamW`, each with a rate - and more", False),
        ("what the backbone sees", False),
    ],
)
def test_a_formula_is_told_from_a_sentence(paragraph: str, formula: bool) -> None:
    assert docstring_text.is_formula(paragraph) is formula
    assert docstring_text.shown(f"{paragraph}\n\nMore.").startswith("```" if formula else paragraph[:2])


def test_a_docstring_has_links_and_products() -> None:
    shown = docstring_text.shown("What.\n\nHead m fills m*D to (m+1)*D, `a*b`; MSDA-7, spec chapter 07, chapter 99.")
    assert r"m\*D to (m+1)\*D, `a*b`" in shown
    assert "[MSDA-7](../spec/01-deformable-attention.md#MSDA-7)" in shown
    assert "[spec chapter 07](../spec/07-transformer-layers.md), chapter 99" in shown


def test_an_entry_of_several_arguments_is_one_name() -> None:
    shown = docstring_text.shown("What.\n\nArgs:\n    query, key: both.\n    mask: a, b: c.\n")
    assert "    query,\N{NO-BREAK SPACE}key: both.\n    mask: a, b: c." in shown
