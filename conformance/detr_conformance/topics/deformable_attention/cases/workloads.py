"""The calls that published detectors make: what the suite judges at full size and the bench measures. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """Sizes of one call that reads feature maps.

    Attributes:
        levels: (H, W) of each feature map.
        queries: Q; an encoder has one query a cell.
        batch: images (for BEVFormer, cameras).
    """

    levels: tuple[tuple[int, int], ...]
    queries: int
    batch: int = 1
    heads: int = 8
    channels: int = 32
    points: int = 4

    @property
    def cells(self) -> int:
        """S = sum of H * W."""
        return sum(height * width for height, width in self.levels)


def _encoder(*levels: tuple[int, int]) -> Workload:
    return Workload(levels, queries=sum(height * width for height, width in levels))


FOUR_SCALES = ((100, 167), (50, 84), (25, 42), (13, 21))

# Sources: the models' papers and configurations at the image sizes named.
WORKLOADS = {
    "dino-encoder": _encoder(*FOUR_SCALES),  # R50, 800 x 1333
    "dino-decoder": Workload(FOUR_SCALES, queries=900),
    "dino-decoder-denoising": Workload(FOUR_SCALES, queries=900 + 200),  # in training: 100 pairs in front
    "deformable-decoder": Workload(FOUR_SCALES, queries=300),
    "dino-encoder-1066": _encoder((100, 134), (50, 67), (25, 34), (13, 17)),  # 800 x 1066
    "dino-encoder-5-scale": _encoder((200, 334), *FOUR_SCALES),
    "mask2former-encoder-1024": _encoder((128, 128), (64, 64), (32, 32)),
    "rt-detr-decoder-640": Workload(((80, 80), (40, 40), (20, 20)), queries=300),
    "bevformer-base": Workload(((116, 200), (58, 100), (29, 50), (15, 25)), queries=40_000, batch=6, points=8),
    "video-decoder-13-frames": Workload(((25, 42),) * 13, queries=300),  # a level a frame
    "row-encoder-4096": _encoder((1, 4096), (1, 2048), (1, 1024), (1, 512)),  # time in place of space
}
