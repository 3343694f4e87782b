"""The feed-forward network of a transformer layer: linear layers at each token by itself, plus the identity.

Source: Attention Is All You Need, arXiv:1706.03762, section 3.3; read with detrex, layers/mlp.py (FFN), and
facebookresearch/detr, models/transformer.py. Clauses: spec chapter 06.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.every_block.parameters import with_parameters
from detr_reference.feed_forward.config import FeedForwardConfig

ACTIVATION_MODULES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class FeedForward(nn.Module):
    """out = identity + drop(W_n h_{n-1} + b_n), h_i = drop(act(W_i h_{i-1} + b_i)), h_0 = x

    Parameters: layers.{i}.0, the linear layers with an activation after them, C -> F, then F -> F; and the last
    one, layers.{n-1}, F -> C.
    """

    def __init__(self, config: FeedForwardConfig) -> None:
        super().__init__()
        self.config = config
        activation = ACTIVATION_MODULES[config.activation]
        widths = [config.embed_dim] + [config.feedforward_dim] * (config.num_fcs - 1)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(width, config.feedforward_dim), activation(), nn.Dropout(config.ffn_drop))
                for width in widths[:-1]
            ),
            nn.Linear(widths[-1], config.embed_dim),
            nn.Dropout(config.ffn_drop),
        )

    def forward(
        self, x: Float[Tensor, "*leading embed"], identity: Float[Tensor, "*leading embed"] | None = None
    ) -> Float[Tensor, "*leading embed"]:
        """The network at each token.

        Args:
            x: tokens, with any leading axes.
            identity: what the result is added to; by default x. Ignored where the configuration adds none.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
        """
        if x.shape[-1:] != (self.config.embed_dim,):
            raise ValueError(f"x must be (..., {self.config.embed_dim}), got {tuple(x.shape)}")
        if not self.config.add_identity:
            return self.layers(x)
        identity = x if identity is None else identity
        if identity.shape != x.shape:
            raise ValueError(f"identity {tuple(identity.shape)} must have the shape of x, {tuple(x.shape)}")
        return identity + self.layers(x)


def build(config: FeedForwardConfig, state_dict: Mapping[str, Tensor] | None = None) -> FeedForward:
    """The module with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(FeedForward(config), state_dict)
