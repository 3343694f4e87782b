"""The inputs that are asked for: images, the user's or random ones; of a layer tokens on the maps of such an image."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.harness.fill import Filler
from detr_reference.cli import CannotDo, need
from detr_reference.queries.reference_points import encoder_reference_points

Size = tuple[int, int]
Inputs = dict[str, Tensor]

DEFAULT_SIZE: Size = (480, 640)
SHORTER, LONGEST = 800, 1333  # as published models are evaluated
LARGEST_SIDE = 4096
FILLED = 15 / 16  # of a random image; the rest is padding
STRIDE, FIRST_STRIDE = 32, 8
QUERIES = {"decoder_layer": 100, "dino_decoder": 900}


def read_size(text: str | None) -> Size | None:
    """(height, width) of "480x640".

    Raises:
        CannotDo: it is no size, or too large.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text.strip().lower())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(STRIDE <= side <= LARGEST_SIDE for side in size):
        raise CannotDo(
            f"--size needs HEIGHTxWIDTH, each from {STRIDE} to {LARGEST_SIDE}, such as 480x640; got {text!r}"
        )
    return size


def random_images(size: Size, seed: int) -> Inputs:
    """One image with padding on the right and at the bottom."""
    fill = Filler("float64", seed, "compare", "images")
    height, width = (max(1, round(FILLED * side)) for side in size)
    mask = torch.ones(1, *size, dtype=torch.bool)
    mask[:, :height, :width] = False
    return {"images": fill.normal(1, 3, *size) * ~mask[:, None], "mask": mask}


def read_images(paths: Sequence[str], size: Size | None) -> Inputs:
    """A batch of photographs with the colours that backbones expect, padded to the largest.

    Args:
        size: of each; None: the shorter side 800, the longer at most 1333.

    Raises:
        CannotDo: one cannot be read.
    """
    need("compare --image", "train", "PIL")
    from detr_reference.data.batches import collate
    from detr_reference.data.images import ImageError, read_image, tensor_of
    from detr_reference.data.normalise import normalise
    from detr_reference.data.resize import resize
    from detr_reference.data.sample import Sample

    samples = []
    for number, path in enumerate(paths):
        try:
            image = tensor_of(read_image(path))
        except ImageError as error:
            raise CannotDo(str(error)) from error
        if size is not None:
            image = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        none = torch.zeros(0, dtype=torch.int64)
        sample = Sample(image, torch.zeros(0, 4), none, number, (image.shape[1], image.shape[2]))
        samples.append(normalise(sample if size is not None else resize(sample, SHORTER, LONGEST)))
    batch = collate(samples)
    return {"images": batch.images, "mask": batch.mask}


def layer_inputs(operation: str, config: Any, size: Size, seed: int) -> Inputs:
    """Random tokens of one image of that size."""
    return LAYERS[operation](config, size, Filler("float64", seed, "compare", operation))


def _encoder_layer(config: Any, size: Size, fill: Filler) -> Inputs:
    cells, padding = _map(size)
    tokens = (1, cells, config.embed_dim)
    return {"query": fill.normal(*tokens), "query_pos": fill.normal(*tokens), "query_key_padding_mask": padding}


def _decoder_layer(config: Any, size: Size, fill: Filler) -> Inputs:
    cells, padding = _map(size)
    queries, keys = (1, QUERIES["decoder_layer"], config.embed_dim), (1, cells, config.embed_dim)
    return {
        "query": fill.normal(*queries),
        "key": fill.normal(*keys),
        "query_pos": fill.normal(*queries),
        "key_pos": fill.normal(*keys),
        "key_padding_mask": padding,
    }


def _ms_deform_attn_module(config: Any, size: Size, fill: Filler) -> Inputs:
    shapes, starts = _levels(size, config.num_levels)
    tokens = (1, int(shapes.prod(-1).sum()), config.embed_dim)
    ratios = torch.ones(1, config.num_levels, 2, dtype=torch.float64)
    return {
        "query": fill.normal(*tokens),
        "query_pos": fill.normal(*tokens),
        "reference_points": encoder_reference_points(shapes, ratios),
        "spatial_shapes": shapes,
        "level_start_index": starts,
    }


def _dino_decoder(config: Any, size: Size, fill: Filler) -> Inputs:
    shapes, starts = _levels(size, config.num_levels)
    queries = QUERIES["dino_decoder"]
    return {
        "query": fill.normal(1, queries, config.embed_dim),
        "memory": fill.normal(1, int(shapes.prod(-1).sum()), config.embed_dim),
        "reference_points": torch.cat(
            (fill.uniform(0.1, 0.9, 1, queries, 2), fill.uniform(0.1, 0.7, 1, queries, 2)), -1
        ),
        "spatial_shapes": shapes,
        "level_start_index": starts,
        "valid_ratios": torch.ones(1, config.num_levels, 2, dtype=torch.float64),
    }


LAYERS: dict[str, Callable[[Any, Size, Filler], Inputs]] = {
    "ms_deform_attn_module": _ms_deform_attn_module,
    "encoder_layer": _encoder_layer,
    "decoder_layer": _decoder_layer,
    "dino_decoder": _dino_decoder,
}


def _map(size: Size) -> tuple[int, Tensor]:
    """The cells of the one map that DETR has, and which of them a random image does not fill."""
    height, width = (-(-side // STRIDE) for side in size)
    padding = torch.zeros(1, height, width, dtype=torch.bool)
    padding[:, :, max(1, round(FILLED * width)) :] = True
    return height * width, padding.flatten(1)


def _levels(size: Size, count: int) -> tuple[Tensor, Tensor]:
    sides = [[-(-side // (FIRST_STRIDE << level)) for side in size] for level in range(count)]
    shapes = torch.tensor(sides)
    cells = shapes.prod(-1)
    return shapes, cells.cumsum(0) - cells
