"""Mutants of the labels of denoising queries (CDN-9 to CDN-13)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.denoising.mutants.contrastive_denoising import DenoisingByHand, Labels, Sizes


@mutant(
    "denoising-content-of-the-true-label",
    rejects="CDN-10",
    operation="contrastive_denoising",
    origin="the noised copy is made, and the original embedded",
)
class ContentOfTheTrueLabel(DenoisingByHand):
    """Never changes a label."""

    def chosen(self, shape: torch.Size, ratio: float) -> Bool[Tensor, "group kind box"]:
        return torch.zeros(shape, dtype=torch.bool)


@mutant(
    "denoising-embedding-smoothed",
    rejects="CDN-9",
    operation="contrastive_denoising",
    origin="label smoothing in place of label noise",
)
class EmbeddingSmoothed(DenoisingByHand):
    """Mixes the row with a share of the mean of all."""

    def rows(self, label_embedding: Tensor, labels: Labels) -> Float[Tensor, "group kind box embed"]:
        return torch.lerp(label_embedding, label_embedding.mean(0, keepdim=True), 0.1)[labels]


@mutant(
    "denoising-one-hot-product",
    rejects="CDN-9",
    operation="contrastive_denoising",
    origin="one_hot(labels) @ weight under autocast, as exports to ONNX do it",
)
class OneHotProduct(DenoisingByHand):
    """Looks rows up by a product in bfloat16."""

    def rows(self, label_embedding: Tensor, labels: Labels) -> Float[Tensor, "group kind box embed"]:
        coarse = torch.float16 if label_embedding.dtype == torch.bfloat16 else torch.bfloat16
        return torch.nn.functional.one_hot(labels, len(label_embedding)).to(coarse) @ label_embedding.to(coarse)


@mutant(
    "denoising-labels-without-half",
    rejects="CDN-10",
    operation="contrastive_denoising",
    origin="p < label_noise_ratio, as in DN-DETR",
)
class LabelsWithoutHalf(DenoisingByHand):
    """Draws labels with probability ratio."""

    def probability(self, ratio: float) -> float:
        return ratio


@mutant(
    "denoising-labels-of-positives-kept",
    rejects="CDN-10",
    operation="contrastive_denoising",
    origin="label noise for negatives only",
)
class LabelsOfPositivesKept(DenoisingByHand):
    """Draws no labels for positives."""

    def chosen(self, shape: torch.Size, ratio: float) -> Bool[Tensor, "group kind box"]:
        chosen = super().chosen(shape, ratio)
        chosen[:, 0] = False
        return chosen


@mutant(
    "denoising-labels-always-others",
    rejects="CDN-10",
    operation="contrastive_denoising",
    origin="(label + randint(1, C)) % C",
)
class LabelsAlwaysOthers(DenoisingByHand):
    """Never draws the true label again."""

    def drawn(self, labels: Int[Tensor, " chosen"], classes: int) -> Int[Tensor, " chosen"]:
        return (labels + torch.randint_like(labels, 1, classes)) % classes


@mutant(
    "denoising-labels-without-the-last",
    rejects="CDN-11",
    operation="contrastive_denoising",
    origin="randint(0, C - 1), the upper end taken for inclusive",
)
class LabelsWithoutTheLast(DenoisingByHand):
    """Never draws the last class."""

    def drawn(self, labels: Int[Tensor, " chosen"], classes: int) -> Int[Tensor, " chosen"]:
        return torch.randint_like(labels, classes - 1)


@mutant(
    "denoising-labels-without-the-first",
    rejects="CDN-11",
    operation="contrastive_denoising",
    origin="classes counted from 1",
)
class LabelsWithoutTheFirst(DenoisingByHand):
    """Never draws the first class."""

    def drawn(self, labels: Int[Tensor, " chosen"], classes: int) -> Int[Tensor, " chosen"]:
        return torch.randint_like(labels, 1, classes)


@mutant(
    "denoising-labels-of-the-batch",
    rejects="CDN-11",
    operation="contrastive_denoising",
    origin="labels exchanged with those of other boxes",
)
class LabelsOfTheBatch(DenoisingByHand):
    """Draws from the labels of the batch, and so by how frequent they are."""

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        self.present = labels[0, 0]
        return super().labels(labels, ratio, sizes)

    def drawn(self, labels: Int[Tensor, " chosen"], classes: int) -> Int[Tensor, " chosen"]:
        return self.present[torch.randint_like(labels, max(1, len(self.present)))] if labels.numel() else labels


@mutant(
    "denoising-labels-once-for-all-groups",
    rejects="CDN-12",
    operation="contrastive_denoising",
    origin="labels noised before they are repeated",
)
class LabelsOnceForAllGroups(DenoisingByHand):
    """Draws the labels of one group and repeats them."""

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        return super().labels(labels[:1], ratio, sizes).expand_as(labels)


@mutant(
    "denoising-labels-once-for-both-kinds",
    rejects="CDN-12",
    operation="contrastive_denoising",
    origin="negatives made of noised positives",
)
class LabelsOnceForBothKinds(DenoisingByHand):
    """Gives a negative the label of its positive."""

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        return super().labels(labels[:, :1], ratio, sizes).expand_as(labels)


@mutant(
    "denoising-one-new-label-a-group",
    rejects="CDN-12",
    operation="contrastive_denoising",
    origin="randint of shape (groups, 1, 1), broadcast",
)
class OneNewLabelAGroup(DenoisingByHand):
    """Draws which labels change one by one, and what they become once for each group."""

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        drawn = torch.randint(sizes.classes, (sizes.groups, 1, 1))
        return torch.where(self.chosen(labels.shape, ratio), drawn, labels)


@mutant(
    "denoising-ratio-by-default",
    rejects="CDN-13",
    operation="contrastive_denoising",
    origin="label_noise_ratio or 0.5",
)
class RatioByDefault(DenoisingByHand):
    """Takes a ratio of 0 for none given."""

    def ratio(self, label_noise_ratio: float) -> float:
        return label_noise_ratio or 0.5


@mutant(
    "denoising-labels-of-classes-seen",
    rejects="CDN-11",
    operation="contrastive_denoising",
    origin="num_classes = labels.max() + 1, as one_hot infers it",
)
class LabelsOfClassesSeen(DenoisingByHand):
    """Draws from the classes up to the largest that a box of the batch has."""

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        self.seen = int(labels.amax()) + 1 if labels.numel() else sizes.classes
        return super().labels(labels, ratio, sizes)

    def drawn(self, labels: Int[Tensor, " chosen"], classes: int) -> Int[Tensor, " chosen"]:
        return super().drawn(labels, self.seen)


@mutant(
    "denoising-first-labels-kept",
    rejects="CDN-10",
    operation="contrastive_denoising",
    origin="a clean copy first, noised ones after it",
)
class FirstLabelsKept(DenoisingByHand):
    """Leaves the labels of the first of several groups as they are."""

    def chosen(self, shape: torch.Size, ratio: float) -> Bool[Tensor, "group kind box"]:
        chosen = super().chosen(shape, ratio)
        chosen[: shape[0] - 1][:1] = False
        return chosen
