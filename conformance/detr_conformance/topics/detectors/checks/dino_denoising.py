"""DINO's denoising queries as chapter 13 looks at them, read off the predictions of a training call."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detr_conformance.harness.block import seeded
from detr_conformance.harness.block_case import call_with, inputs_of, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.topics.denoising.checks.queries import Queries, arranged, round_off
from detr_conformance.topics.detectors.cases.dino_denoising import logits_of_labels

ROUNDINGS = 64.0  # of logits and sigmoids on the way from a reference to a prediction
NEAR = 0.05  # how far logits may be from those of a label, as a share of the distance to the next one's


def denoising_queries(subject: Subject, case: Case, found: Mapping[str, Tensor]) -> Queries:
    """What a call of a readable model says of its denoising queries."""
    for name in ("dn_boxes", "dn_logits"):
        expect(name in found, f"in training with targets there is no {name}", where=name)
    boxes, logits = (found[name][0].detach().cpu().double() for name in ("dn_boxes", "dn_logits"))
    labels = _labels(case, logits)
    classes = settings_of(case)["num_classes"]
    rows = torch.eye(classes, dtype=torch.float64)
    shown = case.having(label_embedding=rows)
    seen = arranged(subject, shown, {"content": rows[labels], "references": boxes.logit()})
    return Queries(**{**vars(seen), "slack": ROUNDINGS * round_off(subject), "scale": _scale(case)})


def _scale(case: Case) -> float:
    return float(settings_of(case).get("box_noise_scale", 1.0))


def _labels(case: Case, logits: Tensor) -> Tensor:
    """The label whose content predicts these logits; empty slots hold none, and are not asked about."""
    own = logits_of_labels(case)
    apart = torch.cdist(own, own).fill_diagonal_(torch.inf).min()
    distance, label = torch.cdist(logits.flatten(0, 1), own).min(-1)
    strange = (distance > NEAR * apart).view(logits.shape[:2]) & _held(case, logits.shape[1])
    expect(
        not strange.any(),
        f"{int(strange.sum())} denoising queries predict what the content of no label does",
        where="dn_logits",
    )
    return label.view(logits.shape[:2])


def _held(case: Case, queries: int) -> Tensor:
    """(image, query): whether it is made of a box."""
    counts = case["target_counts"]
    return torch.arange(queries) % int(counts.max()) < counts[:, None]


def labels_reached(subject: Subject, case: Case, module: torch.nn.Module, table: Tensor) -> list[list[list[set[int]]]]:
    """By image, group (some of them) and query: the rows of the label embedding that its logits depend on."""
    inputs = {name: tensor.to(subject.device) for name, tensor in inputs_of(subject.operation, case).items()}
    with seeded(subject), explained("the call"):
        logits = call_with(subject.operation, module, inputs)["dn_logits"][-1]
    counts = case["target_counts"].tolist()
    most = max(counts)
    groups = logits.shape[1] // (2 * most)
    some = sorted({0, 1, 2, 3, groups // 2, groups - 2, groups - 1} & set(range(groups)))
    weights = torch.linspace(0.5, 1.5, logits.shape[-1], dtype=logits.dtype, device=logits.device)
    found: list[list[list[set[int]]]] = []
    for image, count in enumerate(counts):
        found.append([])
        for group in some:
            slots = [group * 2 * most + kind * most + slot for kind in range(2) for slot in range(count)]
            found[-1].append([_rows(logits[image, slot] @ weights, table) for slot in slots])
    return found


def _rows(output: Tensor, table: Tensor) -> set[int]:
    (gradient,) = torch.autograd.grad(output, [table], retain_graph=True, allow_unused=True)
    return set() if gradient is None else set(gradient.abs().amax(-1).nonzero().flatten().tolist())
