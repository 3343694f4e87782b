"""An extension of griffe, which reads the docstrings: each as `docstring_text` has it, with a link to its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import griffe
from docstring_text import shown
from places import ROOT, place_of


class Docstrings(griffe.Extension):
    """Changes each docstring once all modules are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = f"{_source(obj)}\n\n{shown(obj.docstring.value)}"


def _source(obj: griffe.Object) -> str:
    path = Path(str(obj.filepath)).relative_to(ROOT).as_posix()
    line = "" if obj.is_module else f"#__codelineno-0-{obj.lineno}"
    return f"[source](../{place_of(path)}{line}){{ .source }}"
