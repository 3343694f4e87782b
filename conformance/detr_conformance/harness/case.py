"""A case: the tensors of one call, on the CPU and in the claimed dtype, with how they lie in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

TORCH_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
PARAMETER = "parameter:"  # tensors of a case whose name begins so are the module's parameters
LAYOUTS = ("contiguous", "offset", "transposed", "sliced")
DESCRIBED = 1 << 16  # elements of a tensor that is laid out only to say its strides
OF_IMAGES = "channels_last"  # a further layout, of what has four axes; whatever has fewer is contiguous


@dataclass(frozen=True, repr=False)
class Case:
    """One call of an operation.

    Attributes:
        tensors: the arguments by name, and `grad_output` where a backward pass is meant.
        layout: how the floating arguments lie in memory, one of LAYOUTS or OF_IMAGES.
        note: what the case was made to show, in a few words.
        options: further settings of the call, as text (a module's configuration, say).
        shapes: of the floating outputs by name, where the call returns a dict; None where it returns one tensor.
            `grad_output` then holds the gradients of all of them, flattened and joined in this order.
    """

    tensors: dict[str, Tensor]
    layout: str = "contiguous"
    note: str = ""
    options: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.tensors.items())
        return f"Case({self.note!r}, {self.layout}, {shapes})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis would print every tensor

    @property
    def size(self) -> int:
        """Number of elements; the smaller of two failing cases is the better one to show."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def having(self, **changes: Tensor | None) -> Case:
        """The same case with some tensors replaced, or left out where None is given."""
        merged: dict[str, Tensor | None] = {**self.tensors, **changes}
        return replace(self, tensors={name: tensor for name, tensor in merged.items() if tensor is not None})

    def laid_out(self, layout: str) -> Case:
        return replace(self, layout=layout)

    def describe(self) -> str:
        """One line for a report."""
        parts = [self.note] if self.note else []
        if "spatial_shapes" in self.tensors:
            parts.append("levels " + " ".join(f"({h}, {w})" for h, w in self["spatial_shapes"].tolist()))
        shown = [name for name in self.tensors if not name.startswith(PARAMETER)]
        parts += [f"{name} {self._form(name)}" for name in shown if self[name].is_floating_point()]
        if hidden := len(self.tensors) - len(shown):
            parts.append(f"{hidden} parameters")
        parts.append(self.layout)
        return "; ".join(parts)

    def _form(self, name: str) -> str:
        """The shape of a tensor and, where it does not lie in that order without gaps, its strides."""
        shape = f"{tuple(self[name].shape)}"
        laid = lay_out(self[name], self.layout) if self[name].numel() <= DESCRIBED else self[name]
        return shape if laid.is_contiguous() else f"{shape} with strides {laid.stride()}"


@dataclass(frozen=True)
class LazyCases:
    """Cases that are made only when their turn comes; a slice makes none."""

    makers: Sequence[Callable[[], Case]]

    def __len__(self) -> int:
        return len(self.makers)

    def __iter__(self) -> Iterator[Case]:
        return (make() for make in self.makers)

    def __getitem__(self, some: slice) -> LazyCases:
        return LazyCases(self.makers[some])


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """A tensor with the same contents and the memory layout asked for; what lies between is NaN."""
    if layout == OF_IMAGES and tensor.ndim == 4:
        return tensor.clone(memory_format=torch.channels_last)
    if layout in ("contiguous", OF_IMAGES) or tensor.numel() == 0:
        return tensor.clone(memory_format=torch.contiguous_format)
    filler = torch.nan if tensor.is_floating_point() else 0
    if layout == "offset":
        storage = torch.full((tensor.numel() + 3,), filler, dtype=tensor.dtype, device=tensor.device)
        result = storage[3:].view(tensor.shape)
    elif layout == "transposed":
        reverse = tuple(reversed(range(tensor.ndim)))
        result = torch.empty_like(tensor.permute(reverse).contiguous()).permute(reverse)
    elif layout == "sliced":
        wide = torch.full((*tensor.shape, 2), filler, dtype=tensor.dtype, device=tensor.device)
        result = wide[..., 0]
    else:
        raise ValueError(f"unknown layout {layout!r}")
    return result.copy_(tensor)


def mixed_seed(*parts: Any) -> int:
    """A 63-bit seed from anything printable; stable between runs and machines."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def digest_of(case: Case) -> str:
    """The same for cases with the same numbers and settings."""
    digest = hashlib.sha256(repr(sorted(case.options.items())).encode())
    for name, tensor in case.tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
