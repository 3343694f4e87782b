"""Where queries begin, and sizes of DINO's decoder."""

from __future__ import annotations

from dataclasses import dataclass

from detr_reference.every_block.config_checks import check_sizes
from detr_reference.transformer.config import DeformableLayerConfig

SELECTIONS = ("static", "pure", "mixed")


@dataclass(frozen=True)
class DINODecoderConfig:
    """Sizes of DINO's decoder, and its alternatives.

    Args:
        embed_dim: C, the channels of every token, a multiple of 4.
        num_heads, feedforward_dim, num_levels, num_points, dropout, activation: of every layer, see
            `DeformableLayerConfig`.
        num_layers: n.
        num_classes: K, the channels of pred_logits.
        look_forward_twice: whether a prediction trains the box head of the layer before as well, see
            `look_forward_twice.py`.
        shared_heads: one box and one class head for all layers (DINO), or one of each a layer (detrex).
        embed_scaled_references: whether query positions are made of boxes relative to the padded map (True, as
            published) or relative to the image (False), so that padding does not change the result.
        eps: of the logit of a box.

    Raises:
        ValueError: a size, rate or activation is refused by the part it belongs to, or eps is not in (0, 0.5).
    """

    embed_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 2048
    num_layers: int = 6
    num_levels: int = 4
    num_points: int = 4
    num_classes: int = 80
    dropout: float = 0.0
    activation: str = "relu"
    look_forward_twice: bool = True
    shared_heads: bool = False
    embed_scaled_references: bool = True
    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_sizes(self, "num_layers", "num_classes")
        if self.embed_dim % 4:
            raise ValueError(
                f"embed_dim must be a multiple of 4, got {self.embed_dim}: half of it are the sines and cosines of a "
                "coordinate"
            )
        if not 0 < self.eps < 0.5:
            raise ValueError(f"eps must lie between 0 and 0.5, got {self.eps}")
        _ = self.layer  # it checks its own fields

    @property
    def layer(self) -> DeformableLayerConfig:
        return DeformableLayerConfig(
            self.embed_dim,
            self.num_heads,
            self.feedforward_dim,
            self.num_levels,
            self.num_points,
            self.dropout,
            self.activation,
        )
