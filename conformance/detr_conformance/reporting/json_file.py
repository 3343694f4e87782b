"""JSON on disk, plain or, where the name ends in .gz, compressed: written whole or not at all, read with a limit."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

# A report of everything in transformers has 8 MB. A small damaged or hostile file may unpack to any size.
MAX_BYTES = 64 * 2**20


class FileError(Exception):
    """A file that cannot be read or written, or is not what it should be; the message says which and why."""


def write_json(path: str | Path, document: Any) -> None:
    """Write a document, indented for readers; in a name that ends in .gz, compact and the same bytes every time.

    Raises:
        FileError: the folder is missing or may not be written to.
        ValueError: the document holds NaN or infinity.
    """
    if not _is_compressed(path):
        write_whole(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return
    text = json.dumps(document, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream:
        stream.write(text.encode("utf-8"))
    write_whole(path, packed.getvalue())


def finite_or_none(ratio: float | None) -> float | None:
    """A ratio for the report, which holds no infinity: None where there is none, or where its end is not told."""
    if ratio is None:
        return None
    rounded = float(f"{ratio:.4g}")  # this, too, can reach infinity
    return rounded if math.isfinite(rounded) else None


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Replace a file's content at once: a reader sees the old content or the new, never half of either.

    Raises:
        FileError: the folder is missing or may not be written to.
    """
    path = Path(path).resolve()
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a named pipe
            path.write_bytes(data)
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "wb") as stream:
                stream.write(data)
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp leaves it readable to its owner alone
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error


def read_json(path: str | Path) -> Any:
    """What a file holds.

    Raises:
        FileError: it cannot be read, is damaged, unpacks to more than MAX_BYTES, or is not JSON.
    """
    data = _unpacked(path)
    if len(data) > MAX_BYTES:
        raise FileError(f"{path} holds more than {MAX_BYTES // 2**20} MiB; no report is that large")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON: {error}") from error


def _unpacked(path: str | Path) -> bytes:
    """Its content, up to one byte more than allowed."""
    try:
        with gzip.open(path) if _is_compressed(path) else open(path, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileError(f"{path} is damaged, or not compressed by gzip: {error}") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error


def _is_compressed(path: str | Path) -> bool:
    return Path(path).suffix == ".gz"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
