"""The modules that make the documentation site; they lie beside it and need no MkDocs, but for its hooks."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from helpers.places import ROOT


def site_module(name: str) -> ModuleType:
    """docs/site/<name>.py"""
    folder = str(ROOT / "docs" / "site")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
