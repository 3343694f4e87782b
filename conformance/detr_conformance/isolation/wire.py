"""How tensors travel: storages as plain bytes in a safetensors file, the tensors as views of them in JSON."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

Described = dict[str, Any]
LARGEST = 1 << 36  # bytes of one storage
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8"),
    *("uint8", "bool", "complex64", "complex128"),
)


class WireError(Exception):
    """What came over the wire is none of what was agreed on."""


def as_bytes(storage: torch.UntypedStorage) -> Tensor:
    """A view of the whole storage, which no autograd and no version counter hears of."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def plain_bytes(storage: torch.UntypedStorage) -> Tensor:
    """A copy of its bytes on the CPU."""
    return as_bytes(storage).to("cpu", copy=True)


def storage_of(content: Tensor, device: str) -> torch.UntypedStorage:
    """A new storage with these bytes."""
    return content.to(device, copy=True).untyped_storage()


def layout_of(tensor: Tensor, name: str, storage: str) -> Described:
    """What the other side needs to make a view of the storage that is laid out like this tensor."""
    return {
        "id": name,
        "storage": storage,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "stride": list(tensor.stride()),
        "offset": tensor.storage_offset(),
    }


def describe(tensor: Tensor, name: str, storage: str) -> Described:
    """Its layout, where it is, and how autograd knows it."""
    return layout_of(tensor, name, storage) | {
        "device": str(tensor.device),
        "requires_grad": tensor.requires_grad,
        "leaf": tensor.is_leaf,
        "inference": tensor.is_inference(),
    }


def is_plain(tensor: Tensor) -> bool:
    """Whether its numbers are the bytes of a storage."""
    readable = tensor.layout == torch.strided and tensor.device.type != "meta"
    return readable and str(tensor.dtype).removeprefix("torch.") in DTYPES


def view_of(storage: torch.UntypedStorage, described: Described) -> Tensor:
    """The described tensor, on this storage; not a view as autograd knows them.

    Raises:
        WireError: it would reach beyond the storage, or has no known dtype.
    """
    if described["dtype"] not in DTYPES:
        raise WireError(f"unknown dtype {described['dtype']!r}")
    shape, stride, offset = described["shape"], described["stride"], described["offset"]
    if len(shape) != len(stride) or any(number < 0 for number in (*shape, *stride, offset)):
        raise WireError(f"no tensor has shape {shape}, strides {stride} and offset {offset}")
    dtype = getattr(torch, described["dtype"])
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 not in shape and (last + 1) * dtype.itemsize > storage.nbytes():
        raise WireError(f"a tensor of shape {shape} and strides {stride} reaches beyond its {storage.nbytes()} bytes")
    return torch.empty(0, dtype=dtype, device=storage.device).set_(storage, offset, shape, stride)


def write_storages(path: Path, contents: Mapping[str, Tensor]) -> None:
    save_file({name: content for name, content in contents.items() if content.numel()}, path)


def read_storages(path: Path, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The bytes of each storage, as many as were announced.

    Raises:
        WireError: the file is missing, is none, or holds something else.
    """
    if any(size < 0 or size > LARGEST for size in sizes.values()):
        raise WireError(f"storages of {max(sizes.values())} bytes were announced")
    wanted = {name: size for name, size in sizes.items() if size}
    try:
        found = load(_read(path, sum(wanted.values()) + 4096 + 256 * len(wanted))) if wanted else {}
    except (OSError, SafetensorError, ValueError) as error:
        raise WireError(f"the file of tensors cannot be read: {error}") from error
    for name, size in wanted.items():
        if name not in found or found[name].dtype != torch.uint8 or found[name].shape != (size,):
            raise WireError(f"the file of tensors does not hold the {size} bytes of {name}")
    return {name: found[name] if name in found else torch.empty(0, dtype=torch.uint8) for name in sizes}


def _read(path: Path, most: int) -> bytes:
    """The bytes of a file that somebody may still be writing, wherever it points, whatever it is."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise WireError("the file of tensors is no file")
        if about.st_size > most:
            raise WireError("the file of tensors is larger than what was announced")
        return stream.read(most)
