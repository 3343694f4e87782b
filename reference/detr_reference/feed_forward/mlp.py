"""The multi-layer perceptron of DETR's heads: linear layers with a ReLU between them.

Source: DETR, arXiv:2005.12872, section 3.2 (prediction feed-forward networks); read with facebookresearch/detr,
models/detr.py (MLP), and detrex, layers/mlp.py (MLP). Clauses: spec chapter 06.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.every_block.parameters import with_parameters
from detr_reference.feed_forward.config import MLPConfig


class MLP(nn.Module):
    """out = W_n h_{n-1} + b_n, h_i = relu(W_i h_{i-1} + b_i), h_0 = x

    Parameters: layers.{i}, nn.Linear: input_dim -> hidden_dim -> ... -> hidden_dim -> output_dim.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.input_dim, *[config.hidden_dim] * (config.num_layers - 1), config.output_dim]
        self.layers = nn.ModuleList(nn.Linear(wide, narrow) for wide, narrow in pairwise(widths))

    def forward(self, x: Float[Tensor, "*leading input"]) -> Float[Tensor, "*leading output"]:
        """The perceptron at each token; x may have any leading axes.

        Raises:
            ValueError: the last axis of x is not input_dim.
        """
        if x.shape[-1:] != (self.config.input_dim,):
            raise ValueError(f"x must be (..., {self.config.input_dim}), got {tuple(x.shape)}")
        *hidden, last = self.layers
        for layer in hidden:
            x = layer(x).relu()
        return last(x)


def build(config: MLPConfig, state_dict: Mapping[str, Tensor] | None = None) -> MLP:
    """The module with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(MLP(config), state_dict)
