"""Less memory for more time: transformer layers keep their inputs alone, and are computed again in the backward pass.

Source: Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(model: nn.Module) -> None:
    """Let each encoder and decoder layer of the model be computed again; predictions and gradients stay the same.

    The second time has the random numbers of the first, so that dropout drops the same. Names and values of parameters
    do not change. Call it once, before the model is copied or given to DistributedDataParallel.

    Args:
        model: any of `MODELS`.
    """
    for stack in ("encoder", "decoder"):
        for layer in model.get_submodule(f"transformer.{stack}.layers").children():
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
