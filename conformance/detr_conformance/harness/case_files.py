"""Failing cases on disk: safetensors, named by content, read back with every size checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from detr_conformance.harness.case import LAYOUTS, OF_IMAGES, Case

FORMAT = "detr-spec-case-1"
LARGEST_FILE = 1 << 30


class CaseFileError(Exception):
    """The file is not a case of this suite."""


def write_case(folder: Path, case: Case, *, clause: str, test: str) -> Path:
    """Saves a case as <clause>-<digest>.safetensors; the same case always gets the same name."""
    about = {
        "format": FORMAT,
        "test": test,
        "clause": clause,
        "layout": case.layout,
        "note": case.note,
        "options": json.dumps(case.options, sort_keys=True),
        "order": json.dumps(list(case.tensors)),  # arguments are positional; safetensors sorts by name
    }
    if case.shapes is not None:
        about["shapes"] = json.dumps(case.shapes)
    tensors = {name: case.tensors[name].contiguous().clone() for name in sorted(case.tensors)}
    data = save(tensors, metadata=about)
    digest = hashlib.sha256()
    for key in sorted(about):
        digest.update(f"{key}={about[key]}\n".encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{clause.lower()}-{digest.hexdigest()[:12]}.safetensors"
    path.write_bytes(data)
    return path


def read_case(path: Path) -> tuple[Case, str]:
    """The case in a file, and the name of the test it belongs to.

    Raises:
        CaseFileError: no such file, too large, or not a case file; one line that says which.
    """
    if not path.is_file():
        raise CaseFileError(f"no case file at {path}")
    if path.stat().st_size > LARGEST_FILE:
        raise CaseFileError(f"{path} has {path.stat().st_size} bytes; a case file has at most {LARGEST_FILE}")
    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise CaseFileError(f"{path} is not a case file of this suite (format {about.get('format')!r})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CaseFileError(f"{path} cannot be read as safetensors: {error}") from error
    if about.get("layout") not in (*LAYOUTS, OF_IMAGES):
        raise CaseFileError(f"{path} names the unknown layout {about.get('layout')!r}")
    try:
        test, options, order = about["test"], json.loads(about["options"]), json.loads(about["order"])
        ordered = {name: tensors[name] for name in order}
        shapes = _shapes(json.loads(about["shapes"])) if "shapes" in about else None
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CaseFileError(f"{path} is incomplete: {error!r}") from error
    return Case(ordered, about["layout"], about.get("note", ""), options, shapes), test


def _shapes(read: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in read.items()}
