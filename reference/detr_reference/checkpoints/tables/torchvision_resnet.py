"""torchvision's ResNet, and timm's, which has its names: a backbone trained on ImageNet, without its classifier.

Source: torchvision, models/resnet.py. Proven by equal outputs: spec chapter 20.
"""

from __future__ import annotations

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables.resnet_names import COUNTERS, torchvision_rows

TABLE = NameTable(torchvision_rows("", ""), unused=[COUNTERS, r"fc\.(weight|bias)"])
