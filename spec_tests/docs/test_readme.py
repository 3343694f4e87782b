"""The README is a page, and what it and the guides show can be typed as it stands."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from detr_conformance.running.loaders import load_target
from detr_reference.cli import COMMANDS
from helpers.commands import run
from helpers.markdown import blocks
from helpers.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
MOST_LINES = 250


def test_it_is_a_page() -> None:
    assert README.count("\n") <= MOST_LINES


def test_it_names_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [name for name in project["optional-dependencies"] if f"'.[{name}]'" not in README] == []


def test_its_kernel_is_a_target_of_at_most_ten_lines_that_conforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks(README, "python")
    name, _, source = code.partition("\n")
    assert len([line for line in source.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    Path(name.removeprefix("# ")).write_text(source)
    target = load_target("my_kernel.py:target")
    assert (target.features, target.dtypes) == ((), ("float32",))
    result = run("check", "my_kernel.py:target", "--profile", "smoke")
    assert result.exit_code == 0
    assert "my-kernel conforms" in result.output


def typed() -> list[tuple[str, str]]:
    """(document, command line) of every `detr-spec` command in a block of a document."""
    found = []
    for document in DOCUMENTS:
        for block in [part for language in ("sh", "text") for part in blocks(document.read_text("utf-8"), language)]:
            lines = re.findall(r"^(?:\$ )?(detr-spec \S+.*)$", block, re.MULTILINE)
            found += [(document.name, line) for line in lines]
    return found


def test_every_command_has_the_options_that_are_shown() -> None:
    entries: dict[str, EntryPoint] = {each.name: each for each in importlib.metadata.entry_points(group=COMMANDS)}
    assert len(typed()) > 15
    for document, line in typed():
        _, name, *arguments = shlex.split(line, comments=True)
        command = entries[name].load()
        if isinstance(command, click.Group):
            command = command.commands[arguments[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        unknown = [each for each in arguments if each.startswith("-") and each.partition("=")[0] not in known]
        assert unknown == [], f"{document}: {line}"


QUOTED = [
    block
    for path in DOCUMENTS
    for block in blocks(path.read_text(encoding="utf-8"), "python")
    if "/" in block.partition("\n")[0]
]


@pytest.mark.parametrize("block", QUOTED, ids=lambda block: block.splitlines()[1])
def test_what_is_quoted_from_a_file_is_in_it(block: str) -> None:
    path, _, code = block.partition("\n")
    assert code in (ROOT / path.removeprefix("# ")).read_text(encoding="utf-8")
