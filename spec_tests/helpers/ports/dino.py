"""Ports of DINO: right ones, among them one whose selection rounding has permuted, and such with one mistake each.

And a file of weights as DINO publishes them, of any size, with the numbers of a state dict of the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_reference.checkpoints.formats import FORMATS
from detr_reference.checkpoints.renaming import original_names
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from detr_reference.detectors import dino
from detr_reference.detectors.config import DINOConfig
from detr_reference.detectors.dino import DINO
from detr_reference.features.feature_levels import FeatureLevels, flatten_levels
from detr_reference.queries.query_selection import select_queries
from helpers import published_models as published

Build = Callable[[DINOConfig, Mapping[str, Tensor] | None], nn.Module]


# -- files as published ---------------------------------------------------------------------------------------------


def as_published(state_dict: Mapping[str, Tensor], config: DINOConfig) -> dict[str, Tensor]:
    """The same tensors under the names of a published file: its layers share their heads, and it holds each copy."""
    return original_names(FORMATS["dino"].table, state_dict, list(dict.fromkeys(_names(config))))


def _names(config: DINOConfig) -> Iterator[str]:
    """The names of the recorded model, for other numbers of layers and blocks."""
    counts = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    for name in published.load_record("dino")["parameters"]:
        if match := re.search(r"body\.layer(\d)\.\d+\.", name):
            blocks = config.backbone_blocks[int(match[1]) - 1]
            shortcut = "downsample" in name
            for block in range(1 if shortcut else blocks):
                yield name.replace(match[0], f"body.layer{match[1]}.{block}.")
        elif match := re.search(r"(encoder|decoder)\.layers\.\d+\.", name):
            for layer in range(counts[match[1]]):
                yield name.replace(match[0], f"{match[1]}.layers.{layer}.")
        elif match := re.search(r"(class|bbox)_embed\.\d+\.", name):
            for layer in range(counts["decoder"]):
                yield name.replace(match[0], f"{match[1]}_embed.{layer}.")
        else:
            yield name


# -- right ones -----------------------------------------------------------------------------------------------------


class Port(DINO):
    """DINO with its selection in a method of its own."""

    def choice(self, logits: Tensor) -> Tensor:
        """(batch, query), the cells by falling score."""
        return logits.amax(-1).topk(self.config.num_queries, dim=1).indices

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        chosen: list[Tensor] = []

        def select(logits: Tensor, proposals: Tensor, features: Tensor, **settings: Any) -> dict[str, Tensor]:
            found = select_queries(logits, proposals, features, **settings)
            chosen.append(self.choice(logits))
            rows = chosen[0][..., None]
            return {
                "indices": chosen[0],
                "proposals": proposals.gather(1, rows.expand(-1, -1, 4)),
                "memory": features.gather(1, rows.expand(-1, -1, found["memory"].shape[-1])),
            }

        with patch.object(dino, "select_queries", select):
            return super()._selected_cells(memory, levels)


class Permuted(Port):
    """Rounds scores as another order of summation may: the two neighbours that are nearest change places."""

    def choice(self, logits: Tensor) -> Tensor:
        indices = super().choice(logits)
        scores = logits.amax(-1).gather(1, indices)
        apart = scores[:, :-1] - scores[:, 1:]  # cells of padding are equal in all else too: there nothing is exchanged
        for image, place in enumerate(apart.masked_fill(apart == 0, torch.inf).argmin(-1).tolist()):
            indices[image, [place, place + 1]] = indices[image, [place + 1, place]]
        return indices


def _built(kind: type[DINO] = Port, change: Callable[[Any], None] = lambda model: None) -> Build:
    def build(config: DINOConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        model = kind(config)
        if state_dict is not None:
            model.load_state_dict(state_dict)
        change(model)
        return model

    return build


RIGHT: dict[str, Build] = {"right": _built(), "selection permuted by rounding": _built(Permuted)}


# -- wrong ones -----------------------------------------------------------------------------------------------------


class ByFirstClass(Port):
    """Scores a cell by its first class, as Deformable DETR does."""

    def choice(self, logits: Tensor) -> Tensor:
        return logits[..., 0].topk(self.config.num_queries, dim=1).indices


class Unsorted(Port):
    """Takes the right cells in the order of the map."""

    def choice(self, logits: Tensor) -> Tensor:
        return super().choice(logits).sort(dim=1).values


def _of_encoder(layer: int, method: str, changed: Callable[..., Tensor]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        attention = model.transformer.encoder.layers[layer].attentions[0]
        setattr(attention, method, lambda *given: changed(attention, *given))

    return change


def _softmax_of_each_level(attention: MultiScaleDeformableAttention, query: Tensor) -> Tensor:
    config = attention.config
    logits = attention.attention_weights(query).unflatten(-1, (config.num_heads, config.num_levels, config.num_points))
    return logits.softmax(-1) / config.num_levels


def _normalised_by_height_and_width(
    attention: MultiScaleDeformableAttention, query: Tensor, references: Tensor, shapes: Tensor
) -> Tensor:
    return MultiScaleDeformableAttention._sampling_locations(attention, query, references, shapes.flip(-1))


def _whole_boxes(model: Any) -> None:
    """Decoder offsets reach as far as the box, not half of it."""
    for layer in model.transformer.decoder.layers:
        attention = layer.attentions[1]
        attention._sampling_locations = lambda query, references, shapes, own=attention: (
            MultiScaleDeformableAttention._sampling_locations(
                own, query, torch.cat((references[..., :2], 2 * references[..., 2:]), -1), shapes
            )
        )


def _exchanged_norms(model: Any) -> None:
    norms = model.transformer.decoder.layers[1].norms
    norms[0], norms[1] = norms[1], norms[0]


def _gelu(model: Any) -> None:
    model.transformer.decoder.layers[1].ffns[0].layers[0][1] = nn.GELU()


def _no_identity(model: Any) -> None:
    """Self-attention of a decoder layer without what it is added to."""
    attention = model.transformer.decoder.layers[0].attentions[0]
    forward = attention.forward
    attention.forward = lambda query, **named: forward(query, **named) - query


class Colder(Port):
    """Sine embedding of cells with the temperature of DETR."""

    def forward(self, *given: Any, **named: Any) -> dict[str, Tensor]:
        def colder(*a: Any, **k: Any) -> FeatureLevels:
            return flatten_levels(*a, **{**k, "temperature": 10000.0})

        with patch.object(dino, "flatten_levels", colder):
            return super().forward(*given, **named)


class _EverySecond(nn.Module):
    """A box head is called with the normed state to predict, and then with the state itself to refine."""

    def __init__(self, head: nn.Module, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.head, self.norm, self.calls = head, norm, 0

    def forward(self, state: Tensor) -> Tensor:
        self.calls += 1
        normed = F.layer_norm(state, self.norm.normalized_shape, self.norm.weight, self.norm.bias)
        return self.head(state if self.calls % 2 else normed)


def _refined_with_the_norm(model: Any) -> None:
    """Moves the references by what the head makes of the normed state."""
    decoder, forward = model.transformer.decoder, model.transformer.decoder.forward

    def moved(query: Any, memory: Any, reference_points: Any, heads: Any, *rest: Any, **named: Any) -> Any:
        return forward(
            query, memory, reference_points, [_EverySecond(head, decoder.norm) for head in heads], *rest, **named
        )

    decoder.forward = moved


# Each with the stage, and the part of it, that has to be named.
MISTAKES: dict[str, tuple[Build, str, str | None]] = {
    "attention weights: a softmax for each level": (
        _built(change=_of_encoder(1, "_softmax_weights", _softmax_of_each_level)),
        "encoder.1",
        "encoder.1.attention_weights",
    ),
    "offsets divided by (H, W) for (W, H)": (
        _built(change=_of_encoder(0, "_sampling_locations", _normalised_by_height_and_width)),
        "encoder.0",
        "encoder.0.sampling_locations",
    ),
    "offsets of the decoder relative to whole boxes": (
        _built(change=_whole_boxes),
        "decoder.0",
        "decoder.0.sampling_locations",
    ),
    "two norms of a decoder layer exchanged": (_built(change=_exchanged_norms), "decoder.1", "decoder.1.norm_0"),
    "GELU for ReLU in a feed-forward network": (_built(change=_gelu), "decoder.1", "decoder.1.ffn"),
    "self-attention without the identity": (_built(change=_no_identity), "decoder.0", "decoder.0.self_attention"),
    "sine embedding of temperature 10000 for 20": (_built(Colder), "positions", None),
    "selection by the first class": (_built(ByFirstClass), "selection", None),
    "selected cells in the order of the map": (_built(Unsorted), "selection", None),
    "references refined by the normed state": (_built(change=_refined_with_the_norm), "box_head.0", None),
}
