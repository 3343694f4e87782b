"""Every mutant and twin of the suite. Importing a module of `topics` registers what it holds."""

from __future__ import annotations

import importlib
import pkgutil

from detr_conformance import topics
from detr_conformance.evidence.registry import MUTANTS, TWINS, Mutant, Twin, as_target

for _found in pkgutil.walk_packages(topics.__path__, f"{topics.__name__}."):
    if {"mutants", "twins"} & set(_found.name.split(".")):
        importlib.import_module(_found.name)

__all__ = ["MUTANTS", "TWINS", "Mutant", "Twin", "as_target"]
