"""Transformer layers one after another: the encoder and the decoder of a DETR.

Source: DETR, arXiv:2005.12872, appendix A.3; read with facebookresearch/detr, models/transformer.py, and detrex,
layers/transformer.py (TransformerLayerSequence) and projects/detr/modeling/transformer.py. See spec chapter 07.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.every_block.parameters import with_parameters
from detr_reference.transformer.config import TransformerStackConfig
from detr_reference.transformer.layer import DecoderLayer, EncoderLayer


class TransformerStack(nn.Module):
    """x_i = layer_i(x_{i-1}); out = norm(x_N), or (norm(x_1), ..., norm(x_N))

    The next layer is given x_i as it is: the final norm is on the way out alone, and shared by all outputs.

    Parameters:
        layers.{i}: those of an encoder or decoder layer.
        post_norm_layer: an nn.LayerNorm, if post_norm.
    """

    def __init__(self, config: TransformerStackConfig, kind: type[EncoderLayer] | type[DecoderLayer]) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(kind(config.layer) for _ in range(config.num_layers))
        self.post_norm_layer = (
            nn.LayerNorm(config.layer.embed_dim, config.layer.layer_norm_eps) if config.post_norm else nn.Identity()
        )

    def forward(
        self, query: Float[Tensor, "batch query embed"], **context: Tensor | None
    ) -> Float[Tensor, "*layer batch query embed"]:
        """The output of the last layer, or of all, (layer, batch, query, embed).

        Args:
            query: what the first layer is given.
            context: the other arguments of the layers by name, shaped as there: query_pos (batch, query, embed), ...
        """
        outputs = []
        for layer in self.layers:
            query = layer(query, **context)
            outputs.append(query)
        if self.config.return_intermediate:
            return self.post_norm_layer(torch.stack(outputs))
        return self.post_norm_layer(query)


def build_encoder(config: TransformerStackConfig, state_dict: Mapping[str, Tensor] | None = None) -> TransformerStack:
    """A stack of encoder layers with copies of these parameters; None means initialise.

    Raises:
        ValueError: the order of the layers has a cross-attention.
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(TransformerStack(config, EncoderLayer), state_dict)


def build_decoder(config: TransformerStackConfig, state_dict: Mapping[str, Tensor] | None = None) -> TransformerStack:
    """A stack of decoder layers with copies of these parameters; None means initialise.

    Raises:
        ValueError: the order of the layers has no cross-attention.
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(TransformerStack(config, DecoderLayer), state_dict)
