"""Who imports whom in the three packages, read from the sources: also inside functions, and named by strings."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import networkx as nx

from helpers.places import ROOT

PACKAGES = {"detr_reference": "reference", "detr_conformance": "conformance", "detr_bench": "bench"}
NAMED = re.compile(r"(detr_\w+(?:\.\w+)+):\w+")  # "module:attribute"

Graph = Mapping[str, set[str]]


@cache
def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for package, room in PACKAGES.items():
        for file in sorted((ROOT / room / package).rglob("*.py")):
            parts = file.relative_to(ROOT / room).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports() -> dict[str, set[str]]:
    """Module -> the modules of the three packages that it imports."""
    known = set(modules())
    return {name: imported(file.read_text(encoding="utf-8"), known) - {name} for name, file in modules().items()}


def imported(source: str, known: set[str]) -> set[str]:
    """The known modules that a source imports; of a package's attribute, the package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found |= {full if (full := f"{module}.{name.name}") in known else module for name in names}
            case ast.Import(names=names):
                found |= {name.name for name in names}
            case ast.Constant(value=str(text)):
                found |= {match[1] for match in NAMED.finditer(text)}
    return found & known


def outside(source: str) -> set[str]:
    """The top-level packages that a source imports from elsewhere than the three packages."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.partition(".")[0])
            case ast.Import(names=names):
                found |= {name.name.partition(".")[0] for name in names}
    return found - set(PACKAGES)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that import each other, whatever way round."""
    arrows = nx.DiGraph([(one, other) for one, others in graph.items() for other in others])
    return [sorted(group) for group in nx.strongly_connected_components(arrows) if len(group) > 1]
