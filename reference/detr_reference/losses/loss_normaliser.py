"""What the losses of a batch are divided by: the mean number of boxes of a process.

Processes of a data-parallel training average their gradients. Divided by their own numbers of boxes, a box in a crowded
batch would count less than one in another; divided by the mean over processes, each counts the same, and the averaged
gradient is that of one process with all images.

Source: facebookresearch/detr, models/detr.py (`SetCriterion.forward`). Clauses: spec chapter 15.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor


def mean_boxes(target_counts: Int[Tensor, " batch"], dtype: torch.dtype = torch.float32) -> Float[Tensor, ""]:
    """max(1, boxes of all processes / processes)

    With an initialised torch.distributed, every process has to call this equally often, also one without any box.
    """
    boxes, processes = target_counts.sum(), 1
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(boxes)
        processes = dist.get_world_size()
    return (boxes.to(dtype) / processes).clamp(min=1)
