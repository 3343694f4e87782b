"""How far from the formula right references, proposals and boxes may be (spec chapter 11, "Limits")."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.harness.block import forward, parts
from detr_conformance.harness.block_case import inputs_of, reference_callable, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.subject import Subject
from detr_reference.queries.box_refinement import inverse_sigmoid
from detr_reference.queries.two_stage_proposals import HIGH, LOW, cell_boxes


def right(subject: Subject, case: Case) -> Tensor:
    """The reference in float64; of several outputs all, packed."""
    inputs = {
        name: t.double() if t.is_floating_point() else t for name, t in inputs_of(subject.operation, case).items()
    }
    output: Tensor = reference_callable(subject.operation, case, torch.float64)(*inputs.values())
    return output


def references_agree(subject: Subject, case: Case, precise: bool = False) -> None:
    expected = right(subject, case)
    limit = limit_of(subject, expected, 6 * expected.abs(), precise)
    subject.compare("output", forward(subject, case), expected, limit)


def boxes_right(subject: Subject, case: Case, precise: bool = False) -> Expectation:
    """Boxes of `refine_boxes`."""
    expected, eps = right(subject, case), settings_of(case).get("eps", 1e-3)
    logit = inverse_sigmoid(case["reference"].double(), eps)
    logit = torch.nn.functional.pad(logit, (0, 4 - logit.shape[-1]))
    corrected = (case["delta"].double() + logit).abs().nan_to_num(posinf=0.0)  # infinite ones are exact
    roundings = expected * (1 - expected) * (6 + 6 * logit.abs() + 2 * corrected) + 4 * expected
    # 1/2 + tanh(z / 2) / 2 is a float32 sigmoid as well, and its roundings do not shrink with the result
    float32 = 0.0 if precise and subject.dtype == "float64" else torch.finfo(torch.float32).eps / 2
    return Expectation(expected, limit_of(subject, expected, roundings, precise) + float32)


def boxes_agree(subject: Subject, case: Case, precise: bool = False) -> None:
    wanted = boxes_right(subject, case, precise)
    subject.compare("output", forward(subject, case), wanted.expected, wanted.limit)


def proposals_right(case: Case) -> tuple[Tensor, Tensor]:
    """(boxes, invalid) in float64: (batch, cell, 4), and (batch, cell)."""
    mask = case["memory_key_padding_mask"]
    boxes = cell_boxes(~mask, case["spatial_shapes"], torch.float64)
    return boxes, mask | ~((boxes > LOW) & (boxes < HIGH)).all(-1)


def doubtful(subject: Subject, case: Case, precise: bool = False) -> Tensor:
    """Cells, (batch, cell), that rounding alone may take for valid or for invalid."""
    boxes, _ = proposals_right(case)
    near = [(boxes - bound).abs() <= 4 * unit_of(subject, precise) * boxes for bound in (LOW, HIGH)]
    return (near[0] | near[1]).any(-1) & ~case["memory_key_padding_mask"]


def proposals_agree(subject: Subject, case: Case, precise: bool = False, memory: bool = True) -> None:
    """Both outputs are right, but where rounding decides about validity; there they agree with each other."""
    got = parts(case, forward(subject, case).detach().cpu())
    boxes, invalid = proposals_right(case)
    open_to_doubt = doubtful(subject, case, precise)
    said = got["proposals"].isinf().all(-1)
    invalid = torch.where(open_to_doubt, said, invalid)[..., None]
    logits = torch.log(boxes / (1 - boxes))
    roundings = 4 / (1 - boxes) + 3 + 2 * logits.abs()
    expected = logits.masked_fill(invalid, torch.inf)
    limit = limit_of(subject, expected, roundings, precise).masked_fill(invalid, 0)
    subject.compare("proposals", got["proposals"], expected, limit)
    if memory:
        subject.compare_exactly("memory", got["memory"], case["memory"].masked_fill(invalid, 0))


def unit_of(subject: Subject, precise: bool = False) -> float:
    """Unit round-off of the arithmetic that a clause is content with."""
    wide = precise or subject.dtype == "float64"
    return torch.finfo(torch.float32 if wide else subject.torch_dtype).eps / 2


def limit_of(subject: Subject, expected: Tensor, roundings: Tensor, precise: bool) -> Tensor:
    """So many round-offs of the arithmetic, and one of the result."""
    result = torch.finfo(subject.torch_dtype)
    once = 1.01 * result.eps / 2 * expected.abs() + result.smallest_normal * result.eps
    return unit_of(subject, precise) * roundings + once
