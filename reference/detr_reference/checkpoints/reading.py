"""What a file of weights holds, read without running anything that is in it.

A pickle can run any code when it is loaded. `torch.load` with `weights_only` rebuilds tensors and plain containers and
refuses the rest; one class more is let through, the namespace of command line arguments, which runs of Deformable DETR
and DINO saved beside their weights and which holds attributes alone.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detr_reference.checkpoints.errors import CheckpointError

LARGEST_FILE = 8 << 30
HARMLESS = (argparse.Namespace,)


def read_file(path: str | os.PathLike[str]) -> Any:
    """The content of a `.pth` or `.safetensors` file; which of both it is shows in its first bytes.

    Raises:
        CheckpointError: there is no such file, it is empty, too large, cut off, or not a file of weights, or its pickle
            asks for more than tensors and containers; one line that says which.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no file at {path}" if not path.exists() else f"{path} is not a file")
    size = path.stat().st_size
    if not 0 < size <= LARGEST_FILE:
        raise CheckpointError(f"{path} has {size} bytes; a file of weights has at least 1 and at most {LARGEST_FILE}")
    return _read_safetensors(path) if _is_safetensors(path, size) else _read_pickle(path)


def _is_safetensors(path: Path, size: int) -> bool:
    """Such a file begins with the length of a header, 8 bytes, and the header, which begins with a brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < size


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(f"{path} is a safetensors file; reading it needs the package safetensors") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {_first_line(error)}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with _also_allowed(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols of pickles, which end as errors if they matter
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:  # the message of the library is an essay that advises to load everything
            raise CheckpointError(f"{path} is not a file of weights as torch.save writes them") from error
        raise CheckpointError(
            f"{path} is refused: its pickle asks for {refused[1]}, which is no tensor and no container, and could "
            "run code. If you trust where it comes from, load it elsewhere and save its tensors alone"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere in the reader: RuntimeError, EOFError, KeyError, ...
        raise CheckpointError(f"{path} is not a whole file of weights: {_first_line(error)}") from error


@contextmanager
def _also_allowed(classes: tuple[type, ...]) -> Iterator[None]:
    """Let torch's reader rebuild these classes, for as long as the block runs."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([*classes])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
