"""An average of a model's parameters over its training, which is often better than the last of them.

Source: IDEA-Research/DINO, util/utils.py (`ModelEma`); its published runs keep none.
"""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """average <- decay * average + (1 - decay) * model, with each `update_parameters(model)`; the first one copies

    Buffers are averaged too; what is frozen stays as it is to the bit.
    """
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
