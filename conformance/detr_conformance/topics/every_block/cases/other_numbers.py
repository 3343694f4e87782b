"""A case again with other numbers in the same shapes: what chapter 3 calls an implementation with a second time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from detr_conformance.harness.block import differentiable
from detr_conformance.harness.block_case import PARAMETER, inputs_of, trained
from detr_conformance.harness.case import Case
from detr_conformance.topics.detectors.cases.postprocess import other_numbers as other_detections
from detr_conformance.topics.losses.cases.losses import other_numbers as other_losses

# Where halves of the first numbers will not do: inputs -> those that change.
OWN: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "postprocess": other_detections,
    "detection_losses": other_losses,
}
TURNED = {"mask", "mask_l", "valid_ratios"}  # of the images of a batch; and what is called "..._mask"


def other_numbers(operation: str, case: Case) -> Case:
    """The same parameters; the inputs turned round and scaled, masks turned round."""
    inputs = inputs_of(operation, case)
    if operation in OWN:
        return case.having(**OWN[operation](inputs))
    changed = {name: t.flip(0) * 0.5 for name, t in inputs.items() if differentiable(operation, name, t)}
    changed |= {name: t.flip(0) for name, t in inputs.items() if name in TURNED or name.endswith("_mask")}
    return case.having(**changed)


def other_parameters(operation: str, case: Case) -> Case:
    """The same inputs; every trained parameter turned round and scaled."""
    names = [PARAMETER + name for name in trained(operation, case)]
    return case.having(**{name: case[name].flip(0) * 0.75 for name in names})
