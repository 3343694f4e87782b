"""The feed-forward network, one overridable step after another. Clauses: spec chapter 6, FFN-1 to FFN-13.

The hand-written network shares only parameter names and configuration with the reference. Unchanged it is a twin; the
mutants override one step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_reference.feed_forward.config import FeedForwardConfig

Tokens = Float[Tensor, "*leading channel"]


@twin("feed-forward-by-hand", operation="feed_forward", origin="facebookresearch/detr, linear1 and linear2 of a layer")
class HandWrittenFeedForward(nn.Module):
    """Matrix products and functions, a layer after another."""

    def __init__(self, config: FeedForwardConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        wide, narrow = config.feedforward_dim, config.embed_dim
        inputs = [narrow] + [wide] * (config.num_fcs - 2)
        hidden = [nn.Sequential(nn.Linear(width, wide)) for width in inputs]
        self.layers = nn.Sequential(*hidden, nn.Linear(wide, narrow))
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    def hidden_layers(self) -> list[nn.Linear]:
        return self.linears()[:-1]

    def linears(self) -> list[nn.Linear]:
        return [part for part in self.layers.modules() if isinstance(part, nn.Linear)]

    def forward(self, x: Tokens, identity: Tokens | None = None) -> Tokens:
        return self.result(self.network(x), x, identity)

    def network(self, x: Tokens) -> Tokens:
        return self.final_dropout(self.last(self.hidden(x)))

    def hidden(self, x: Tokens) -> Tokens:
        for layer in self.hidden_layers():
            x = self.hidden_dropout(self.activated(self.linear(layer, x)))
        return x

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        return torch.matmul(x, layer.weight.T) + layer.bias

    def activated(self, h: Tokens) -> Tokens:
        return self.relu(h) if self.config.activation == "relu" else self.gelu(h)

    def relu(self, h: Tokens) -> Tokens:
        return h.clamp(min=0)

    def gelu(self, h: Tokens) -> Tokens:
        return F.gelu(h)

    def last(self, h: Tokens) -> Tokens:
        return self.linear(self.linears()[-1], h)

    def drop(self, h: Tokens) -> Tokens:
        return F.dropout(h, self.config.ffn_drop, self.training)

    def hidden_dropout(self, h: Tokens) -> Tokens:
        return self.drop(h)

    def final_dropout(self, out: Tokens) -> Tokens:
        return self.drop(out)

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        if not self.config.add_identity:
            return out
        return out + (x if identity is None else identity)
