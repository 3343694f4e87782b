"""Where each file of the repository stands on the site.

A place is a source as MkDocs names it: `spec/03-every-block.md` becomes `spec/03-every-block.html`.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = "reference/detr_reference/spec"
REFERENCE = "reference/detr_reference"
# What the first page of the site stands for: links to these lead there.
FRONT = ("README.md", ".", "docs", "docs/guides")
# Shown by a browser as they are; every other file is shown as a page of text.
RAW = (".json", ".png", ".svg", ".gz")


def place_of(path: str, root: Path = ROOT) -> str | None:
    """The place of a file or folder, named from the root of the repository; None if there is no such file."""
    path = posixpath.normpath(path)
    if path.startswith("../") or not (root / path).exists():
        return None
    if path in FRONT:
        return "index.md"
    if path == "docs/index.md" or path.startswith("docs/guides/"):
        return path.removeprefix("docs/")
    if path == SPEC or path.startswith(f"{SPEC}/"):
        return f"spec{path.removeprefix(SPEC)}" if path != SPEC else "spec/index.md"
    if path in ("reference", REFERENCE):
        return "api/index.md"
    if posixpath.dirname(path) == REFERENCE and (root / path / "__init__.py").is_file():
        return f"api/{posixpath.basename(path)}.md"
    if (root / path).is_dir():
        return f"source/{path}/index.md"
    return f"source/{path}" if path.endswith((".md", *RAW)) else f"source/{path}.md"
