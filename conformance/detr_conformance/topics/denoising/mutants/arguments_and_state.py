"""Mutants of denoising from call to call (CDN-28 to CDN-36)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.denoising.mutants.contrastive_denoising import Boxes, DenoisingByHand, Labels, Sizes


@mutant(
    "denoising-labels-in-place",
    rejects="CDN-28",
    operation="contrastive_denoising",
    origin="detrex, layers/denoising.py: labels.scatter_, safe only while there are several groups to repeat",
)
class LabelsInPlace(DenoisingByHand):
    """Writes the noised labels of a single group over the targets."""

    def __call__(self, target_labels: Int[Tensor, " box"], *rest: Any, **settings: Any) -> dict[str, Tensor]:
        self.target_labels = target_labels
        return super().__call__(target_labels, *rest, **settings)

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        noised = super().labels(labels, ratio, sizes)
        if sizes.groups == 1:
            self.target_labels.copy_(noised[0, 0])
        return noised


@mutant(
    "denoising-boxes-in-place",
    rejects="CDN-28",
    operation="contrastive_denoising",
    origin="detrex, layers/denoising.py: boxes += noise, safe only where they are copies",
)
class BoxesInPlace(DenoisingByHand):
    """Writes the noised positives of a single group over the targets."""

    def __call__(
        self, target_labels: Tensor, target_boxes: Float[Tensor, "box 4"], *rest: Any, **settings: Any
    ) -> dict[str, Tensor]:
        self.target_boxes = target_boxes
        return super().__call__(target_labels, target_boxes, *rest, **settings)

    def noised(self, boxes: Boxes, scale: float, sizes: Sizes) -> Boxes:
        noised = super().noised(boxes, scale, sizes)
        if sizes.groups == 1:
            self.target_boxes.copy_(noised[0, 0])
        return noised


@mutant(
    "denoising-boxes-in-one-piece",
    rejects="CDN-29",
    operation="contrastive_denoising",
    origin="view(-1) on boxes that were sliced out of a wider tensor",
)
class BoxesInOnePiece(DenoisingByHand):
    """Reads boxes through a view that only contiguous ones have."""

    def __call__(
        self, target_labels: Tensor, target_boxes: Float[Tensor, "box 4"], *rest: Any, **settings: Any
    ) -> dict[str, Tensor]:
        return super().__call__(target_labels, target_boxes.view(-1).view(-1, 4), *rest, **settings)


@mutant(
    "denoising-strides-assumed",
    rejects="CDN-29",
    operation="contrastive_denoising",
    origin="a kernel that reads box i at data + 4 i",
)
class StridesAssumed(DenoisingByHand):
    """Reads boxes as if they lay one behind the other in memory."""

    def __call__(
        self, target_labels: Tensor, target_boxes: Float[Tensor, "box 4"], *rest: Any, **settings: Any
    ) -> dict[str, Tensor]:
        dense = torch.as_strided(target_boxes, target_boxes.shape, (4, 1), target_boxes.storage_offset())
        return super().__call__(target_labels, dense, *rest, **settings)


@mutant(
    "denoising-noise-kept",
    rejects="CDN-30",
    operation="contrastive_denoising",
    origin="noise drawn once for each shape, and kept",
)
class NoiseKept(DenoisingByHand):
    """Uses the lengths of the first call of a shape again."""

    def __init__(self) -> None:
        self.kept: dict[torch.Size, Tensor] = {}

    def uniform(self, boxes: Boxes) -> Boxes:
        return self.kept.setdefault(boxes.shape, super().uniform(boxes))


@mutant(
    "denoising-seeded-inside",
    rejects="CDN-30",
    operation="contrastive_denoising",
    origin="torch.manual_seed(0) for reproducible debugging",
)
class SeededInside(DenoisingByHand):
    """Seeds the generator in every call."""

    def __call__(self, *arguments: Any, **settings: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return super().__call__(*arguments, **settings)


@mutant(
    "denoising-own-generator",
    rejects="CDN-31",
    operation="contrastive_denoising",
    origin="a torch.Generator, or numpy's, that no seed of the run reaches",
)
class OwnGenerator(DenoisingByHand):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def uniform(self, boxes: Boxes) -> Boxes:
        return torch.rand(boxes.shape, dtype=boxes.dtype, generator=self.generator)


@mutant(
    "denoising-without-gradients",
    rejects="CDN-32",
    operation="contrastive_denoising",
    origin="the whole preparation under torch.no_grad()",
)
class WithoutGradients(DenoisingByHand):
    """Gives the label embedding no gradient: it stays what it was initialised to."""

    def rows(self, label_embedding: Tensor, labels: Labels) -> Float[Tensor, "group kind box embed"]:
        return super().rows(label_embedding.detach(), labels)

    def blank(self, label_embedding: Tensor, sizes: Sizes) -> Float[Tensor, "batch query embed"]:
        return super().blank(label_embedding, sizes) + 0 * label_embedding[0]


@mutant(
    "denoising-gradients-of-positives",
    rejects="CDN-32",
    operation="contrastive_denoising",
    origin="negatives detached, as they have no box to learn",
)
class GradientsOfPositives(DenoisingByHand):
    """Gives the label embedding the gradients of positives only."""

    def rows(self, label_embedding: Tensor, labels: Labels) -> Float[Tensor, "group kind box embed"]:
        rows = super().rows(label_embedding, labels)
        return torch.cat((rows[:, :1], rows[:, 1:].detach()), 1)


@mutant(
    "denoising-first-boxes-taken",
    rejects="CDN-33",
    operation="contrastive_denoising",
    origin="slices by the counts, which fit into more boxes too",
)
class FirstBoxesTaken(DenoisingByHand):
    """Ignores boxes beyond the sum of the counts."""

    def __call__(
        self, target_labels: Tensor, target_boxes: Tensor, target_counts: Tensor, *rest: Any, **settings: Any
    ) -> dict[str, Tensor]:
        total = int(target_counts.sum())
        return super().__call__(target_labels[:total], target_boxes[:total], target_counts, *rest, **settings)


@mutant(
    "denoising-labels-wrap",
    rejects="CDN-34",
    operation="contrastive_denoising",
    origin="label_embedding[labels], where -1 is the last row",
)
class LabelsWrap(DenoisingByHand):
    """Takes negative labels from the end."""

    def check(self, labels: Tensor, boxes: Tensor, counts: list[int], classes: int) -> None:
        super().check(labels.clamp(min=0), boxes, counts, classes)


@mutant(
    "denoising-one-mask",
    rejects="CDN-35",
    operation="contrastive_denoising",
    origin="the mask computed once for each layout, and handed out again",
)
class OneMask(DenoisingByHand):
    """Hands out the same mask in every call of a layout."""

    def __init__(self) -> None:
        self.masks: dict[str, Tensor] = {}

    def mask(self, sizes: Sizes) -> Tensor:
        return self.masks.setdefault(str(sizes), super().mask(sizes))


@mutant(
    "denoising-one-buffer",
    rejects="CDN-35",
    operation="contrastive_denoising",
    origin="the queries of the largest batch allocated once",
)
class OneBuffer(DenoisingByHand):
    """Writes the references of every call into one buffer."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, *arguments: Any, **settings: Any) -> dict[str, Tensor]:
        result = super().__call__(*arguments, **settings)
        references = result["references"]
        buffer = self.buffers.setdefault(f"{references.shape} {references.dtype}", torch.empty_like(references))
        return result | {"references": buffer.copy_(references)}


@mutant(
    "denoising-noise-of-a-pointer",
    rejects="CDN-30",
    operation="contrastive_denoising",
    origin="functools.cache around queries, tensors hashed by identity",
)
class NoiseOfAPointer(DenoisingByHand):
    """Returns copies of what it made, as long as the targets are the same tensors."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[dict[str, Tensor], Tensor]] = {}

    def __call__(self, *arguments: Any, **settings: Any) -> dict[str, Tensor]:
        grad = torch.is_grad_enabled() and arguments[3].requires_grad
        key = f"{[argument.data_ptr() for argument in arguments]} {arguments[2].tolist()} {settings} {grad}"
        contents = torch.cat([argument.detach().flatten().double() for argument in arguments])
        found = self.made.get(key)
        if found is None or not torch.equal(found[1], contents):
            self.made[key] = (super().__call__(*arguments, **settings), contents)
        return {name: tensor.clone() for name, tensor in self.made[key][0].items()}


@mutant(
    "denoising-embedding-remembered",
    rejects="CDN-36",
    operation="contrastive_denoising",
    origin="the table of an earlier step kept by its pointer",
)
class EmbeddingRemembered(DenoisingByHand):
    """Looks rows up in a copy of the table that it has made where it first saw this pointer, without gradients."""

    def __init__(self) -> None:
        self.tables: dict[str, Tensor] = {}

    def rows(self, label_embedding: Tensor, labels: Labels) -> Float[Tensor, "group kind box embed"]:
        if label_embedding.requires_grad:
            return super().rows(label_embedding, labels)
        key = f"{label_embedding.data_ptr()} {label_embedding.shape} {label_embedding.dtype}"
        return super().rows(self.tables.setdefault(key, label_embedding.clone()), labels)


@mutant(
    "denoising-quiet-without-gradients",
    rejects="CDN-31",
    operation="contrastive_denoising",
    origin="is_grad_enabled() taken for training",
)
class QuietWithoutGradients(DenoisingByHand):
    """Moves no corner where no gradients are recorded."""

    def moves(self, boxes: Boxes) -> Boxes:
        moves = super().moves(boxes)
        return moves if torch.is_grad_enabled() else torch.zeros_like(moves)
