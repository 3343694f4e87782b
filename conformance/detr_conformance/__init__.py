"""The conformance suite of detr-spec: describe an implementation as a Target, then `detr-spec check` it."""

from detr_conformance.stages import STAGES
from detr_conformance.target import Target, TargetError

__all__ = ["STAGES", "Target", "TargetError"]
