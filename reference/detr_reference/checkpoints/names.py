"""Tables of names: each row holds a name, or a pattern of names, of somebody's file and the reference's name.

In a pattern {i}, {n} and {s} are numbers, {p} is weight or bias, {b} is one of the four tensors of a batch norm, and
[x|y] is x or y, either of which may be empty. What a brace stands for is the same on both sides of its row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Row = tuple[str, str]

_NUMBER, _NORM = r"\d+", "weight|bias|running_mean|running_var"
_PLACEHOLDERS = {"i": _NUMBER, "n": _NUMBER, "s": _NUMBER, "p": "weight|bias", "b": _NORM}
_TOKEN = re.compile(r"\{(\w+)\}|\[([^\]]*)\]")


class NameTable:
    """Which name of the reference each name of a file stands for.

    Args:
        rows: (their pattern, our pattern). A name may match one row only, so that rows have no order.
        unused: patterns of names that a file may hold and that no model reads.
    """

    def __init__(self, rows: Iterable[Row], unused: Sequence[str] = ()) -> None:
        self.rows = [(_pattern(theirs), _template(ours)) for theirs, ours in rows]
        self.unused = [re.compile(pattern) for pattern in unused]

    def is_unused(self, name: str) -> bool:
        """Whether the name is known and means nothing to a model."""
        return any(pattern.fullmatch(name) for pattern in self.unused)

    def ours(self, name: str) -> str | None:
        """The reference's name, or None if the table does not know this one.

        Raises:
            LookupError: two rows claim it, which is a fault of the table.
        """
        found = [match.expand(ours) for theirs, ours in self.rows if (match := theirs.fullmatch(name))]
        if len(found) > 1:
            raise LookupError(f"{name!r} is in {len(found)} rows of the table: {', '.join(found)}")
        return found[0] if found else None


def _pattern(theirs: str) -> re.Pattern[str]:
    out, end = "", 0
    for token in _TOKEN.finditer(theirs):
        out += re.escape(theirs[end : token.start()])
        placeholder, choices = token.groups()
        if placeholder:
            out += f"(?P<{placeholder}>{_PLACEHOLDERS[placeholder]})"
        else:
            out += f"(?:{'|'.join(map(re.escape, choices.split('|')))})"
        end = token.end()
    return re.compile(out + re.escape(theirs[end:]))


def _template(ours: str) -> str:
    return re.sub(r"\{(\w+)\}", r"\\g<\1>", ours)
