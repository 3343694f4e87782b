"""What an implementation says of itself. Imports nothing heavy: a target file stays cheap to read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detr_conformance.operations import OPERATIONS, VARIANTS
from detr_conformance.stages import STAGE_NAMES

DTYPES = ("float64", "float32", "float16", "bfloat16")
FEATURES = ("backward", "deterministic", "compile", "autocast", "export")
NO_GRADIENT = "no gradient"  # what a report says was got where a target claims backward and has none


class TargetError(Exception):
    """The target cannot be used as it is; the message says what to change."""


@dataclass(frozen=True)
class Target:
    """An implementation under test.

    Args:
        name: how reports call it.
        provides: operation id -> callable with the reference's signature (functions), or
            -> factory `(config, state_dict) -> module` (modules). See `detr-spec spec` for the ids.
        devices: torch device types it runs on, as strings.
        dtypes: names of the dtypes it supports; each one claimed is checked.
        features: any of "backward", "deterministic", "compile", "autocast", "export".
        variants: named alternatives of the spec it implements, such as {"coordinates": "half"}.
        deviations: path of a TOML file with known deviations.
        stages: stage name -> path of the inner module, for whole models; see `detr_conformance.stages`.
        version: the implementation's own version; compared with the ranges in the deviation file.

    Raises:
        TargetError: an unknown operation, dtype, feature or variant, or nothing provided.
    """

    name: str
    provides: Mapping[str, Callable[..., Any]]
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32",)
    features: tuple[str, ...] = ("backward",)
    variants: Mapping[str, str] = field(default_factory=dict)
    deviations: str | Path | None = None
    stages: Mapping[str, str] | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if not self.provides:
            raise TargetError(f"target {self.name!r} provides nothing; `provides` maps an operation id to a callable")
        for argument in ("devices", "dtypes", "features"):
            if isinstance(getattr(self, argument), str):
                raise TargetError(f"target {self.name!r}: {argument} must be a tuple of strings, not one string")
        _known(self.name, "operation", self.provides, OPERATIONS)
        _known(self.name, "dtype", self.dtypes, DTYPES)
        _known(self.name, "feature", self.features, FEATURES)
        _known(self.name, "variant", self.variants, VARIANTS)
        _known(self.name, "stage", self.stages or (), STAGE_NAMES)
        for variant, choice in self.variants.items():
            _known(self.name, f"value of variant {variant!r}", (choice,), VARIANTS[variant])
        for operation, implementation in self.provides.items():
            if not callable(implementation):
                raise TargetError(
                    f"target {self.name!r} provides {operation!r} by a {type(implementation).__name__}, "
                    "which cannot be called"
                )


def _known(target: str, kind: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    for name in given:
        if name in allowed:
            continue
        close = difflib.get_close_matches(str(name), allowed, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(allowed)}"
        raise TargetError(f"target {target!r}: unknown {kind} {name!r}; {hint}")
