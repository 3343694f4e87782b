"""What is measured: the calls that published detectors make, and whole layers and models. Plain data, no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from detr_conformance.topics.deformable_attention.cases.workloads import WORKLOADS, Workload

DIRECTIONS = ("forward", "backward", "both")


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
