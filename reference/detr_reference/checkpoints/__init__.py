"""Checkpoints of published detectors and backbones, read into the parameters of the reference.

    model = DETR(DETRConfig())
    model.load_state_dict(load_checkpoint("detr-r50-e632da11.pth", model))

What is read, and how each map was proven: spec chapter 20.
"""

from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.checkpoints.formats import FORMATS, detect_format
from detr_reference.checkpoints.loading import converted, load_checkpoint

__all__ = ["FORMATS", "CheckpointError", "converted", "detect_format", "load_checkpoint"]
