"""Look forward twice: what a decoder layer looks from, what its prediction is added to, and where gradients stop.

Every layer of a refining decoder moves the reference boxes. Two layers want the result of layer i: the next layer looks
from it, and the next prediction is an offset to it. The numbers are the same for both; the gradients are not:

    refined_i = sigmoid(box_i(out_i) + logit(fed_i))

         refined_i ---detach--> fed_{i+1}       layer i + 1 looks from here
             |
             +----------------> returned_{i+1}  pred_{i+1} = sigmoid(box_{i+1}(norm(out_{i+1})) + logit(returned_{i+1}))

What is *fed* is always detached: through the sampling locations and query positions of a stack, the loss of the last
layer would otherwise reach all earlier boxes, which makes training unstable. What is *returned* is not detached in
DINO, so that the loss of prediction i + 1 reaches box head i too: the head learns to make boxes that the next layer can
improve, "looking forward twice". With a detached one (Deformable DETR, "once") each head is trained by its own
prediction alone.

The initial boxes are detached in both. They come from the encoder, which has a loss of its own.

Source: DINO, arXiv:2203.03605, section 3.5 and figure 6; read with IDEA-Research/DINO,
models/dino/deformable_transformer.py (`TransformerDecoder`) and dino.py, and detrex, projects/dino/modeling. Clauses:
spec chapter 12.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from detr_reference.queries.box_refinement import refine_boxes

Boxes = Float[Tensor, "batch query 4"]


class References(NamedTuple):
    """The reference boxes (x, y, w, h) of one layer, relative to the image: equal numbers, unequal gradients."""

    fed: Boxes
    returned: Boxes


def initial_references(boxes: Boxes) -> References:
    """fed_0 = returned_0 = boxes, both detached"""
    detached = boxes.detach()
    return References(fed=detached, returned=detached)


def next_references(delta: Boxes, references: References, *, twice: bool, eps: float = 1e-3) -> References:
    """refined = sigmoid(delta + logit(fed)); fed' = refined, detached; returned' = refined if twice, else detached too

    Args:
        delta: what this layer's box head makes of its output, before the decoder's norm.
        references: those of this layer.
        twice: whether the next prediction trains this layer's box head.
        eps: of the logit, see `inverse_sigmoid`.
    """
    refined = refine_boxes(delta, references.fed, eps=eps)
    detached = refined.detach()
    return References(fed=detached, returned=refined if twice else detached)


def predicted_boxes(delta: Boxes, references: References, *, eps: float = 1e-3) -> Boxes:
    """pred = sigmoid(delta + logit(returned))

    Args:
        delta: what this layer's box head makes of its output, after the decoder's norm.
        references: those of this layer, not yet refined by it.
        eps: of the logit, see `inverse_sigmoid`.
    """
    return refine_boxes(delta, references.returned, eps=eps)
