"""The detection losses against scalar oracles; counts, normalisers, denoising, gradients, half precision and errors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.denoising.contrastive_denoising import contrastive_denoising
from detr_reference.denoising.denoising_pairs import denoising_pairs
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from detr_reference.losses.matching import hungarian_matching
from helpers.oracles import scalar_losses as oracle
from helpers.tiny.loss_batches import Predictions, Targets, generator_of, predictions_of, targets_of

COUNTS = (2, 0, 3)
KINDS = ("loss_class", "loss_bbox", "loss_giou")


def scalar_losses(
    predictions: Predictions,
    targets: Targets,
    pairs: Mapping[str, Tensor],
    number: float,
    *,
    entropy: float | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    asked: Tensor | None = None,
) -> tuple[float, float, float]:
    """class, L1 and GIoU loss of these pairs; cross entropy with this weight of no object, otherwise focal."""
    starts = (targets.counts.cumsum(0) - targets.counts).tolist()
    of_query = {
        (image, query): starts[image] + target
        for image, query, target in zip(*(pairs[name].tolist() for name in ("image", "query", "target")), strict=True)
    }
    places = [
        (image, query)
        for image in range(predictions.logits.shape[0])
        for query in range(predictions.logits.shape[1])
        if asked is None or asked[image, query]
    ]
    logits = [predictions.logits[place].tolist() for place in places]
    classes = [int(targets.labels[of_query[place]]) if place in of_query else None for place in places]
    boxes = [(predictions.boxes[place].tolist(), targets.boxes[box].tolist()) for place, box in of_query.items()]
    of_classes = (
        oracle.focal_loss(logits, classes, alpha, gamma) / number
        if entropy is None
        else oracle.cross_entropy(logits, classes, entropy)
    )
    return (
        of_classes,
        sum(oracle.l1(*each) for each in boxes) / number,
        sum(1 - oracle.giou(*each) for each in boxes) / number,
    )


def assert_set(losses: Mapping[str, Tensor], suffix: str, expected: tuple[float, float, float]) -> None:
    for kind, value in zip(KINDS, expected, strict=True):
        assert float(losses[kind + suffix]) == pytest.approx(value, rel=1e-9, abs=1e-12), kind + suffix


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    queries=st.integers(1, 4),
    focal=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_decoder_layers(counts: list[int], queries: int, focal: bool, seed: int) -> None:
    """Each layer has the losses of its own cheapest assignment, the last one without a number."""
    generator = generator_of(seed)
    predictions = predictions_of(generator, 2, len(counts), queries)
    targets = targets_of(generator, counts, 4 if focal else 3)
    settings = {"alpha": 0.4, "gamma": 1.5} if focal else {"class_loss": "cross_entropy", "no_object_weight": 0.3}
    losses = detection_losses(*predictions, *targets, **settings)
    assert set(losses) == {kind + suffix for kind in KINDS for suffix in ("", "_0")}
    for suffix, layer in (("_0", 0), ("", 1)):
        own = Predictions(predictions.logits[layer], predictions.boxes[layer])
        cost = {"alpha": 0.4, "gamma": 1.5} if focal else {"class_cost": "softmax"}
        pairs = hungarian_matching(*own, *targets, **cost)
        extra = {"alpha": 0.4, "gamma": 1.5} if focal else {"entropy": 0.3}
        assert_set(losses, suffix, scalar_losses(own, targets, pairs, max(1, sum(counts)), **extra))


@pytest.mark.parametrize("encoder_targets", ["classes", "objectness"])
def test_encoder(encoder_targets: str) -> None:
    generator = generator_of(1)
    predictions, encoder = predictions_of(generator, 1, 3, 5), predictions_of(generator, 3, 7)
    targets = targets_of(generator, COUNTS)
    asked = targets
    if encoder_targets == "objectness":
        asked = targets._replace(labels=torch.zeros_like(targets.labels))
    losses = detection_losses(*predictions, *targets, *encoder, encoder_targets=encoder_targets)
    assert_set(losses, "_enc", scalar_losses(encoder, asked, hungarian_matching(*encoder, *asked), sum(COUNTS)))
    without = detection_losses(*predictions, *targets)
    assert all(torch.equal(losses[kind], without[kind]) for kind in KINDS)  # the labels are the decoder's again


@pytest.mark.parametrize("contrastive", [True, False])
@pytest.mark.parametrize("padded_slots", ["background", "ignored"])
def test_denoising(contrastive: bool, padded_slots: str) -> None:
    """Box t of group g is in slot g * size + t; the oracle writes the pairs out."""
    groups, most = 3, max(COUNTS)
    size = most * (1 + contrastive)
    generator = generator_of(2)
    predictions, slots = predictions_of(generator, 2, 3, 4), predictions_of(generator, 2, 3, groups * size)
    targets = targets_of(generator, COUNTS)
    losses = detection_losses(
        *predictions,
        *targets,
        dn_logits=slots.logits,
        dn_boxes=slots.boxes,
        contrastive=contrastive,
        padded_slots=padded_slots,
    )
    table = [(i, g * size + t, t) for i, count in enumerate(COUNTS) for g in range(groups) for t in range(count)]
    pairs = dict(zip(("image", "query", "target"), torch.tensor(table).unbind(1), strict=True))
    asked = torch.tensor([[slot % most < count for slot in range(groups * size)] for count in COUNTS])
    for suffix, layer in (("_dn_0", 0), ("_dn", 1)):
        own = Predictions(slots.logits[layer], slots.boxes[layer])
        expected = scalar_losses(
            own, targets, pairs, sum(COUNTS) * groups, asked=asked if padded_slots == "ignored" else None
        )
        assert_set(losses, suffix, expected)


def test_pairs_are_those_of_the_denoising_queries() -> None:
    """Without noise a positive's reference is its box, and its content the embedding of its label."""
    targets = targets_of(generator_of(3), COUNTS)
    embedding = torch.eye(4, dtype=torch.float64)
    queries = contrastive_denoising(
        *targets, embedding, num_queries=5, denoising_number=9, label_noise_ratio=0.0, box_noise_scale=0.0
    )
    known = denoising_pairs(targets.counts, queries["content"].shape[1])
    assert known.groups == 3
    place = known.pairs["image"], known.pairs["query"]
    box = (targets.counts.cumsum(0) - targets.counts)[known.pairs["image"]] + known.pairs["target"]
    assert torch.equal(queries["content"][place].argmax(-1), targets.labels[box])
    torch.testing.assert_close(queries["references"][place].sigmoid(), targets.boxes[box], rtol=0, atol=1e-9)
    assert torch.equal(queries["content"].any(-1), known.holds_box)


def dino(layers: int = 6) -> dict[str, Tensor]:
    generator = generator_of(4)
    targets = targets_of(generator, COUNTS)
    return detection_losses(
        *predictions_of(generator, layers, 3, 5),
        *targets,
        *predictions_of(generator, 3, 5),
        *predictions_of(generator, layers, 3, 2 * 2 * max(COUNTS)),
    )


def test_dino_has_39_terms() -> None:
    """Three losses of six decoder layers, of the encoder, and of six layers of denoising queries."""
    losses = dino()
    assert len(losses) == 3 * (6 + 1 + 6) == 39
    assert [name for name in losses if name.startswith("loss_bbox")] == [
        "loss_bbox",
        *(f"loss_bbox_{layer}" for layer in range(5)),
        "loss_bbox_enc",
        "loss_bbox_dn",
        *(f"loss_bbox_dn_{layer}" for layer in range(5)),
    ]


def test_weighted_total() -> None:
    losses = dino(2)
    sums = {kind: sum(float(loss) for name, loss in losses.items() if name.startswith(kind)) for kind in KINDS}
    expected = sums["loss_class"] + 5 * sums["loss_bbox"] + 2 * sums["loss_giou"]
    assert float(weighted_total(losses)) == pytest.approx(expected, rel=1e-12)
    deformable = weighted_total(losses, {"loss_class": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0})
    assert float(deformable) == pytest.approx(expected + sums["loss_class"], rel=1e-12)
    with pytest.raises(KeyError, match="loss_giou"):
        weighted_total(losses, {"loss_class": 1.0, "loss_bbox": 1.0})


@pytest.mark.parametrize("class_loss", ["focal", "cross_entropy"])
def test_no_boxes(class_loss: str) -> None:
    """Finite, connected, zero gradients of boxes; with no denoising slots too."""
    generator = generator_of(5)
    predictions, slots = predictions_of(generator, 2, 2, 3), predictions_of(generator, 2, 2, 0)
    leaves = [tensor.requires_grad_() for tensor in (*predictions, *slots)]
    losses = detection_losses(
        *predictions,
        *targets_of(generator, (0, 0)),
        dn_logits=slots.logits,
        dn_boxes=slots.boxes,
        class_loss=class_loss,
    )
    assert all(loss.requires_grad and loss.isfinite() for loss in losses.values())
    assert all(losses[name] == 0 for name in losses if "bbox" in name or "giou" in name or "dn" in name)
    gradients = torch.autograd.grad(weighted_total(losses), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].all()
    assert not gradients[1].any()


def test_gradients() -> None:
    generator = generator_of(6)
    predictions, targets = predictions_of(generator, 1, 2, 4), targets_of(generator, (2, 1), 3)
    for class_loss in ("focal", "cross_entropy"):

        def total(logits: Tensor, boxes: Tensor, class_loss: str = class_loss) -> Tensor:
            return weighted_total(detection_losses(logits, boxes, *targets, class_loss=class_loss))

        assert torch.autograd.gradcheck(total, [tensor.clone().requires_grad_() for tensor in predictions])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    generator = generator_of(7)
    predictions, targets = predictions_of(generator, 1, 2, 50), targets_of(generator, (5, 3))
    logits, boxes, target_boxes = (t.to(dtype) for t in (*predictions, targets.boxes))
    half = detection_losses(logits, boxes, targets.labels, target_boxes, targets.counts)
    wide = detection_losses(logits.float(), boxes.float(), targets.labels, target_boxes.float(), targets.counts)
    assert all(torch.equal(half[name], wide[name].to(dtype)) for name in half)


def test_not_finite_names_the_layer() -> None:
    generator = generator_of(8)
    predictions, targets = predictions_of(generator, 3, 2, 4), targets_of(generator, (2, 1))
    predictions.logits[1, 0, 2, 0] = torch.nan
    with pytest.raises(ValueError, match=r"no loss_class_1: pred_logits of image 0, query 2 are not finite"):
        detection_losses(*predictions, *targets)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    generator = generator_of(9)
    predictions, targets = predictions_of(generator, 1, 2, 4), targets_of(generator, (2, 1), 4)
    slots = predictions_of(generator, 1, 2, 6)
    with pytest.raises(ValueError, match=r"class_loss must be one of .* got 'softmax'"):
        detection_losses(*predictions, *targets, class_loss="softmax")
    with pytest.raises(ValueError, match=r"no_object_weight must be positive, got 0"):
        detection_losses(*predictions, *targets, no_object_weight=0)
    with pytest.raises(ValueError, match=r"encoder_targets must be one of .* got 'class'"):
        detection_losses(*predictions, *targets, encoder_targets="class")
    with pytest.raises(ValueError, match=r"padded_slots must be one of .* got 'no'"):
        detection_losses(*predictions, *targets, padded_slots="no")
    with pytest.raises(ValueError, match=r"dn_logits and dn_boxes must be given together"):
        detection_losses(*predictions, *targets, dn_logits=slots.logits)
    with pytest.raises(ValueError, match=r"enc_logits must be \(batch, token, class\) .* got \(1, 2, 6, 4\)"):
        detection_losses(*predictions, *targets, *slots)
    with pytest.raises(ValueError, match=r"6 denoising queries are no whole number of groups: .* a group has 4"):
        detection_losses(*predictions, *targets, dn_logits=slots.logits, dn_boxes=slots.boxes)
    with pytest.raises(ValueError, match=r"target_labels\[\d\] is 3, but classes are numbered from 0 to 2"):
        detection_losses(*predictions, *targets._replace(labels=torch.tensor([3, 0, 1])), class_loss="cross_entropy")
