"""An image and what is annotated on it."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """What every transform takes and returns: boxes always refer to the image as it is now.

    Attributes:
        image: RGB in [0, 1], until it is normalised.
        boxes: (x1, y1, x2, y2) in pixels of the image, within it; (0, 0) is the upper left corner of the image.
        labels: from 0 to K - 1.
        image_id: as in the annotations.
        original_size: (height, width) on disk. Detections are given in these pixels.
    """

    image: Float[Tensor, "3 height width"]
    boxes: Float[Tensor, "box 4"]
    labels: Int[Tensor, " box"]
    image_id: int
    original_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image as it is now."""
        return self.image.shape[-2], self.image.shape[-1]
