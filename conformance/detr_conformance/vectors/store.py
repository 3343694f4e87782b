"""Tensors on disk: each distinct one once, in a safetensors or npz file an operation, known by its content."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from detr_conformance.reporting.json_file import write_whole
from detr_conformance.vectors.vector import fingerprint

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "bool", "uint8")
KEY = 24  # hexadecimal digits of a fingerprint
SLACK = 256  # bytes of a header, for each tensor
ANNOUNCED = 190  # in header and manifest


class StoreError(Exception):
    """A file of tensors is missing, damaged or not what the manifest says; the message says which and how."""


def key_of(tensor: Tensor) -> str:
    return fingerprint(tensor)[:KEY]


def rounded_up(limit: Tensor) -> Tensor:
    """In float32, where that holds it, and never smaller."""
    small = limit.float()
    up = torch.nextafter(small, torch.tensor(torch.inf))
    small = torch.where(small.double() < limit, up, small)
    return small if bool((small.isinf() == limit.isinf()).all()) else limit


class Writer:
    """Collects the tensors of the operations; a tensor of two operations is stored with the first."""

    def __init__(self) -> None:
        self._tensors: dict[str, dict[str, Tensor]] = {}
        self._known: set[str] = set()

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {key: tensor for own in self._tensors.values() for key, tensor in own.items()}

    def cost(self, tensors: Iterable[Tensor]) -> int:
        """How many bytes they would add."""
        new = {key_of(tensor): tensor.nbytes + ANNOUNCED for tensor in tensors}
        return sum(size for key, size in new.items() if key not in self._known)

    def add(self, operation: str, tensor: Tensor) -> str:
        key = key_of(tensor)
        if key not in self._known:
            self._known.add(key)
            self._tensors.setdefault(operation, {})[key] = tensor.detach().cpu().contiguous().clone()
        return key

    def write(self, folder: Path, npz: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The files, and the tensors, as the manifest lists them."""
        files, tensors = {}, {}
        for operation, own in sorted(self._tensors.items()):
            name = f"{operation}.{'npz' if npz else 'safetensors'}"
            own = dict(sorted(own.items()))
            content = _npz(own) if npz else save(own)
            write_whole(folder / name, content)
            files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for key, tensor in own.items():
                tensors[key] = {"file": name, "dtype": _name(tensor), "shape": list(tensor.shape)}
        return files, dict(sorted(tensors.items()))


def read_files(folder: Path, files: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of a manifest, by key.

    Raises:
        StoreError: a file or a tensor is not what the manifest says.
    """
    found: dict[str, Tensor] = {}
    for name, about in files.items():
        announced = {key: entry for key, entry in tensors.items() if entry["file"] == name}
        content = _content(folder / name, about["bytes"])
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise StoreError(f"{folder / name} is damaged: its sha256 is not that of the manifest")
        found |= parse(folder / name, content, announced)
    for key, tensor in found.items():
        if key_of(tensor) != key:
            raise StoreError(f"the tensor {key} of {folder} has other content than its name says")
    return found


def read_outputs(path: Path, announced: Mapping[str, Any]) -> dict[str, Tensor]:
    """Those tensors of a file that were announced, each with dtype and shape.

    Raises:
        StoreError: the file is damaged or larger than what was announced, or a tensor is of another form.
    """
    largest = sum(_bytes(entry) for entry in announced.values()) + SLACK * (len(announced) + 64)
    # What else an implementation writes there is its own, within reason.
    return parse(path, _content(path, None, 2 * largest), announced, others=True)


def parse(path: Path, content: bytes, announced: Mapping[str, Any], others: bool = False) -> dict[str, Tensor]:
    read = _parsed_npz if path.suffix == ".npz" else _parsed_safetensors
    return read(path, content, announced, others)


def _content(path: Path, size: int | None, largest: int = 0) -> bytes:
    try:
        if path.is_symlink() or not path.is_file():
            raise StoreError(f"there is no file {path}")
        actual = path.stat().st_size
        if size is not None and actual != size:
            raise StoreError(f"{path} has {actual} bytes; the manifest says {size}")
        if size is None and actual > largest:
            raise StoreError(f"{path} has {actual} bytes; what the manifest asks for takes at most {largest}")
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _parsed_safetensors(path: Path, content: bytes, announced: Mapping[str, Any], others: bool) -> dict[str, Tensor]:
    try:
        found = load(content)  # what it holds is as large as the content, which was measured
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise StoreError(f"{path} cannot be read as safetensors: {error}") from error
    _check_names(path, found, announced, others)
    for name, tensor in found.items():
        if name in announced:
            _check_form(path, name, _name(tensor), list(tensor.shape), announced[name])
    return {name: found[name] for name in announced if name in found}


def _parsed_npz(path: Path, content: bytes, announced: Mapping[str, Any], others: bool) -> dict[str, Tensor]:
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_names(path, (n.removesuffix(".npy") for n in archive.namelist()), announced, others)
            for name, entry in announced.items():
                if f"{name}.npy" in archive.namelist():
                    found[name] = _array(path, archive, name, entry)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
        raise StoreError(f"{path} cannot be read as npz: {error}") from error
    return found


def _array(path: Path, archive: zipfile.ZipFile, name: str, entry: Mapping[str, Any]) -> Tensor:
    """One array; its size is known before it is unpacked."""
    size = _bytes(entry)
    about = archive.getinfo(f"{name}.npy")
    if about.file_size > size + 4096:
        raise StoreError(f"{path}: {name} has {about.file_size} bytes, expected {size}")
    with archive.open(about) as stream:
        array = npy.read_array(io.BytesIO(stream.read(size + 4096)), allow_pickle=False)
    tensor = torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape))
    if entry["dtype"] == "bfloat16" and tensor.dtype == torch.uint16:
        tensor = tensor.view(torch.bfloat16)
    _check_form(path, name, _name(tensor), list(tensor.shape), entry)
    return tensor


def _check_names(path: Path, names: Iterable[str], announced: Mapping[str, Any], others: bool) -> None:
    if not others and set(names) != set(announced):
        raise StoreError(f"{path} holds other tensors than the manifest says")


def _check_form(path: Path, name: str, dtype: str, shape: list[int], entry: Mapping[str, Any]) -> None:
    if (dtype, shape) != (entry["dtype"], list(entry["shape"])):
        raise StoreError(f"{path}: {name} is {dtype} {shape}, expected {entry['dtype']} {list(entry['shape'])}")


def _bytes(entry: Mapping[str, Any]) -> int:
    return math.prod(entry["shape"]) * int(getattr(torch, entry["dtype"]).itemsize)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _npz(tensors: Mapping[str, Tensor]) -> bytes:
    """The same bytes every time; bfloat16, which NumPy has not, as the bits of uint16."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, tensor in tensors.items():
            array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
            written = io.BytesIO()
            npy.write_array(written, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), written.getvalue(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def json_text(document: Mapping[str, Any]) -> str:
    """JSON with a line for each entry of its lists and tables: a manifest can be read, and compared by `diff`."""
    lines = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(f"  {json.dumps(k)}: {_compact(v)}" for k, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        elif isinstance(value, list) and value:
            lines.append(f" {json.dumps(key)}: [\n" + ",\n".join(f"  {_compact(each)}" for each in value) + "\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {_compact(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
