"""The heads of Deformable DETR and DINO: one linear layer for the classes, a small perceptron for the box.

Source: Deformable DETR, arXiv:2010.04159, appendix A.2, with the prior of Focal Loss, arXiv:1708.02002, section 4.1;
read with fundamentalvision/Deformable-DETR, models/deformable_detr.py, and detrex, projects/dino/modeling/dino.py.
"""

from __future__ import annotations

import math

from torch import nn

from detr_reference.feed_forward.config import MLPConfig
from detr_reference.feed_forward.mlp import MLP

PRIOR = 0.01  # the probability of every class at the beginning


def class_head(embed_dim: int, num_classes: int) -> nn.Linear:
    """logits = W x + b, b = -log((1 - 0.01) / 0.01) = -4.595 at the beginning

    Nearly all queries are background; without the prior their loss would drown the others' in the first steps.
    """
    head = nn.Linear(embed_dim, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))
    return head


def box_head(embed_dim: int, size_bias: float = 0.0) -> MLP:
    """delta = MLP_3(x), to be added to the logit of a reference; (0, 0, size_bias, size_bias) at the beginning

    Args:
        size_bias: added to the logits of w and h. A reference that is a point says nothing of the size, and a box would
            begin as large as half the image; -2 makes it 0.12 of it. Where the reference is a box, 0 keeps its size.
    """
    head = MLP(MLPConfig(embed_dim, embed_dim, output_dim=4, num_layers=3))
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    nn.init.constant_(last.bias[2:], size_bias)
    return head
