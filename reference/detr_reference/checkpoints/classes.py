"""Rows of class heads: published heads are indexed by COCO's category ids, 1 to 90 with gaps; 80 are in use.

A model with 80 classes numbers the used ids from 0 in rising order, as detrex and COCO's evaluation do. Rows are taken
where a model has fewer of them than the file:

| parameter                                 | rows in the file | in the model | rows taken                             |
|-------------------------------------------|------------------|--------------|----------------------------------------|
| class head                                | 91               | 80           | the 80 ids                             |
| DETR's class head                         | 92               | 81           | the 80 ids, and row 91, "no object"    |
| label embedding of DINO                   | 92               | 80           | the 80 ids                             |
| first-stage class head of Deformable DETR | 91               | 80           | 0 to 79: row 0 is the objectness score |

Source: facebookresearch/detr, models/detr.py (num_classes = 91); fundamentalvision/Deformable-DETR,
models/deformable_transformer.py (the score of a proposal is channel 0); IDEA-Research/DINO, config/DINO_4scale.py.
"""

from __future__ import annotations

import re

from torch import Tensor

UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_IDS = tuple(number for number in range(1, 91) if number not in UNUSED_IDS)
NO_OBJECT = 91


def rows_of_the_model(name: str, tensor: Tensor, rows: int, *, objectness: bool) -> Tensor:
    """The rows that a model with so many reads, or the tensor as it is if the table above has no such case.

    Args:
        name: the reference's name of the parameter.
        tensor: the file's.
        rows: how many the model has.
        objectness: whether this is the head whose channel 0 scores proposals, whatever their class.
    """
    case = (tensor.shape[0] if tensor.ndim else 0, rows)
    if re.fullmatch(r"class_embed\.(\d+\.)?(weight|bias)", name):
        if case == (91, 80):
            return tensor[:80] if objectness else tensor[list(COCO_IDS)]
        if case == (92, 81):
            return tensor[[*COCO_IDS, NO_OBJECT]]
    if name == "label_enc.weight" and case == (92, 80):
        return tensor[list(COCO_IDS)]
    return tensor
