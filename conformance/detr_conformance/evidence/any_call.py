"""What any call is held to, whatever it is made for."""

from __future__ import annotations

# The kind of mistake -> the clause that says so: of the core, of every other block.
COMMON = {
    "form": ("MSDA-1", "BLK-1"),
    "graph": ("MSDA-68", "BLK-34"),
    "gradient": ("MSDA-36", "BLK-9"),
    "parameters": ("", "BLK-35"),
    "arguments": ("MSDA-45", "BLK-2"),
    "earlier results": ("MSDA-46", "BLK-5"),
    "modes": ("MSDA-49", "BLK-8"),
}


def clause_of(kind: str | None, operation: str) -> str | None:
    """The clause that says what a call of this operation is held to in any case."""
    return COMMON[kind][operation != "ms_deform_attn"] if kind in COMMON else None
