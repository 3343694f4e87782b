"""The tensors that a runner holds for the judge, by name, and what of them has changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_conformance.isolation.wire import (
    Described,
    as_bytes,
    describe,
    is_plain,
    plain_bytes,
    read_storages,
    storage_of,
    view_of,
    write_storages,
)


class Computed(torch.autograd.Function):
    """Makes of a tensor one that autograd takes for computed, as nearly all arguments in a network are."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, content: list[Tensor]) -> Tensor:
        return content[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:
        return None, None


class Held:
    """Storages and tensors that both processes know, the first with the bytes that both last agreed on."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.storages: dict[str, torch.UntypedStorage] = {}
        self.agreed: dict[str, Tensor] = {}
        self.names: dict[int, str] = {}  # of tensors, by their identity
        self.storage_names: dict[int, str] = {}  # by address of the storage object
        self.on: dict[str, str] = {}  # the storage that a tensor lay on when it was named
        self.asks: dict[str, bool] = {}  # whether it asked for a gradient when both last agreed on it
        self.used: dict[str, int] = {}  # how many tensors lie on a storage
        self.news: list[Described] = []
        self.unseen: set[str] = set()  # storages that the judge does not know yet
        self.count = 0

    # -- from the judge ---------------------------------------------------------------------------------------

    def take_over(self, folder: Path, message: Mapping[str, Any]) -> None:
        """Forgets what was released, writes what was changed, and makes what is new."""
        for name in message["release"]:
            self._release(name)
        contents = read_storages(folder / f"{message['id']}.in", message["storages"])
        for name, content in contents.items():
            if name in self.storages:
                as_bytes(self.storages[name]).copy_(content)
                self.agreed[name] = content
        for name in message["modified"]:
            modify(self.tensors[name])
        devices = {each["storage"]: each["device"] for each in message["tensors"]}
        for name, content in contents.items():
            if name not in self.storages:
                self._keep(name, storage_of(content, devices[name]), content)
        for each in message["tensors"]:
            self._add(each["id"], made_as(self.storages[each["storage"]], each), each["storage"])
        for name, asks in message["requires_grad"]:
            if self.tensors[name].is_leaf:
                self.tensors[name].requires_grad_(asks)
            self.asks[name] = asks
        self._forget_unused()

    def _keep(self, name: str, storage: torch.UntypedStorage, content: Tensor) -> None:
        self.storages[name], self.agreed[name], self.used[name] = storage, content, 0
        self.storage_names[storage._cdata] = name

    def _add(self, name: str, tensor: Tensor, storage: str) -> None:
        self.tensors[name], self.names[id(tensor)], self.on[name] = tensor, name, storage
        self.asks[name] = tensor.requires_grad
        self.used[storage] += 1

    def _release(self, name: str) -> None:
        tensor, storage = self.tensors.pop(name), self.on.pop(name)
        del self.asks[name]
        if self.names.get(id(tensor)) == name:
            del self.names[id(tensor)]
        self.used[storage] -= 1

    def _forget_unused(self) -> None:
        for name in [name for name, count in self.used.items() if not count]:
            del self.storage_names[self.storages.pop(name)._cdata], self.agreed[name], self.used[name]

    # -- to the judge -----------------------------------------------------------------------------------------

    def name_of(self, tensor: Tensor) -> Any:
        """The name of a tensor, a new one if it is new; or why there is nothing to name."""
        if not is_plain(tensor):
            return {"unreadable": str(tensor.layout), "dtype": str(tensor.dtype), "shape": list(tensor.shape)}
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        storage, known = tensor.untyped_storage(), self.names.get(id(tensor))
        if known is not None and self.storages[self.on[known]]._cdata == storage._cdata:
            return known  # otherwise it was moved, as `module.to` does with parameters
        if storage._cdata not in self.storage_names:
            self._keep(self._next("storage"), storage, torch.empty(0))
            self.unseen.add(self.storage_names[storage._cdata])
        name, on = self._next("tensor"), self.storage_names[storage._cdata]
        self._add(name, tensor, on)
        self.news.append(describe(tensor, name, on))
        return name

    def _next(self, kind: str) -> str:
        self.count += 1
        return f"{kind}-{self.count}"

    def hand_over(self, folder: Path, number: int) -> dict[str, Any]:
        """Writes the storages whose bytes are not those that were agreed on; what is new, and what those are."""
        contents = {}
        for name, storage in self.storages.items():
            now = as_bytes(storage)
            if name in self.unseen or storage.device.type != "cpu" or not torch.equal(now, self.agreed[name]):
                contents[name] = self.agreed[name] = plain_bytes(storage)
        self.unseen.clear()
        write_storages(folder / f"{number}.out", contents)
        news, self.news = self.news, []
        asking = {name: t.requires_grad for name, t in self.tensors.items() if t.requires_grad != self.asks[name]}
        self.asks |= asking
        storages = {name: content.numel() for name, content in contents.items()}
        return {"tensors": news, "storages": storages, "asking": list(asking.items())}


def made_as(storage: torch.UntypedStorage, described: Described) -> Tensor:
    """A tensor as the judge's: a leaf or computed, one of inference mode or not."""
    with torch.inference_mode(described["inference"]):
        tensor = view_of(storage, described)
    if not described["requires_grad"]:
        return tensor
    if described["leaf"]:
        return tensor.requires_grad_()
    with torch.enable_grad():
        computed: Tensor = Computed.apply(torch.zeros((), requires_grad=True), [tensor])
    return computed


def modify(tensor: Tensor) -> None:
    """Lets autograd know of a change in place, as it would know had the change been made here."""
    if tensor.is_inference():
        return
    if tensor.grad_fn is None or getattr(tensor.grad_fn, "_forward_cls", None) is Computed:
        torch.autograd.graph.increment_version(tensor)
    else:  # an output of the target's, which not every way of making one allows to modify
        with torch.enable_grad():
            tensor.mul_(1)
