"""transformers' ResNet (microsoft/resnet-50 and its like), without its classifier.

Source: transformers, models/resnet/modeling_resnet.py. Proven by equal outputs: spec chapter 20.
"""

from __future__ import annotations

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables.resnet_names import COUNTERS, transformers_rows

TABLE = NameTable(transformers_rows("[resnet.|]", ""), unused=[COUNTERS, r"classifier\.1\.(weight|bias)"])
