"""Pages that show a file or a folder of the repository."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from pathlib import Path

from places import ROOT, place_of

LANGUAGES = {".py": "python", ".pyi": "python", ".toml": "toml", ".sh": "bash", ".md": "markdown", ".yml": "yaml"}
_HIDDEN = ("__pycache__",)


def source_page(path: str, root: Path = ROOT) -> str:
    """The text of a file, its lines numbered; not in the search, which finds what is said of it elsewhere."""
    text = (root / path).read_text(encoding="utf-8").rstrip("\n")
    language = "makefile" if posixpath.basename(path) == "Makefile" else LANGUAGES.get(Path(path).suffix, "text")
    fence = "`" * 3
    while fence in text:
        fence += "`"
    return f'{_head(path)}{fence} {{ .{language} linenums="1" }}\n{text}\n{fence}\n'


def folder_page(path: str, shown: Collection[str], root: Path = ROOT) -> str:
    """What is in a folder; names of what the site shows are links to it."""
    lines = []
    for entry in sorted((root / path).iterdir(), key=lambda entry: (entry.is_file(), entry.name)):
        if entry.name.startswith(".") or entry.name in _HIDDEN:
            continue
        place = place_of(f"{path}/{entry.name}", root)
        name = f"`{entry.name}{'/' if entry.is_dir() else ''}`"
        link = place and posixpath.relpath(place, f"source/{path}")
        lines.append(f"- [{name}]({link})" if place in shown else f"- {name}")
    return _head(path) + "\n".join(lines) + "\n"


def _head(path: str) -> str:
    return f"---\ntitle: {posixpath.basename(path)}\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n\n# `{path}`\n\n"
