"""Judges outputs by vectors, with plain Python and NumPy alone: read_vectors.py VECTORS OUTPUTS"""

import json
import sys
from pathlib import Path

import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "BOOL": "?", "U8": "u1"}


def read(path):
    """A safetensors file: the length of a header, the header in JSON, and the bytes of all tensors."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, about in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = about["data_offsets"]
            array = np.frombuffer(data[start + first : start + last], TYPES[about["dtype"]]).reshape(about["shape"])
            if about["dtype"] == "BF16":  # the upper half of a float32
                array = (array.astype("<u4") << 16).view("<f4")
            tensors[name] = array
    return tensors


def wrong(got, expected, limit):
    """How many elements are beyond their limit; an infinite limit asks nothing."""
    if got is None or got.shape != expected.shape:
        return max(1, expected.size)
    got = got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(got - expected) <= limit
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    return np.count_nonzero(~(near | same | np.isinf(limit)))


def judge(folder, outputs):
    """Yields (vector, result, number of wrong elements, tests that ask for it) for everything that is wrong."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    tensors = {}
    for name in manifest["files"]:
        tensors |= read(folder / name)
    for vector in manifest["vectors"]:
        path = outputs / f"{vector['id']}.safetensors"
        got = read(path) if path.exists() else {}
        for check in vector["checks"]:
            limit = 0.0 if check["limit"] == "exact" else tensors[check["limit"]]
            if count := wrong(got.get(check["of"]), tensors[check["expected"]], limit):
                yield vector["id"], check["of"], count, check["tests"]


if __name__ == "__main__":
    found = list(judge(Path(sys.argv[1]), Path(sys.argv[2])))
    for vector, result, count, tests in found:
        print(f"{vector}: {count} elements of {result} are wrong ({', '.join(tests)})")
    sys.exit(bool(found))
