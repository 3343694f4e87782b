"""The three whole models cut into steps that can be overridden one by one, and twins of them.

They have the reference's parts, since the parts have chapters and mutants of their own: what goes wrong here is how
they are put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_reference.detectors.deformable_detr import POSITION_OFFSET, POSITION_TEMPERATURE, DeformableDETR
from detr_reference.detectors.detr import DETR
from detr_reference.detectors.dino import DINO
from detr_reference.every_block.parameters import with_parameters
from detr_reference.features.feature_levels import FeatureLevels, flatten_levels
from detr_reference.features.image_tokens import ImageTokens, image_tokens


class Changed(nn.Module):
    """A model whose modules are changed before its parameters come; stands before the model among the bases."""

    def __init__(self, config: Any, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config)
        self.changed()
        with_parameters(self, state_dict)

    def changed(self) -> None:
        """Changes of modules before the parameters come."""


@twin("detr-in-steps", operation="detr", origin="the order of facebookresearch/detr, one layer after another")
class DETRInSteps(Changed, DETR):
    """Runs the layers itself and norms every intermediate output by itself."""

    def forward(self, images: Tensor, mask: Tensor) -> dict[str, Tensor]:
        if mask.dtype != torch.bool or images.shape[-2:] != mask.shape[-2:]:
            raise ValueError(f"images {tuple(images.shape)} and mask {tuple(mask.shape)}, {mask.dtype}")
        cells = self.cells(self.input_proj(self.features(images)), mask)
        memory = self.encoded(cells)
        states = self.decoded(memory, cells)
        return self.predictions(self.normed(states))

    def features(self, images: Tensor) -> Tensor:
        return self.backbone(images)[-1]

    def cells(self, features: Tensor, mask: Tensor) -> ImageTokens:
        return image_tokens(features, self.padding(mask), temperature=10000.0)

    def padding(self, mask: Tensor) -> Tensor:
        return mask

    def encoded(self, cells: ImageTokens) -> Tensor:
        memory = cells.features
        for layer in self.transformer.encoder.layers:
            memory = layer(memory, query_pos=cells.position, query_key_padding_mask=cells.padding)
        return memory

    def content(self, query_pos: Tensor) -> Tensor:
        return torch.zeros_like(query_pos)

    def decoded(self, memory: Tensor, cells: ImageTokens) -> list[Tensor]:
        query_pos = self.query_embed.weight.repeat(len(memory), 1, 1)
        query, states = self.content(query_pos), []
        for number, layer in enumerate(self.transformer.decoder.layers):
            query = layer(query, **self.seen(number, memory, cells, query_pos))
            states.append(query)
        return states

    def seen(self, number: int, memory: Tensor, cells: ImageTokens, query_pos: Tensor) -> dict[str, Any]:
        """What a decoder layer is given."""
        return {
            "key": memory,
            "query_pos": query_pos,
            "key_pos": cells.position,
            "key_padding_mask": cells.padding,
        }

    def normed(self, states: list[Tensor]) -> list[Tensor]:
        return [self.transformer.decoder.post_norm_layer(state) for state in states]

    def predictions(self, states: list[Tensor]) -> dict[str, Tensor]:
        return {
            "pred_logits": torch.stack([self.class_embed(state) for state in states]),
            "pred_boxes": torch.stack([self.boxes(state) for state in states]),
        }

    def boxes(self, state: Tensor) -> Tensor:
        return self.bbox_embed(state).sigmoid()


class OneByOne:
    """Sends the images of a batch through the model one after another."""

    def forward(
        self, images: Tensor, mask: Tensor, *targets: Tensor | None, **named: Tensor | None
    ) -> dict[str, Tensor]:
        if len(images) == 1 or any(target is not None for target in (*targets, *named.values())):
            return super().forward(images, mask, *targets, **named)  # type: ignore[misc]
        alone = [super(OneByOne, self).forward(*each) for each in zip(images.split(1), mask.split(1), strict=True)]  # type: ignore[misc]
        return {
            name: torch.cat([found[name] for found in alone], dim=0 if name.startswith("enc_") else 1)
            for name in alone[0]
        }


class DeformableInSteps(Changed, DeformableDETR):
    """The reference, whose first part is cut into two."""

    def forward(self, images: Tensor, mask: Tensor) -> dict[str, Tensor]:
        if mask.dtype != torch.bool or images.shape[-2:] != mask.shape[-2:]:
            raise ValueError(f"images {tuple(images.shape)} and mask {tuple(mask.shape)}, {mask.dtype}")
        levels = self.levels(self.neck(self.backbone(images)), mask)
        memory = self.transformer.encoder(self.encoder_levels(levels))
        first_stage = self._first_stage(memory, levels) if self.config.two_stage else {}
        queries = self._selected_queries(first_stage) if first_stage else self._learned_queries(len(images))
        states, boxes = self.transformer.decoder(
            queries.content,
            queries.position,
            memory,
            self.decoder_levels(levels),
            queries.reference,
            self._per_layer(self.bbox_embed),
        )
        logits = [head(state) for head, state in zip(self._per_layer(self.class_embed), states, strict=True)]
        found = {"pred_logits": torch.stack(logits), "pred_boxes": boxes}
        if first_stage:
            found |= {"enc_logits": first_stage["logits"], "enc_boxes": first_stage["proposals"].sigmoid()}
        return self.returned(found)

    def levels(self, maps: Any, mask: Tensor) -> FeatureLevels:
        return flatten_levels(
            maps,
            self.padding(mask),
            self.level_vectors(),
            temperature=self.temperature(),
            offset=self.offset(),
        )

    def padding(self, mask: Tensor) -> Tensor:
        return mask

    def level_vectors(self) -> Tensor:
        return self.transformer.level_embeds

    def temperature(self) -> float:
        return POSITION_TEMPERATURE

    def offset(self) -> float:
        return POSITION_OFFSET

    def encoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        """What the encoder is told of the cells."""
        return levels

    def decoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        """What the decoder is told of the cells."""
        return levels

    def returned(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        return found


@twin(
    "deformable-detr-image-by-image",
    operation="deformable_detr",
    origin="batch size 1, as in exported models",
    stages=False,
)
class DeformableOneByOne(OneByOne, DeformableInSteps):
    """Sends the images of a batch through the model one after another."""


class DINOLoaded(Changed, DINO):
    """The reference, put into a class that mutants override."""


@twin("dino-image-by-image", operation="dino", origin="batch size 1, as in exported models", stages=False)
class DINOOneByOne(OneByOne, DINOLoaded):
    """Sends the images of a batch through the model one after another, unless there are targets."""


def returning(model: nn.Module, change: Any) -> None:
    """Changes what the model returns."""
    model.register_forward_hook(lambda m, given, found: change(m, found))
