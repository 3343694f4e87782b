"""`detr-spec vectors verify`: somebody's outputs, judged by a manifest alone; the events are those of `check`."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.mismatch import Mismatch, check_form, compare, compare_exactly
from detr_conformance.reporting.events import Event
from detr_conformance.reporting.json_file import finite_or_none
from detr_conformance.vectors.reading import Vectors, VectorsError
from detr_conformance.vectors.store import StoreError, read_outputs
from detr_conformance.vectors.vector import GRADIENT, STAGE

REFUSED = "refused.json"
SUFFIXES = (".safetensors", ".npz")
Entry = Mapping[str, Any]


@dataclass
class Verdict:
    """What was found of one test in one operation and dtype."""

    ratio: float | None = None
    exact: int = 0
    judged: set[str] = field(default_factory=set)
    failed: dict[str, Mismatch] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def add(self, vector: str, found: float | Mismatch | None) -> None:
        self.judged.add(vector)
        if isinstance(found, Mismatch):
            self.failed.setdefault(vector, found)
            found = found.ratio
        elif found is None:
            self.exact += 1
        if found is not None:
            self.ratio = max(found, self.ratio or 0.0)


@dataclass
class Outputs:
    """A folder with a file for each vector, and what was said about those that are not there."""

    folder: Path
    files: dict[str, Path]
    refused: dict[str, str]

    @staticmethod
    def of(folder: Path, vectors: Vectors) -> Outputs:
        """
        Raises:
            VectorsError: there is no such folder, or nothing in it is named as a vector.
        """
        if not folder.is_dir():
            raise VectorsError(f"there is no folder {folder}")
        known = [vector["id"] for vector in vectors.manifest["vectors"]]
        there = [(name, folder / f"{name}{suffix}") for suffix in reversed(SUFFIXES) for name in known]
        files = {name: path for name, path in there if path.is_file()}
        refused = _refused(folder / REFUSED, set(known))
        if not files:
            raise VectorsError(f"{folder} holds no outputs: no file is named after a vector, as {known[0]}.safetensors")
        return Outputs(folder, files, refused)


def _refused(path: Path, known: set[str]) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VectorsError(f"{path} is not JSON: {error}") from error
    if not isinstance(said, dict) or not all(isinstance(reason, str) for reason in said.values()):
        raise VectorsError(f"{path} must be an object of vector ids and reasons")
    if unknown := sorted(set(said) - known):
        raise VectorsError(f"{path} names {unknown[0]!r}, which is no vector of this set")
    return said


def judge(check: Entry, vectors: Vectors, outputs: Mapping[str, Tensor]) -> float | Mismatch | None:
    """The largest error over its limit; None where it is exactly right; what is wrong."""
    name = check["of"]
    if name not in outputs:
        return Mismatch(f"there is no {name}", where=name, expected="a tensor", got="nothing")
    expected, limit = vectors.tensors[check["expected"]], vectors.limit(check)
    try:
        if limit is None:
            compare_exactly(name, outputs[name], expected)
            return None
        check_form(name, outputs[name], expected)
        unasked = limit.isinf()  # there the expected number is zero, which every dtype has
        got = torch.where(unasked, expected.to(outputs[name].dtype), outputs[name])
        return compare(name, got, expected, torch.where(unasked, 1.0, limit))
    except Mismatch as mismatch:
        return mismatch


def events(vectors: Vectors, outputs: Outputs, name: str) -> Iterator[Event]:
    """What the suite would tell of a target with these outputs."""
    manifest = vectors.manifest
    provided = {_place(v) for v in manifest["vectors"] if v["id"] in outputs.files or v["id"] in outputs.refused}
    backward, verdicts = _verdicts(vectors, outputs, provided)
    yield {
        "event": "start",
        "target": {"name": name, "version": None},
        "environment": {
            "detr_spec": importlib.metadata.version("detr-spec"),
            "vectors_of": manifest["detr_spec"],
            "profile": manifest["profile"],
            "seed": manifest["seed"],
        },
        "target_info": {
            "provides": sorted({operation for operation, _ in provided}),
            "dtypes": sorted({dtype for _, dtype in provided}),
            "devices": ["-"],
            "features": ["backward"] if backward else [],
            "variants": {},
        },
    }
    yield {"event": "collected", "tests": len(verdicts)}
    for (test, operation, dtype), verdict in sorted(verdicts.items()):
        claimed = (operation, dtype) in provided
        yield _result(manifest["tests"][test], test, operation, dtype, verdict, claimed)
    yield from _unjudged(manifest, verdicts, {operation for operation, _ in provided})
    yield {"event": "finish", "exit": 0, "seconds": 0.0}


def _verdicts(
    vectors: Vectors, outputs: Outputs, provided: set[tuple[str, str]]
) -> tuple[set[str], dict[tuple[str, str, str], Verdict]]:
    """Operations with some gradient, and what was found by test, operation and dtype."""
    read = {v["id"]: _read(outputs, v) for v in vectors.manifest["vectors"] if _place(v) in provided}
    backward = {
        v["operation"]
        for v in vectors.manifest["vectors"]
        if any(name.startswith(GRADIENT) for name in read.get(v["id"], ({}, None))[0])
    }
    verdicts: dict[tuple[str, str, str], Verdict] = {}
    for vector in vectors.manifest["vectors"]:
        for check in vector["checks"]:
            found = [verdicts.setdefault((test, *_place(vector)), Verdict()) for test in check["tests"]]
            if _place(vector) not in provided:
                continue
            if vector["operation"] not in backward:
                if check["of"].startswith(GRADIENT):
                    continue
                asked = [test for test in check["tests"] if vectors.manifest["tests"][test]["feature"] != "backward"]
                found = [verdicts[(test, *_place(vector))] for test in asked]
            results, problem = read[vector["id"]]
            if check["of"].startswith(STAGE) and check["of"] not in results and problem is None:
                continue  # a model need not have every stage
            if vector["id"] in outputs.refused and vector["id"] not in outputs.files:
                for verdict in found:
                    verdict.refused[vector["id"]] = outputs.refused[vector["id"]]
                continue
            outcome = problem or judge(check, vectors, results)
            for verdict in found:
                verdict.add(vector["id"], outcome)
    return backward, verdicts


def _read(outputs: Outputs, vector: Entry) -> tuple[dict[str, Tensor], Mismatch | None]:
    path = outputs.files.get(vector["id"])
    if path is None:
        return {}, Mismatch("there is no file with its outputs", expected="a file", got="nothing")
    try:
        return read_outputs(path, vector["results"]), None
    except StoreError as error:
        return {}, Mismatch(str(error), where=path.name)


def _place(vector: Entry) -> tuple[str, str]:
    return vector["operation"], vector["dtype"]


def _result(about: Entry, test: str, operation: str, dtype: str, verdict: Verdict, claimed: bool) -> Event:
    event: Event = {
        "event": "result",
        "test": f"{test}[{operation}-{dtype}]",
        "clauses": list(about["clauses"]),
        "operation": operation,
        "device": "-",
        "dtype": dtype,
        "feature": about["feature"],
        "outcome": "pass",
        "worst_error_ratio": finite_or_none(verdict.ratio),
        "mismatches": 0 if verdict.exact else None,
        "cases": len(verdict.judged),
        "message": f"judged in part: {about['words'][0]}" if about["words"] else None,
        "failure": None,
        "case_file": None,
    }
    if not claimed:
        return event | {"outcome": "not-provided", "message": f"there are no outputs of {operation} in {dtype}"}
    if not verdict.judged:
        if verdict.refused:
            return event | {"outcome": "not-exercised", "message": f"refused: {next(iter(verdict.refused.values()))}"}
        return event | {"outcome": "not-provided", "message": f"there are no gradients or stages of {operation}"}
    if not verdict.failed:
        return event
    first, mismatch = next(iter(verdict.failed.items()))
    others = ", ".join(list(verdict.failed)[1:6]) + (" and more" if len(verdict.failed) > 6 else "")
    return event | {
        "outcome": "fail",
        "message": f"{first}: {mismatch.message}",
        "failure": mismatch.told(f"vector {first}" + (f"; also {others}" if others else "")),
    }


def _unjudged(manifest: Entry, verdicts: Mapping[tuple[str, str, str], Verdict], provided: set[str]) -> Iterator[Event]:
    """Tests of which there is no vector at all: they are told of, so that nobody takes their clauses for judged."""
    for test, about in manifest["tests"].items():
        for operation in sorted(provided & set(about["operations"])):
            if not any((test, operation) == place[:2] for place in verdicts):
                said = about["words"][0] if about["words"] else "left out for its size"
                empty = _result(about, test, operation, "-", Verdict(judged={"-"}), True)
                yield empty | {"outcome": "not-exercised", "cases": 0, "message": f"no vector says this: {said}"}
