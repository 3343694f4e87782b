"""Hungarian matching against all permutations with scalar costs; batches, ties, half precision and errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.losses.matching import focal_class_cost, hungarian_matching
from helpers.oracles import scalar_losses as oracle
from helpers.tiny.loss_batches import Predictions, Targets, boxes_of, generator_of, predictions_of, targets_of

WEIGHTS = {"cost_class": 1.5, "cost_bbox": 4.0, "cost_giou": 3.0}


def scalar_costs(
    predictions: Predictions, targets: Targets, image: int, kind: str, alpha: float, gamma: float
) -> list[list[float]]:
    """cost[query][box] of one image."""
    start = int(targets.counts[:image].sum())
    own = range(start, start + int(targets.counts[image]))
    return [
        [
            WEIGHTS["cost_class"] * oracle.class_cost(logits, int(targets.labels[t]), kind, alpha, gamma)
            + WEIGHTS["cost_bbox"] * oracle.l1(box, targets.boxes[t].tolist())
            - WEIGHTS["cost_giou"] * oracle.giou(box, targets.boxes[t].tolist())
            for t in own
        ]
        for logits, box in zip(predictions.logits[image].tolist(), predictions.boxes[image].tolist(), strict=True)
    ]


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    queries=st.integers(1, 5),
    kind=st.sampled_from(["focal", "softmax"]),
    alpha=st.sampled_from([0.25, 0.7]),
    gamma=st.sampled_from([2.0, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_no_permutation_is_cheaper(
    counts: list[int], queries: int, kind: str, alpha: float, gamma: float, seed: int
) -> None:
    generator = generator_of(seed)
    predictions, targets = predictions_of(generator, len(counts), queries), targets_of(generator, counts, 3)
    pairs = hungarian_matching(*predictions, *targets, class_cost=kind, alpha=alpha, gamma=gamma, **WEIGHTS)
    for image, count in enumerate(counts):
        own = pairs["image"] == image
        query, target = pairs["query"][own].tolist(), pairs["target"][own].tolist()
        assert len(query) == len(set(query)) == len(set(target)) == min(queries, count)
        assert query == sorted(query)
        cost = scalar_costs(predictions, targets, image, kind, alpha, gamma)
        total = sum(cost[q][t] for q, t in zip(query, target, strict=True))
        assert total == pytest.approx(oracle.cheapest(cost) if count else 0, abs=1e-9)
    assert pairs["image"].tolist() == sorted(pairs["image"].tolist())


def test_focal_cost_is_the_change_of_the_loss() -> None:
    """Making a query the positive of a class changes its focal loss by the cost, up to the 1e-8."""
    for logit in (-3.0, -0.2, 1.7):
        p = oracle.sigmoid(logit)
        change = oracle.focal_term(p, True, 0.25, 2.0) - oracle.focal_term(p, False, 0.25, 2.0)
        assert float(focal_class_cost(torch.tensor([logit], dtype=torch.float64))) == pytest.approx(change, rel=1e-6)


def test_images_do_not_see_each_other() -> None:
    generator = generator_of(1)
    predictions, targets = predictions_of(generator, 3, 6), targets_of(generator, (3, 0, 5))
    together = hungarian_matching(*predictions, *targets)
    start = 0
    for image, count in enumerate(targets.counts.tolist()):
        alone = hungarian_matching(
            predictions.logits[image : image + 1],
            predictions.boxes[image : image + 1],
            targets.labels[start : start + count],
            targets.boxes[start : start + count],
            targets.counts[image : image + 1],
        )
        own = together["image"] == image
        assert torch.equal(together["query"][own], alone["query"])
        assert torch.equal(together["target"][own], alone["target"])
        start += count


def test_no_boxes() -> None:
    generator = generator_of(2)
    pairs = hungarian_matching(*predictions_of(generator, 2, 3), *targets_of(generator, (0, 0)))
    assert {name: tensor.shape for name, tensor in pairs.items()} == dict.fromkeys(("image", "query", "target"), (0,))
    assert all(tensor.dtype == torch.int64 for tensor in pairs.values())


def test_equal_predictions_are_shared_out() -> None:
    generator = generator_of(3)
    logits, boxes = predictions_of(generator, 1, 1)
    pairs = hungarian_matching(logits.expand(1, 4, -1), boxes.expand(1, 4, -1), *targets_of(generator, (3,)))
    assert sorted(pairs["target"].tolist()) == [0, 1, 2]


def test_boxes_without_area() -> None:
    generator = generator_of(4)
    predictions, targets = predictions_of(generator, 1, 3), targets_of(generator, (2,))
    predictions.boxes[0, 1, 2:] = 0
    targets.boxes[0] = predictions.boxes[0, 1]
    pairs = hungarian_matching(*predictions, *targets, cost_class=0.0)
    assert dict(zip(pairs["target"].tolist(), pairs["query"].tolist(), strict=True))[0] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_matched_as_float32(dtype: torch.dtype) -> None:
    generator = generator_of(5)
    predictions, targets = predictions_of(generator, 2, 40), targets_of(generator, (20, 15))
    logits, boxes = (tensor.to(dtype) for tensor in predictions)
    half = hungarian_matching(logits, boxes, targets.labels, targets.boxes.to(dtype), targets.counts)
    wide = hungarian_matching(
        logits.float(), boxes.float(), targets.labels, targets.boxes.to(dtype).float(), targets.counts
    )
    assert all(torch.equal(half[name], wide[name]) for name in half)


def test_saturated_logits_have_finite_costs() -> None:
    cost = focal_class_cost(torch.tensor([-200.0, -40.0, 40.0, 200.0]))
    assert cost.isfinite().all()
    assert float(cost[0]) == pytest.approx(0.25 * 18.42, rel=1e-3)  # -log(1e-8) = 18.42
    assert float(cost[-1]) == pytest.approx(-0.75 * 18.42, rel=1e-3)


def test_no_graph() -> None:
    generator = generator_of(6)
    predictions, targets = predictions_of(generator, 1, 4), targets_of(generator, (2,))
    for tensor in predictions:
        tensor.requires_grad_()
    assert not any(tensor.requires_grad for tensor in hungarian_matching(*predictions, *targets).values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes"])
def test_not_finite(name: str, value: float) -> None:
    generator = generator_of(7)
    predictions, targets = predictions_of(generator, 2, 4), targets_of(generator, (0, 0))
    broken = predictions.logits if name == "pred_logits" else predictions.boxes
    broken[1, 3, 2] = value
    with pytest.raises(
        ValueError, match=rf"{name} of image 1, query 3 are not finite: .*; 1 of 8 queries are affected"
    ):
        hungarian_matching(*predictions, *targets)


def test_targets_not_finite() -> None:
    generator = generator_of(8)
    predictions, targets = predictions_of(generator, 1, 4), targets_of(generator, (2,))
    targets.boxes[1] = 1e300
    with pytest.raises(ValueError, match=r"cost of query 0 and target 1 of image 0 is (inf|nan); is the target's box"):
        hungarian_matching(*predictions, *targets)


def replaced(targets: Targets, **changes: Tensor) -> Targets:
    return targets._replace(**changes)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    generator = generator_of(9)
    predictions, targets = predictions_of(generator, 2, 4), targets_of(generator, (2, 1))
    with pytest.raises(ValueError, match=r"class_cost must be one of \('focal', 'softmax'\), got 'sigmoid'"):
        hungarian_matching(*predictions, *targets, class_cost="sigmoid")
    with pytest.raises(ValueError, match=r"pred_boxes \(batch, query, 4\), got \(2, 4, 4\) and \(2, 3, 4\)"):
        hungarian_matching(predictions.logits, boxes_of(generator, 2, 3), *targets)
    with pytest.raises(
        ValueError, match=r"target_counts \[2, 2\] ask for 4 labels and boxes, got target_labels \(3,\)"
    ):
        hungarian_matching(*predictions, *replaced(targets, counts=torch.tensor([2, 2])))
    with pytest.raises(ValueError, match=r"target_counts must be \(batch,\) = \(2,\), got \(3,\)"):
        hungarian_matching(*predictions, *replaced(targets, counts=torch.tensor([2, 1, 0])))
    with pytest.raises(ValueError, match=r"must not be negative, got \[4, -1\]"):
        hungarian_matching(*predictions, *replaced(targets, counts=torch.tensor([4, -1])))
    with pytest.raises(ValueError, match=r"target_labels\[0\] is -1, but classes are numbered from 0 to 3"):
        hungarian_matching(*predictions, *replaced(targets, labels=torch.tensor([-1, 0, 1])))
    with pytest.raises(TypeError, match=r"target_labels must be int64, got torch.int32"):
        hungarian_matching(*predictions, *replaced(targets, labels=targets.labels.int()))
