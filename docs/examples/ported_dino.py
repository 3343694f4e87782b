"""A port of DINO as a target, with a defect that a strict load of the weights does not notice.

The norms of one decoder layer have been exchanged: their shapes are the same. The stages say where the port parts from
the reference. detr-spec check docs/examples/ported_dino.py:target --operation dino
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from detr_conformance import STAGES, Target
from detr_reference import DINO, DINOConfig


def ported_dino(config: DINOConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """Your own model with these parameters; here the reference, two norms of which change places."""
    model = DINO(config)
    if state_dict is not None:
        model.load_state_dict(state_dict)
    norms = model.transformer.decoder.layers[-1].norms
    norms[0], norms[1] = norms[1], norms[0]
    return model


target = Target(
    name="ported-dino",
    provides={"dino": ported_dino},
    stages=STAGES["dino"],  # stage -> path of your module, such as {"decoder.{i}": "model.decoder.layers.{i}"}
)
