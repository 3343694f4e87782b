"""The kernel's forward without its backward: plain PyTorch, differentiated, compiled and exported as it is."""

from __future__ import annotations

from torch import Tensor

from detr_conformance.evidence.registry import DEFAULT_FEATURES, twin
from detr_conformance.topics.deformable_attention.mutants.kernel import Call, Kernel

CAPTURED = (*DEFAULT_FEATURES, "compile", "export")


@twin("autograd-gather", origin="rziga/msda-triton, torch_reference.py", features=CAPTURED)
class PlainGather(Kernel):
    """Gathers four corners a sample and leaves the gradients to autograd."""

    def run(self, call: Call) -> Tensor:
        return self.forward(call)
