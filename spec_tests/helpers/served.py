"""Mutants and twins by name, as targets that a process of their own can load: `served.py:mutant-of-that-name`."""

from __future__ import annotations

from detr_conformance.running.mutants import MUTANTS, TWINS, as_target
from detr_conformance.target import Target


def __getattr__(name: str) -> Target:
    if name in MUTANTS or name in TWINS:
        return as_target(MUTANTS[name] if name in MUTANTS else TWINS[name])
    raise AttributeError(name)
