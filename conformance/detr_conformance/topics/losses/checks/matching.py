"""What a right assignment is: one to one, and no dearer than the cheapest (spec chapter 15)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_conformance.harness.block import outputs
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case, digest_of
from detr_conformance.harness.mismatch import Mismatch, expect
from detr_conformance.harness.subject import Subject
from detr_reference.losses.batch_targets import BatchTargets
from detr_reference.losses.matching import giou_cost, l1_cost

KEYS = ("image", "query", "target")
REMEMBERED = 2000
_costs: OrderedDict[tuple[str, torch.dtype], list[Tensor]] = OrderedDict()
WORSE = 4.0  # how many times the error of a naive computation the cost of a pair may be wrong by


def targets_of(case: Case) -> BatchTargets:
    return BatchTargets(case["target_labels"], case["target_boxes"], case["target_counts"])


def costs(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The cost of each query and target of each image, computed in this dtype throughout, as plainly as may be."""
    key = (digest_of(case), dtype)
    if key not in _costs:
        _costs[key] = _computed(case, dtype)
        if len(_costs) > REMEMBERED:
            _costs.popitem(last=False)
    return _costs[key]


def _computed(case: Case, dtype: torch.dtype) -> list[Tensor]:
    settings, targets = settings_of(case), targets_of(case)
    logits, boxes = case["pred_logits"].to(dtype), case["pred_boxes"].to(dtype)
    if settings["class_cost"] == "focal":
        classes = _focal_cost(logits, settings.get("alpha", 0.25), settings.get("gamma", 2.0))
    else:
        classes = -logits.softmax(-1)
    found = []
    for image in range(len(logits)):
        labels, own = targets.of_image(image)
        own = own.to(dtype)
        found.append(
            settings["cost_class"] * classes[image][:, labels]
            + settings["cost_bbox"] * l1_cost(boxes[image], own)
            + settings["cost_giou"] * giou_cost(boxes[image], own, settings.get("giou_eps", 0.0))
        )
    return found


def _focal_cost(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """The formula with 1 - p, which many write; in half precision and where p is near 1 that is only roughly so."""
    p = logits.sigmoid()
    positive = alpha * (1 - p) ** gamma * -(p + 1e-8).log()
    return positive - (1 - alpha) * p**gamma * -(1 - p + 1e-8).log()


def cheapest(cost: Tensor) -> float:
    """Total cost of the cheapest assignment."""
    query, target = linear_sum_assignment(cost.numpy())
    return float(cost[query, target].sum())


def dearer(case: Case, others: list[Tensor]) -> float:
    """How much more, in some image, the assignment costs that is the cheapest under other costs."""
    found = [0.0]
    for cost, other in zip(costs(case), others, strict=True):
        query, target = linear_sum_assignment(other.numpy())
        found.append(float(cost[query, target].sum()) - cheapest(cost))
    return max(found)


def margin(cost: Tensor) -> float:
    """How much dearer the second cheapest assignment is; infinity where there is none."""
    query, target = linear_sum_assignment(cost.numpy())
    best, found = float(cost[query, target].sum()), torch.inf
    for place in zip(query, target, strict=True):
        without = cost.clone()
        without[place] = 1e6
        second = cheapest(without)
        if second < 1e5:
            found = min(found, second - best)
    return found


def pairs_of(subject: Subject, case: Case) -> dict[str, Tensor]:
    """The target's pairs on the CPU, of the form that HM-2 asks for."""
    found = outputs(subject, case)
    expect(
        set(KEYS) <= set(found), f"the result has {', '.join(found)}", expected=", ".join(KEYS), got=", ".join(found)
    )
    for name in KEYS:
        tensor = found[name]
        expect(isinstance(tensor, Tensor), f"{name} is a {type(tensor).__name__}, not a tensor", where=name)
        expect(tensor.dtype == torch.int64, f"{name} has dtype {tensor.dtype}", where=name, expected="int64")
        expect(tensor.shape == found["image"].shape and tensor.ndim == 1, f"{name} has shape {tuple(tensor.shape)}")
    return {name: found[name].cpu() for name in KEYS}


def one_to_one(case: Case, pairs: dict[str, Tensor]) -> None:
    """min(queries, boxes) pairs in each image, of queries and boxes that occur once, and exist."""
    batch, queries = case["pred_logits"].shape[:2]
    expect(bool(((pairs["image"] >= 0) & (pairs["image"] < batch)).all()), "a pair's image is not in the batch")
    for image, count in enumerate(case["target_counts"].tolist()):
        own = pairs["image"] == image
        wanted = min(queries, count)
        expect(
            int(own.sum()) == wanted,
            f"image {image} with {queries} queries and {count} boxes has {int(own.sum())} pairs",
            expected=str(wanted),
            got=str(int(own.sum())),
        )
        for name, limit in (("query", queries), ("target", count)):
            index = pairs[name][own]
            told = f"image {image} has the {name} indices {index.tolist()}"
            expect(bool(((index >= 0) & (index < limit)).all()), f"{told}, of {limit}", where=name)
            expect(index.unique().numel() == index.numel(), f"{told}, one of them twice", where=name)


def is_cheapest(subject: Subject, case: Case, precise: bool = False) -> None:
    """The assignment costs no more than the cheapest one, up to what rounding may hide."""
    of_least_cost(subject, case, pairs_of(subject, case), precise)


def of_least_cost(subject: Subject, case: Case, pairs: dict[str, Tensor], precise: bool = False) -> None:
    """So do these pairs."""
    one_to_one(case, pairs)
    exact, allowed = costs(case), _allowed(subject, case, precise)
    for image, (cost, limit) in enumerate(zip(exact, allowed, strict=True)):
        own = pairs["image"] == image
        total = cost[pairs["query"][own], pairs["target"][own]].sum()
        best = torch.tensor(cheapest(cost), dtype=torch.float64)
        try:
            subject.compare(f"total cost of image {image}", total, best, limit)
        except Mismatch as mismatch:
            query, target = linear_sum_assignment(cost.numpy())
            mismatch.detail = f"a cheapest assignment is queries {query.tolist()} to boxes {target.tolist()}"
            raise


def _allowed(subject: Subject, case: Case, precise: bool) -> list[Tensor]:
    """An assignment that is the cheapest under costs off by e may truly cost 2 e a pair more than the cheapest.

    e is measured: the worst error, for each box, of costs computed throughout in the dtype in question.
    """
    dtype = torch.float32 if precise or subject.dtype == "float64" else subject.torch_dtype
    unit = torch.finfo(dtype).eps / 2
    limits = []
    for cost, rounded in zip(costs(case), costs(case, dtype), strict=True):
        error = (rounded.double() - cost).abs().nan_to_num(nan=20.0, posinf=20.0).clamp(max=20.0)
        error = error + unit * (cost.abs() + 1)
        worst = error.max(0).values if cost.numel() else cost.new_zeros(1)
        limits.append(2 * WORSE * worst.sum())
    return limits
