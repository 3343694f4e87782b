"""What is measured: the calls that published detectors make, and whole layers and models. Plain data, no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

DIRECTIONS = ("forward", "backward", "both")


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


@dataclass(frozen=True)
class Tokens:
    """Sizes of one call of attention among tokens, or of a layer around it."""

    queries: int
    keys: int
    batch: int = 1
    heads: int = 8
    channels: int = 32


@dataclass(frozen=True)
class Images:
    """Images for a whole model of its published size, with ResNet-50."""

    height: int
    width: int
    batch: int = 1


@dataclass(frozen=True)
class Inside:
    """A sampling core inside the reference's own layer or model: what a faster core is worth there."""

    host: str
    sizes: Workload | Images


Sizes = Workload | Tokens | Images | Inside


def _encoder(*levels: tuple[int, int]) -> Workload:
    return Workload(levels, queries=sum(height * width for height, width in levels))


FOUR_SCALES = ((100, 167), (50, 84), (25, 42), (13, 21))

# Sources: the models' papers and configurations at the image sizes named.
WORKLOADS = {
    "dino-encoder": _encoder(*FOUR_SCALES),  # R50, 800 x 1333
    "dino-decoder": Workload(FOUR_SCALES, queries=900),
    "deformable-decoder": Workload(FOUR_SCALES, queries=300),
    "dino-encoder-1066": _encoder((100, 134), (50, 67), (25, 34), (13, 17)),  # 800 x 1066
    "dino-encoder-5-scale": _encoder((200, 334), *FOUR_SCALES),
    "mask2former-encoder-1024": _encoder((128, 128), (64, 64), (32, 32)),
    "rt-detr-decoder-640": Workload(((80, 80), (40, 40), (20, 20)), queries=300),
    "bevformer-base": Workload(((116, 200), (58, 100), (29, 50), (15, 25)), queries=40_000, batch=6, points=8),
}

_ENCODERS = ("dino-encoder-1066", "dino-encoder", "dino-encoder-5-scale", "mask2former-encoder-1024")
_DECODERS = ("dino-decoder", "deformable-decoder", "rt-detr-decoder-640")
_MAPS = {name: WORKLOADS[name] for name in (*_ENCODERS, *_DECODERS)}
_DETR_CELLS = 25 * 42  # 800 x 1333 at stride 32
_IMAGES: dict[str, Sizes] = {f"{h}x{w}": Images(h, w) for h, w in ((320, 480), (800, 1066), (800, 1333))}

MODELS = ("detr", "deformable_detr", "dino")
HOSTS = ("encoder-layer", "deformable_detr", "dino")

# The workloads of each operation by name, in the order in which operations are chosen.
TABLE: dict[str, dict[str, Sizes]] = {
    "ms_deform_attn": {
        **WORKLOADS,
        "encoder-layer-1066": Inside("encoder-layer", WORKLOADS["dino-encoder-1066"]),
        "dino-320x480": Inside("dino", Images(320, 480)),
    },
    "ms_deform_attn_module": {**_MAPS},
    "multihead_attention": {
        "dino-queries": Tokens(900, 900),
        "detr-encoder": Tokens(_DETR_CELLS, _DETR_CELLS),
        "detr-decoder": Tokens(100, _DETR_CELLS),
    },
    "encoder_layer": {"detr-encoder": Tokens(_DETR_CELLS, _DETR_CELLS)},
    "decoder_layer": {"detr-decoder": Tokens(100, _DETR_CELLS)},
    "dino_decoder": {"dino-decoder": WORKLOADS["dino-decoder"]},
    **{model: dict(_IMAGES) for model in MODELS},
}

# What is measured unless workloads are named: of other operations the first one.
USUAL = {"ms_deform_attn": ("dino-encoder-1066", "dino-decoder", "rt-detr-decoder-640")}

_SIZE = re.compile(r"(?:(?P<host>[a-z_]+)-)?(?P<height>\d{2,4})x(?P<width>\d{2,4})")


def find(operation: str, name: str) -> Sizes | None:
    """The sizes of a workload; of a model (and of a core inside one) at any image size, as "480x640"; None if unknown.

    For `ms_deform_attn`, "dino-480x640" and "deformable_detr-480x640" are the reference's model around the core.
    """
    if name in TABLE[operation]:
        return TABLE[operation][name]
    if not (size := _SIZE.fullmatch(name)):
        return None
    images = Images(int(size["height"]), int(size["width"]))
    if operation in MODELS and size["host"] is None:
        return images
    return Inside(size["host"], images) if operation == "ms_deform_attn" and size["host"] in HOSTS[1:] else None


def chosen(operation: str, names: tuple[str, ...]) -> dict[str, Sizes]:
    """Those of the named workloads that the operation has; without names its usual ones."""
    names = names or USUAL.get(operation, tuple(TABLE[operation])[:1])
    return {name: sizes for name in names if (sizes := find(operation, name)) is not None}
