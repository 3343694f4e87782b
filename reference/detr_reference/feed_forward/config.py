"""Sizes of the feed-forward network and the MLP."""

from __future__ import annotations

from dataclasses import dataclass

from detr_reference.every_block.config_checks import check_probabilities, check_sizes

ACTIVATIONS = ("relu", "gelu")


@dataclass(frozen=True)
class FeedForwardConfig:
    """Sizes of the feed-forward network.

    Args:
        embed_dim: C, the channels of input and output.
        feedforward_dim: F, the channels between linear layers.
        num_fcs: n, the number of linear layers, at least 2.
        ffn_drop: probability of zeroing a channel after every linear layer, in training only.
        activation: "relu", or "gelu", which is x * Phi(x) with the normal distribution function itself.
        add_identity: whether the identity is added to the result.

    Raises:
        ValueError: a size is too small, ffn_drop is no probability, or the activation is unknown.
    """

    embed_dim: int = 256
    feedforward_dim: int = 1024
    num_fcs: int = 2
    ffn_drop: float = 0.0
    activation: str = "relu"
    add_identity: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, "embed_dim", "feedforward_dim")
        check_probabilities(self, "ffn_drop")
        if self.num_fcs < 2:
            raise ValueError(f"num_fcs must be at least 2, got {self.num_fcs}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of the MLP.

    Args:
        input_dim: channels of the input.
        hidden_dim: channels between linear layers.
        output_dim: channels of the output.
        num_layers: the number of linear layers; with one there is no hidden layer, and hidden_dim is not used.

    Raises:
        ValueError: a size is below 1.
    """

    input_dim: int
    hidden_dim: int
    output_dim: int
    num_layers: int

    def __post_init__(self) -> None:
        check_sizes(self, "input_dim", "hidden_dim", "output_dim", "num_layers")
