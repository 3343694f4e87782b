"""A folder of vectors, read with distrust: schema, names, sizes, sums."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_conformance.operations import OPERATIONS
from detr_conformance.vectors.export import MANIFEST
from detr_conformance.vectors.store import StoreError, read_files

LARGEST_MANIFEST = 256 * 2**20
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")


class VectorsError(Exception):
    """A folder is no set of vectors; the message says where it is not."""


@dataclass(frozen=True)
class Vectors:
    """A manifest and its tensors."""

    manifest: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def limit(self, check: Mapping[str, Any]) -> Tensor | None:
        """None where the result must be exact."""
        return None if check["limit"] == "exact" else self.tensors[check["limit"]].double()


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest."""
    text = files("detr_conformance.vectors").joinpath("schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def read_vectors(folder: Path) -> Vectors:
    """A set of vectors.

    Raises:
        VectorsError: something is missing, damaged, or not what the schema says.
    """
    manifest = read_manifest(folder)
    try:
        return Vectors(manifest, read_files(folder, manifest["files"], manifest["tensors"]))
    except StoreError as error:
        raise VectorsError(str(error)) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest alone.

    Raises:
        VectorsError: it is missing or not what the schema says.
    """
    path = folder / MANIFEST
    try:
        if not path.is_file():
            raise VectorsError(f"there is no {path}; `detr-spec vectors export {folder}` writes one")
        if path.stat().st_size > LARGEST_MANIFEST:
            raise VectorsError(f"{path} has {path.stat().st_size} bytes; a manifest has at most {LARGEST_MANIFEST}")
        manifest = json.loads(path.read_bytes(), parse_constant=_refuse)
    except OSError as error:
        raise VectorsError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise VectorsError(f"{path} is not JSON: {error}") from error
    if problem := against_schema(manifest) or _contradiction(manifest):
        raise VectorsError(f"{path}: {problem}")
    found: dict[str, Any] = manifest
    return found


def against_schema(manifest: Any) -> str | None:
    """The first thing that the schema does not allow."""
    from jsonschema import Draft202012Validator

    error = next(iter(Draft202012Validator(schema()).iter_errors(manifest)), None)
    if error is None:
        return None
    where = "/".join(map(str, error.absolute_path)) or "the manifest"
    return f"{where}: {error.message[:200]}"


def _contradiction(manifest: Mapping[str, Any]) -> str | None:
    """What no schema can say: names that lead nowhere, ids that come twice, shapes that differ."""
    ids = [vector["id"] for vector in manifest["vectors"]]
    if len(set(ids)) < len(ids):
        return f"the id {next(each for each in ids if ids.count(each) > 1)} comes twice"
    for key, tensor in manifest["tensors"].items():
        if tensor["file"] not in manifest["files"]:
            return f"tensors/{key}: there is no file {tensor['file']!r}"
    return next(filter(None, (_astray(manifest, vector) for vector in manifest["vectors"])), None)


def _astray(manifest: Mapping[str, Any], vector: Mapping[str, Any]) -> str | None:
    where, tensors = f"the vector {vector['id']}", manifest["tensors"]
    if vector["operation"] not in OPERATIONS:
        return f"{where} is of the unknown operation {vector['operation']!r}"
    used = [vector["parameters"], *({name: each["tensor"]} for name, each in vector["inputs"].items())]
    used += [{name: each["tensor"]} for name, each in vector["incoming"].items()]
    used += [{"expected": check["expected"]} for check in vector["checks"]]
    used += [{"limit": check["limit"]} for check in vector["checks"] if check["limit"] != "exact"]
    for name, key in (pair for each in used for pair in each.items()):
        if key not in tensors:
            return f"{where}: {name} is the tensor {key!r}, which is not listed"
    for check in vector["checks"]:
        result = vector["results"].get(check["of"])
        if result is None:
            return f"{where} judges {check['of']!r}, which is none of its results"
        keys = [check["expected"], *([] if check["limit"] == "exact" else [check["limit"]])]
        if any(tensors[key]["shape"] != result["shape"] for key in keys):
            return f"{where}: what is expected of {check['of']} has another shape than the result"
        if unknown := [test for test in check["tests"] if test not in manifest["tests"]]:
            return f"{where} names the test {unknown[0]!r}, which is not listed"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def dtype_of(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found
