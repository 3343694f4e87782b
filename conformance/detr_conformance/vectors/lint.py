"""`detr-spec vectors lint`: what differs between a set of vectors and those derived now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from detr_conformance.vectors.export import Export
from detr_conformance.vectors.reading import Vectors

NEARLY = 1e-9  # of a limit: other machines sum in another order, in float64 too


def findings(vectors: Vectors, derived: Export) -> Iterator[str]:
    """One line for each difference."""
    now, tensors = derived.entries()
    known = {vector["id"]: vector for vector in vectors.manifest["vectors"]}
    for name in sorted(known.keys() - now.keys()):
        yield f"{name}: is not derived any more; an id that was published stays"
    for name in sorted(now.keys() - known.keys()):
        yield f"{name}: is derived and missing here"
    for name in sorted(known.keys() & now.keys()):
        yield from _of_vector(known[name], now[name], vectors.tensors, tensors)
    yield from _of_tests(vectors.manifest["tests"], derived)


def _of_vector(
    known: Mapping[str, Any], now: Mapping[str, Any], mine: Mapping[str, Tensor], new: Mapping[str, Tensor]
) -> Iterator[str]:
    for key in sorted(now.keys() - {"checks"}):
        if known.get(key) != now[key]:
            yield f"{known['id']}: {key} differs from what is derived"
    if len(known["checks"]) != len(now["checks"]):
        yield f"{known['id']}: has {len(known['checks'])} checks, {len(now['checks'])} are derived"
        return
    for one, other in zip(known["checks"], now["checks"], strict=True):
        if (one["of"], one["tests"]) != (other["of"], other["tests"]):
            yield f"{known['id']}: a check of {one['of']} is derived as one of {other['of']}, or for other tests"
            continue
        for what in ("expected", "limit"):
            if "exact" in (one[what], other[what]):
                if one[what] != other[what]:
                    yield f"{known['id']}: {what} of {one['of']} is {one[what]}, derived is {other[what]}"
            elif not _close(mine[one[what]], new[other[what]]):
                yield f"{known['id']}: {what} of {one['of']} is not what is derived"


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(
        one.double(), other.double(), rtol=NEARLY, atol=0, equal_nan=True
    )


def _of_tests(known: Mapping[str, Any], derived: Export) -> Iterator[str]:
    for name, entry in sorted(derived.tests.items()):
        if known.get(name) != vars(entry):
            yield f"{name}: what the manifest says of this test is not what is derived"
    for name in sorted(known.keys() - derived.tests.keys()):
        yield f"{name}: is no test of this selection"
