"""Tiny models of published code, known by what they computed: files in `published/`, and how to give them parameters.

A record holds facts alone: the commit of the source, what was made smaller, the names and shapes of all parameters, and
numbers that the published code gave out, in float64, for parameters and inputs that a rule makes from their names. So
their state dict can be had here without their code, under their names, and read by the loader; equal outputs then prove
a map of names, where equal shapes would not.

Large tensors are recorded at every n-th element.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helpers.places import HELPERS

FOLDER = HELPERS / "published"
CANVAS = (64, 96)
IMAGE_SIZES = ((64, 44), (30, 96))
ORIGINAL_SIZES = torch.tensor([[480, 640], [333, 500]])
LARGEST_SAMPLE = 400

# Rows that are looked up or added, where other matrices are multiplied with.
EMBEDDINGS = ("query_embed.weight", "tgt_embed.weight", "label_enc.weight", "level_embed", "level_embeds")


def uniform(name: str, shape: Sequence[int]) -> Tensor:
    """float64 numbers in [0, 1) by name, shape and position alone: a splitmix64 stream seeded by the name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return torch.from_numpy((z >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(tuple(shape))


def parameter(name: str, shape: Sequence[int], salt: str = "") -> Tensor:
    """What the rule gives a parameter: no two alike, and none that is zero or one as initial parameters are.

    A record names the salt with which its model selects queries by a clear margin.
    """
    u = uniform(salt + name, shape)
    if "bbox_embed" in name and ".layers.2." in name:
        u = 0.5 + (u - 0.5) / 4  # boxes that move, but not out of the image
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return 0.5 + u
    if len(shape) < 2:
        return 0.6 * (2 * u - 1)
    if name.endswith(EMBEDDINGS):
        return 3 * u - 1.5
    return (2 * u - 1) * math.sqrt(6 * shape[0] / math.prod(shape))


def images() -> tuple[Tensor, Tensor]:
    """A batch of two images that are padded differently, H != W, and its mask, True = padding."""
    pixels = 3 * uniform("images", (len(IMAGE_SIZES), 3, *CANVAS)) - 1.5
    mask = torch.ones(len(IMAGE_SIZES), *CANVAS, dtype=torch.bool)
    for image, (height, width) in enumerate(IMAGE_SIZES):
        mask[image, :height, :width] = False
    return pixels.masked_fill(mask[:, None], 0.0), mask


def sampled(tensor: Tensor, largest: int = LARGEST_SAMPLE) -> Tensor:
    """Every n-th element, n odd, of a tensor with more elements than that; all of a smaller one."""
    step = math.ceil(tensor.numel() / largest)
    return tensor.detach().flatten()[:: step | 1]


def load_record(name: str) -> dict[str, Any]:
    """The facts about a published model."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def state_dict(record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The published model's parameters under its names; names of one shared tensor get that tensor's numbers."""
    copies = record["copies"]
    return {
        name: parameter(copies.get(name, name), shape, record["salt"]) for name, shape in record["parameters"].items()
    }


def recorded(record: Mapping[str, Any], name: str) -> Tensor:
    """What the published code gave out under this name; JSON has null for infinity."""
    numbers = [math.inf if number is None else number for number in record["outputs"][name]]
    return torch.tensor(numbers, dtype=torch.float64)


def furthest(record: Mapping[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """How far each output lies from what was recorded under its name, at most, relative to the largest recorded."""
    distances = {}
    for name, tensor in outputs.items():
        expected = recorded(record, name)
        found = sampled(tensor.double())
        assert found.shape == expected.shape, (name, tuple(tensor.shape))
        assert torch.equal(found.isfinite(), expected.isfinite()), name
        finite = expected.isfinite()
        difference = (found - expected)[finite].abs().max() if finite.any() else torch.tensor(0.0)
        distances[name] = float(difference / expected[finite].abs().max().clamp(min=1))
    return distances


def targets(num_classes: int, counts: Sequence[int] = (3, 2)) -> list[dict[str, Tensor]]:
    """Labels and cxcywh boxes of every image, as published criteria take them."""
    found = []
    for image, count in enumerate(counts):
        labels = (uniform(f"labels {image}", (count,)) * num_classes).long()
        boxes = uniform(f"boxes {image}", (count, 4))
        centre, size = 0.2 + 0.6 * boxes[:, :2], 0.05 + 0.3 * boxes[:, 2:]
        found.append({"labels": labels, "boxes": torch.cat((centre, size), -1)})
    return found


def joined_targets(num_classes: int, counts: Sequence[int] = (3, 2)) -> tuple[Tensor, Tensor, Tensor]:
    """The same as the reference takes them: labels and boxes of the whole batch, and the number of each image."""
    found = targets(num_classes, counts)
    labels, boxes = (torch.cat([each[name] for each in found]) for name in ("labels", "boxes"))
    return labels, boxes, torch.tensor(counts)
