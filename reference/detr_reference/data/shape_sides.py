"""How large generated images are; apart from what draws them, so that a recipe can be read without Pillow."""

from __future__ import annotations

SIDES = (64, 96, 1)  # pixels, unless others are asked for
LARGEST = 4096


def check_sides(sides: tuple[int, int, int]) -> None:
    """Raise ValueError unless images can have sides from the least to the greatest, this step apart."""
    if len(sides) != 3 or not SIDES[0] <= sides[0] <= sides[1] <= LARGEST or sides[2] < 1:
        raise ValueError(
            f"sides must be the least, the greatest and a step of 1 or more, from {SIDES[0]} to {LARGEST}, "
            f"got {tuple(sides)}"
        )
