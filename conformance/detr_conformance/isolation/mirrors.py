"""The judge's tensors that have a counterpart in the target's process, and what of them has changed since the last run.

Nothing is kept alive here: a counterpart is released when its tensor, and every graph that needs it, is gone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from detr_conformance.isolation.wire import (
    Described,
    WireError,
    as_bytes,
    describe,
    plain_bytes,
    read_storages,
    storage_of,
    view_of,
    write_storages,
)


class Mirror:
    """The counterpart of one tensor. When it is no longer referred to, its name is released."""

    def __init__(self, name: str, storage: str, released: list[tuple[str, str]]) -> None:
        self.name = name
        self.storage = storage
        self.version = 0
        self.requires_grad = False
        self._released = released

    def __del__(self) -> None:
        self._released.append((self.name, self.storage))


class Mirrors:
    def __init__(self) -> None:
        self.of: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.storages: dict[str, StorageWeakRef] = {}
        self.agreed: dict[str, Tensor] = {}
        self.names: dict[int, str] = {}
        self.used: Counter[str] = Counter()  # counterparts on each storage, as many as the other side counts
        self.released: list[tuple[str, str]] = []
        self.numbers = itertools.count(1)
        self.new: list[Described] = []
        self.new_storages: dict[str, Tensor] = {}

    # -- to the target ----------------------------------------------------------------------------------------

    def name_of(self, tensor: Tensor) -> str:
        """The name of its counterpart, which is made with the next message if there is none."""
        found = self.of.get(tensor)
        if found is None:
            found = self._add(tensor)
        return str(found.name)

    def _add(self, tensor: Tensor) -> Mirror:
        storage = tensor.untyped_storage()
        name = self.names.get(storage._cdata)
        if name is None:
            name = f"judge-storage-{next(self.numbers)}"
            self._keep(name, storage, plain_bytes(storage))
            self.new_storages[name] = self.agreed[name]
        mirror = self._mirror(f"judge-{next(self.numbers)}", name)
        self.new.append(describe(tensor, mirror.name, name))
        return self.remember(tensor, mirror)

    def _mirror(self, name: str, storage: str) -> Mirror:
        self.used[storage] += 1
        return Mirror(name, storage, self.released)

    def _keep(self, name: str, storage: torch.UntypedStorage, content: Tensor) -> None:
        self.storages[name], self.agreed[name] = StorageWeakRef(storage), content
        self.names[storage._cdata] = name

    def remember(self, tensor: Tensor, mirror: Mirror) -> Mirror:
        """This is the tensor's counterpart, and knows it as it is now."""
        mirror.version, mirror.requires_grad = version_of(tensor), tensor.requires_grad
        self.of[tensor] = mirror
        return mirror

    def hand_over(self, folder: Path, number: int) -> dict[str, Any]:
        """Writes what is new or changed; the part of a message that says so."""
        contents = self._changed() | self.new_storages
        modified, asking = [], []
        for tensor, mirror in list(self.of.items()):
            if version_of(tensor) != mirror.version:
                modified.append(mirror.name)
            if tensor.requires_grad != mirror.requires_grad:
                asking.append([mirror.name, tensor.requires_grad])
            self.remember(tensor, mirror)
        write_storages(folder / f"{number}.in", contents)
        released, new = self.released[:], self.new
        del self.released[: len(released)]
        self.new, self.new_storages = [], {}
        self.used.subtract(storage for _, storage in released)
        for name in [name for name, count in self.used.items() if not count]:
            self._forget(name)
        return {
            "release": [name for name, _ in released],
            "storages": {name: content.numel() for name, content in contents.items()},
            "tensors": new,
            "modified": modified,
            "requires_grad": asking,
        }

    def _forget(self, name: str) -> None:
        """The other side forgets a storage too when nothing on it has a name."""
        del self.used[name], self.agreed[name]
        del self.names[self.storages.pop(name).cdata]

    def _changed(self) -> dict[str, Tensor]:
        found = {}
        for name, reference in self.storages.items():
            storage = _alive(reference)
            if storage is not None and name not in self.new_storages:
                now = as_bytes(storage)
                if storage.device.type != "cpu" or not torch.equal(now, self.agreed[name]):
                    found[name] = self.agreed[name] = plain_bytes(storage)
        return found

    # -- from the target --------------------------------------------------------------------------------------

    def take_over(self, folder: Path, reply: dict[str, Any]) -> dict[str, tuple[Tensor, Mirror, Described]]:
        """Writes into known storages what the target has changed in them; its new tensors, by name."""
        contents = read_storages(folder / f"{reply['id']}.out", reply["storages"])
        devices = {each["storage"]: each["device"] for each in reply["tensors"]}
        fresh: dict[str, torch.UntypedStorage] = {}
        for name, content in contents.items():
            known = _alive(self.storages[name]) if name in self.storages else None
            if known is not None:
                if known.nbytes() != content.numel():
                    raise WireError(f"the storage {name} has {known.nbytes()} bytes, not {content.numel()}")
                as_bytes(known).copy_(content)
                self.agreed[name] = content
            elif name in devices:
                fresh[name] = storage_of(content, devices[name])
                self._keep(name, fresh[name], content)
        found = {}
        for each in reply["tensors"]:
            storage = fresh.get(each["storage"]) or _alive(self.storages[each["storage"]])
            if storage is None:
                raise WireError(f"{each['id']} lies on {each['storage']}, which is no longer there")
            found[each["id"]] = view_of(storage, each), self._mirror(each["id"], each["storage"]), each
        return found

    def ask_as_there(self, asking: list[list[Any]]) -> None:
        """A call may have frozen a parameter, or set one free."""
        changed = {str(name): bool(asks) for name, asks in asking}
        for tensor, mirror in list(self.of.items()) if changed else []:
            if mirror.name in changed and tensor.is_leaf:
                tensor.requires_grad_(changed[mirror.name])
                self.remember(tensor, mirror)

    def tensor(self, name: str) -> Tensor:
        """The tensor that has this counterpart.

        Raises:
            WireError: there is none.
        """
        for tensor, mirror in self.of.items():
            if mirror.name == name:
                found: Tensor = tensor
                return found
        raise WireError(f"there is no tensor {name!r}")


def version_of(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else int(tensor._version)


def _alive(reference: StorageWeakRef) -> torch.UntypedStorage | None:
    found: torch.UntypedStorage | None = torch.UntypedStorage._new_with_weak_ptr(reference.cdata)
    return found
