"""Wrong implementations that the suite must reject, and right ones, written differently, that it must accept."""

import importlib
import pkgutil

from detr_conformance.mutants.registry import MUTANTS, TWINS, Mutant, Twin, as_target, mutant, twin

for _found in pkgutil.iter_modules(__path__):  # importing a module registers what it holds
    if _found.name != "naive":
        importlib.import_module(f"{__name__}.{_found.name}")

__all__ = ["MUTANTS", "TWINS", "Mutant", "Twin", "as_target", "mutant", "twin"]
