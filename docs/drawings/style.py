"""Colours of the chapters' pictures, and the map of cells that many of them show."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

mpl.use("agg")

INK, FAINT, ACCENT, WARM, COOL = "#222222", "#bbbbbb", "#c0392b", "#e8a87c", "#7fa8d1"
BLUE, GREY = "#3b78b5", "#888888"  # for lines
CREAM, PADDING = "#f4f1de", "#e6e6e6"


def grid(axes: Axes, height: int, width: int, padded: Tensor | None = None) -> None:
    """Cells of a map as unit squares, the image's upper left corner at (0, 0); padding is grey."""
    for i in range(height):
        for j in range(width):
            grey = padded is not None and bool(padded[i, j])
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=PADDING if grey else "white", edgecolor=FAINT))
            axes.plot(j + 0.5, i + 0.5, ".", color=FAINT, markersize=3)
    axes.set(xlim=(-1.1, width + 0.6), ylim=(height + 0.6, -0.6), aspect="equal")
    axes.axis("off")


def centred(axes: Axes, box: Tensor, **style: object) -> None:
    """A box (x, y, w, h), the centre first."""
    x, y, w, h = box.tolist()
    axes.add_patch(Rectangle((x - w / 2, y - h / 2), w, h, **({"fill": False} | style)))


def cornered(axes: Axes, box: Tensor, **style: object) -> None:
    """A box (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = box.tolist()
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **({"fill": False} | style)))


def image_frame(axes: Axes) -> None:
    """An image of which boxes are shares, wider than high."""
    axes.add_patch(Rectangle((0, 0), 1, 1, facecolor="white", edgecolor=FAINT))
    axes.set(xlim=(-0.02, 1.02), ylim=(1.02, -0.02), aspect=0.75)
    axes.axis("off")
