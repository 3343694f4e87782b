"""Results on the probes, kept between runs in the user's cache folder; they belong to these sources and this torch.

What cannot be read there, or is not of this form, is as if it were not there, and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.subject import Subject
from detr_conformance.likeness.traces import MOST_TENSORS, Trace
from detr_conformance.reporting.json_file import FileError, write_whole

FORMAT = "detr-spec-likeness-1"
LARGEST_FILE = 1 << 28
KEPT = 3  # folders of other sources: two checkouts that are used in turn need not compute everything anew
PARTS = ("expected", "limit", "interval")


@dataclass(frozen=True)
class Store:
    """A folder of one operation, dtype, and set of features and variants: a file for each mutant, and the limits."""

    folder: Path

    @staticmethod
    def of(subject: Subject) -> Store:
        """Where the results are that are comparable with the subject's."""
        about = sorted(subject.features), sorted(subject.variants.items())
        name = f"{subject.operation}-{subject.dtype}-{hashlib.sha256(repr(about).encode()).hexdigest()[:8]}"
        return Store(cache_folder() / digest_of_sources() / name)

    def traces(self, name: str) -> dict[str, Trace | None]:
        """What is kept of a mutant, by the key of the probe; None for a right result."""
        read = _read(self.folder / f"{name}.safetensors")
        if read is None:
            return {}
        about, tensors = read
        try:
            return {probe: _trace(probe, said, tensors) for probe, said in about.items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return {}

    def keep_traces(self, name: str, traces: Mapping[str, Trace | None]) -> None:
        about: dict[str, Any] = {}
        tensors: dict[str, Tensor] = {}
        for probe, trace in sorted(traces.items()):
            about[probe] = trace and {"end": trace.end, "names": [each for each, _ in trace.results]}
            for number, (_, tensor) in enumerate(trace.results if trace else ()):
                tensors[f"{probe}/{number}"] = tensor
        _write(self.folder / f"{name}.safetensors", about, tensors)

    def limits(self) -> dict[str, dict[str, Expectation]]:
        """The right results and their limits, by the key of the probe."""
        read = _read(self.folder / "limits.safetensors")
        if read is None:
            return {}
        about, tensors = read
        try:
            return {
                probe: {str(name): _expectation(f"{probe}/{number}", tensors) for number, name in enumerate(names)}
                for probe, names in about.items()
            }
        except (KeyError, TypeError, ValueError):
            return {}

    def keep_limits(self, limits: Mapping[str, Mapping[str, Expectation]]) -> None:
        about = {probe: list(found) for probe, found in limits.items()}
        tensors = {
            f"{probe}/{number}/{part}": getattr(right, part)
            for probe, found in limits.items()
            for number, right in enumerate(found.values())
            for part in PARTS
            if getattr(right, part) is not None
        }
        _write(self.folder / "limits.safetensors", about, tensors)


def cache_folder() -> Path:
    """As the XDG convention has it."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / ".cache") / "detr-spec" / "likeness"


@cache
def digest_of_sources() -> str:
    """Changes with every change of the code, committed or not, and with torch."""
    digest = hashlib.sha256(torch.__version__.encode())
    for package in ("detr_reference", "detr_conformance"):
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def forget_old() -> None:
    """Removes the results of sources that were not used lately."""
    with suppress(OSError):
        folders = [each for each in cache_folder().iterdir() if re.fullmatch(r"[0-9a-f]{16}", each.name)]
        others = [each for each in folders if each.name != digest_of_sources() and not each.is_symlink()]
        for old in sorted(others, key=lambda each: each.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_FILE:
            return None
        with safe_open(str(path), framework="pt") as file:
            said = file.metadata() or {}
            if said.get("format") != FORMAT:
                return None
            about = json.loads(said["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError):
        return None
    return (about, tensors) if isinstance(about, dict) else None


def _write(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Where it cannot be written, the next run computes it again."""
    plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with suppress(OSError, FileError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(plain, metadata={"format": FORMAT, "about": json.dumps(about)}))


def _trace(probe: str, said: dict[str, Any] | None, tensors: Mapping[str, Tensor]) -> Trace | None:
    if said is None:
        return None
    names = [str(name) for name in said["names"][:MOST_TENSORS]]
    return Trace([(name, tensors[f"{probe}/{number}"]) for number, name in enumerate(names)], str(said["end"]))


def _expectation(key: str, tensors: Mapping[str, Tensor]) -> Expectation:
    found = Expectation(*(tensors.get(f"{key}/{part}") for part in PARTS))  # type: ignore[arg-type]
    if found.expected is None or found.limit is None or found.limit.shape != found.expected.shape:
        raise ValueError("no limit")
    return found
