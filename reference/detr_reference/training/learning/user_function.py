"""A function of the user's, by name."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def function_named(name: str) -> Callable[..., Any]:
    """`package.module:function`, or `path/to/file.py:function`; of the current folder too.

    Raises:
        ValueError: it is written in another way, cannot be imported, or is not callable.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise ValueError(f"{name!r} names no function; write package.module:function or path/to/file.py:function")
    try:
        found = _from_file(Path(place), attribute) if place.endswith(".py") else _from_module(name)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{name!r} cannot be imported: {type(error).__name__}: {reason}") from error
    if not callable(found):
        raise ValueError(f"{name!r} is a {type(found).__name__}, not a function")
    return found


def _from_module(name: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return pkgutil.resolve_name(name)


def _from_file(path: Path, attribute: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"_detr_function_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and torch.compile look their module up there
    spec.loader.exec_module(module)
    return getattr(module, attribute)
