"""What right losses are: by kind, by set of predictions, and beside another process (spec chapter 15)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.harness.block import calling, differentiable, expectations, forward, make, parts
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Mismatch, Raised, expect
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.two_ranks import beside_other

KINDS = ("loss_class", "loss_bbox", "loss_giou")
ARITHMETIC = 2.0**-13  # what float32 may lose of a loss of some thousand terms, or of 1 - GIoU where that is 0.05
SETS = {"": "pred", "enc": "enc", "dn": "dn"}


def losses_agree(subject: Subject, case: Case, *kinds: str, of: str | None = None) -> None:
    """The losses of these kinds (all by default) lie within their limits.

    Args:
        of: only those of the encoder ("enc"), of denoising ("dn") or of the decoder layers ("").
    """
    right = expectations(subject, case, backward=False)["output"]
    compare_losses(subject, case, forward(subject, case), right.expected, right.limit, *kinds, of=of)


def compare_losses(
    subject: Subject, case: Case, got: Tensor, expected: Tensor, limit: Tensor, *kinds: str, of: str | None = None
) -> None:
    mine, right, limits = (parts(case, joined) for joined in (got, expected, limit))
    for name in right:
        kind, owner, _ = split_name(name)
        if kind in (kinds or KINDS) and of in (None, owner):
            subject.compare(name, mine[name], right[name], limits[name])


def rounded_once(subject: Subject, case: Case) -> None:
    """A loss in half precision is off by the rounding of the result, and by next to nothing else."""
    expected = expectations(subject, case, backward=False)["output"].expected
    half = torch.finfo(subject.torch_dtype)
    limit = expected.abs() * (1.01 * half.eps / 2 + ARITHMETIC) + half.tiny
    compare_losses(subject, case, forward(subject, case), expected, limit)


def split_name(name: str) -> tuple[str, str, int | None]:
    """ "loss_bbox_dn_1" -> ("loss_bbox", "dn", 1); the last layer has no number, the encoder none at all."""
    words = name.split("_")
    number = int(words[-1]) if words[-1].isdigit() else None
    owner = next((word for word in words[2:] if word in ("enc", "dn")), "")
    return "_".join(words[:2]), owner, number


def settings_provided(subject: Subject, case: Case, *kinds: str) -> None:
    """The losses agree; a target that has no such setting says so by NotImplementedError."""
    try:
        losses_agree(subject, case, *kinds)
    except Raised as raised:
        if raised.got == "NotImplementedError":
            raise NotProvided("the setting is fixed") from raised
        raise


# -- gradients ------------------------------------------------------------------------------------------------


def every_gradient(subject: Subject, case: Case) -> dict[str, dict[str, Tensor | None]]:
    """Of each loss by itself: the gradient of each set of predictions, None where there is no path to it."""
    bound, inputs = calling(subject, make(subject, case), case)
    arguments = bound.arguments(inputs)
    leaves = {n: t.requires_grad_() for n, t in arguments.items() if differentiable(subject.operation, n, t)}
    bound.call(arguments)
    found: dict[str, dict[str, Tensor | None]] = {}
    for name, loss in bound.raw.items():
        if not name.startswith("loss_"):
            continue
        if not loss.requires_grad:
            raise Mismatch(f"{name} has no gradient: it is not connected with any prediction", where=name)
        gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
        found[name] = dict(zip(leaves, gradients, strict=True))
    return found


def of_its_own_set(name: str, argument: str, gradient: Tensor) -> Tensor:
    """Which elements of a gradient belong to the predictions that a loss is about, as a mask."""
    _, owner, number = split_name(name)
    own = torch.zeros_like(gradient, dtype=torch.bool)
    if argument.split("_")[0] == SETS[owner]:
        own[... if owner == "enc" else (-1 if number is None else number)] = True
    return own


# -- beside another process -----------------------------------------------------------------------------------


def with_other_boxes(case: Case) -> tuple[Case, Case]:
    """The case itself, and that of the other process: the same predictions, `other_boxes` boxes in its first image."""
    number = int(case["other_boxes"])
    counts = torch.zeros_like(case["target_counts"])
    counts[0] = number
    boxes = case["pred_boxes"][-1, 0, :number]  # any will do
    return case, case.having(
        target_counts=counts, target_boxes=boxes, target_labels=torch.zeros(number, dtype=torch.int64)
    )


def mean_boxes_of_both(case: Case) -> float:
    return max(1.0, (int(case["target_counts"].sum()) + int(case["other_boxes"])) / 2)


def beside_another_process(subject: Subject, case: Case) -> Tensor:
    """The packed losses of process 0, while process 1 has other targets."""
    mine, theirs = with_other_boxes(case)
    result: Tensor = beside_other(lambda: forward(subject, mine), lambda: forward(subject, theirs))
    return result


def scaled_to(case: Case, joined: Tensor, class_loss: str) -> Tensor:
    """Losses of one process, divided by the mean number of boxes instead of its own; cross entropy is left."""
    factor = max(1.0, int(case["target_counts"].sum())) / mean_boxes_of_both(case)
    scaled = {
        name: part * (1.0 if split_name(name)[0] == "loss_class" and class_loss == "cross_entropy" else factor)
        for name, part in parts(case, joined).items()
    }
    return torch.stack(list(scaled.values()))


def named(subject: Subject, case: Case, names: set[str]) -> None:
    """Exactly these losses are there, as scalars of the claimed dtype."""
    bound, inputs = calling(subject, make(subject, case), case)
    bound.call(bound.arguments(inputs))
    found = {name: tensor for name, tensor in bound.raw.items() if name.startswith("loss_")}
    missing, strange = names - found.keys(), found.keys() - names
    expect(
        not missing and not strange,
        f"losses missing: {', '.join(sorted(missing)) or 'none'}; unknown: {', '.join(sorted(strange)) or 'none'}",
        expected=", ".join(sorted(names)),
        got=", ".join(sorted(found)),
    )
    for name, tensor in found.items():
        expect(tensor.shape == (), f"{name} has shape {tuple(tensor.shape)}, not that of a scalar", where=name)
        expect(tensor.dtype == subject.torch_dtype, f"{name} has dtype {tensor.dtype}", where=name)
