"""Draws the pictures of the spec chapters from the reference itself.

python docs/pictures.py            writes every picture into reference/detr_reference/spec/pictures
python docs/pictures.py DIRECTORY  writes them elsewhere
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from drawings import assignment, blocks, boxes, dino
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

PICTURES = Path(__file__).resolve().parent.parent / "reference" / "detr_reference" / "spec" / "pictures"

DRAWINGS: dict[str, Callable[[], Figure]] = {
    "sampling": blocks.sampling,
    "initial-offsets": blocks.initial_offsets,
    "attention-masks": blocks.attention_masks,
    "layer-orders": blocks.layer_orders,
    "sine-positions": blocks.sine_positions,
    "patches": blocks.patches,
    "padded-references": blocks.padded_references,
    "denoising-mask": blocks.denoising_mask,
    "encoder-proposals": boxes.encoder_proposal_boxes,
    "gradient-band": dino.gradient_band,
    "denoising-noise": boxes.noise_of_denoising,
    "sliding-boxes": boxes.sliding_boxes,
    "matching": assignment.matching,
    "dino-stages": dino.dino_stages,
}


def draw(directory: Path) -> list[Path]:
    """Writes every picture as PNG; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, drawing in DRAWINGS.items():
        figure = drawing()
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=110, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
    return paths


def main() -> None:
    for path in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES):
        print(path)


if __name__ == "__main__":
    main()
