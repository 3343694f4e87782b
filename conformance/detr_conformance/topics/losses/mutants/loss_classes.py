"""Mutants of the detection losses: their names, the focal loss, the cross entropy (LOSS-1 to LOSS-6)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.losses import Batch, Chosen, Logits, Losses, LossesByHand, Pairs


@mutant(
    "losses-last-layer-numbered", rejects="LOSS-1", operation="detection_losses", origin="enumerate over all layers"
)
class LastLayerNumbered(LossesByHand):
    """Gives the last layer a number too."""

    def layers(self, prefix: str, number: int) -> list[tuple[str, int]]:
        return [(f"{prefix}_{layer}", layer) for layer in range(number)]


@mutant("losses-as-vectors", rejects="LOSS-1", operation="detection_losses", origin="torch.as_tensor([num_boxes])")
class AsVectors(LossesByHand):
    """Returns vectors of one element, because the number of boxes is one."""

    def result(self, loss: Tensor, dtype: torch.dtype) -> Tensor:
        return super().result(loss, dtype).reshape(1)


@mutant("losses-totals-added", rejects="LOSS-1", operation="detection_losses", origin="loss_dict['loss_total']")
class TotalsAdded(LossesByHand):
    """Adds a loss that is the sum of the others, so that a sum counts everything twice."""

    def decoder(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        losses = super().decoder(logits, boxes, batch, number, chosen)
        return losses | {"loss_total": torch.stack(list(losses.values())).sum()}


@mutant("losses-focal-mean-of-queries", rejects="LOSS-2", operation="detection_losses", origin="loss.mean(1).sum()")
class MeanOfQueries(LossesByHand):
    """Averages over queries, without the factor that takes it back."""

    def summed(self, loss: Tensor) -> Tensor:
        return loss.mean(1).sum()


@mutant("losses-focal-matched-only", rejects="LOSS-2", operation="detection_losses", origin="background left out")
class MatchedOnly(LossesByHand):
    """Asks only the matched queries."""

    def focal_loss(self, logits: Tensor, classes: Tensor, number: Tensor, chosen: Chosen) -> Tensor:
        matched = classes < logits.shape[-1]
        return super().focal_loss(logits[matched], classes[matched], number, chosen)


@mutant("losses-focal-own-class-only", rejects="LOSS-2", operation="detection_losses", origin="gather of the own class")
class OwnClassOnly(LossesByHand):
    """Leaves out what a matched query says about the other classes."""

    def focal(self, logits: Tensor, yes: Tensor, chosen: Chosen) -> Tensor:
        asked = (yes > 0) | ~(yes > 0).any(-1, keepdim=True)
        return super().focal(logits, yes, chosen) * asked


@mutant("losses-focal-from-softmax", rejects="LOSS-2", operation="detection_losses", origin="softmax focal loss")
class FocalFromSoftmax(LossesByHand):
    """Takes the power of the softmax probability."""

    def focal(self, logits: Tensor, yes: Tensor, chosen: Chosen) -> Tensor:
        wrong = (logits.softmax(-1) - yes).abs()
        weight = chosen.alpha * yes + (1 - chosen.alpha) * (1 - yes)
        plain = F.binary_cross_entropy_with_logits(logits, yes, reduction="none")
        return weight * wrong.pow(chosen.gamma) * plain


@mutant(
    "losses-alpha-swapped", rejects="LOSS-3", operation="detection_losses", origin="alpha taken for the background's"
)
class AlphaSwapped(LossesByHand):
    """Weighs positives by 1 - alpha."""

    def focal(self, logits: Tensor, yes: Tensor, chosen: Chosen) -> Tensor:
        return super().focal(logits, yes, Chosen(alpha=1 - chosen.alpha, gamma=chosen.gamma))


@mutant("losses-gamma-missing", rejects="LOSS-3", operation="detection_losses", origin="balanced cross entropy")
class GammaMissing(LossesByHand):
    """Leaves out the power."""

    def focal(self, logits: Tensor, yes: Tensor, chosen: Chosen) -> Tensor:
        return super().focal(logits, yes, Chosen(alpha=chosen.alpha, gamma=0.0))


@mutant("losses-focal-constants", rejects="LOSS-3", operation="detection_losses", origin="default arguments")
class FocalConstants(LossesByHand):
    """Takes alpha 0.25 and gamma 2 whatever the settings say."""

    def focal(self, logits: Tensor, yes: Tensor, chosen: Chosen) -> Tensor:
        return super().focal(logits, yes, Chosen())


@mutant(
    "losses-alpha-of-the-decoder",
    rejects="LOSS-3",
    operation="detection_losses",
    origin="the encoder's criterion made without the configuration",
)
class AlphaOfTheDecoder(LossesByHand):
    """Has the alpha and gamma of the call in the decoder, and the usual ones in the other sets."""

    def encoder(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return super().encoder(logits, boxes, batch, number, replace(chosen, alpha=0.25, gamma=2.0))

    def denoising(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return super().denoising(logits, boxes, batch, number, replace(chosen, alpha=0.25, gamma=2.0))


@mutant(
    "losses-entropy-per-box", rejects="LOSS-4", operation="detection_losses", origin="one normaliser for all losses"
)
class EntropyPerBox(LossesByHand):
    """Divides the cross entropy by the number of boxes."""

    def cross_entropy(self, logits: Tensor, classes: Tensor, number: Tensor, chosen: Chosen) -> Tensor:
        return F.cross_entropy(logits, classes, self.weights(logits, chosen), reduction="sum") / number


@mutant("losses-entropy-per-query", rejects="LOSS-4", operation="detection_losses", origin="mean() of reduction='none'")
class EntropyPerQuery(LossesByHand):
    """Divides the weighted cross entropy by the number of queries."""

    def cross_entropy(self, logits: Tensor, classes: Tensor, number: Tensor, chosen: Chosen) -> Tensor:
        return F.cross_entropy(logits, classes, self.weights(logits, chosen), reduction="none").mean()


@mutant("losses-entropy-per-image", rejects="LOSS-4", operation="detection_losses", origin="a loop over images")
class EntropyPerImage(LossesByHand):
    """Averages each image by itself, and the images alike."""

    def of_classes(
        self, logits: Logits, pairs: Pairs, batch: Batch, number: Tensor, chosen: Chosen, asked: Tensor | None
    ) -> Tensor:
        if chosen.class_loss == "focal":
            return super().of_classes(logits, pairs, batch, number, chosen, asked)
        alone = []
        for image in range(len(logits)):
            own = Batch(batch.labels[image : image + 1], batch.boxes[image : image + 1])
            slots = None if asked is None else asked[image : image + 1]
            alone.append(
                super().of_classes(logits[image : image + 1], pairs[image : image + 1], own, number, chosen, slots)
            )
        return torch.stack(alone).mean()


@mutant("losses-entropy-overflows", rejects="LOSS-4", operation="detection_losses", origin="log(exp(x) / exp(x).sum())")
class EntropyOverflows(LossesByHand):
    """Takes exponentials of logits as they are, which in float32 are infinite from 89 on."""

    def cross_entropy(self, logits: Tensor, classes: Tensor, number: Tensor, chosen: Chosen) -> Tensor:
        odds = logits.float().exp()
        logarithms = (odds / odds.sum(-1, keepdim=True)).log().to(logits.dtype)
        return super().cross_entropy(logarithms, classes, number, chosen)


@mutant("losses-entropy-unweighted", rejects="LOSS-5", operation="detection_losses", origin="weight= left out")
class EntropyUnweighted(LossesByHand):
    """Gives "no object" the weight of the others."""

    def weights(self, logits: Tensor, chosen: Chosen) -> Float[Tensor, " class"]:
        return logits.new_ones(logits.shape[-1])


@mutant("losses-first-class-weighted", rejects="LOSS-5", operation="detection_losses", origin="background as class 0")
class FirstClassWeighted(LossesByHand):
    """Gives the weight of "no object" to class 0."""

    def weights(self, logits: Tensor, chosen: Chosen) -> Float[Tensor, " class"]:
        return super().weights(logits, chosen).roll(1)


@mutant("losses-entropy-constant", rejects="LOSS-5", operation="detection_losses", origin="eos_coef = 0.1")
class EntropyConstant(LossesByHand):
    """Takes 0.1 whatever the setting says."""

    def weights(self, logits: Tensor, chosen: Chosen) -> Float[Tensor, " class"]:
        return super().weights(logits, Chosen())


@mutant(
    "losses-weight-of-the-encoder",
    rejects="LOSS-5",
    operation="detection_losses",
    origin="empty_weight registered once, for the decoder",
)
class WeightOfTheEncoder(LossesByHand):
    """Weighs no object by a tenth in the encoder, whatever is asked for."""

    def encoder(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return super().encoder(logits, boxes, batch, number, replace(chosen, no_object_weight=0.1))


@mutant("losses-background-is-first", rejects="LOSS-6", operation="detection_losses", origin="torch.zeros for classes")
class BackgroundIsFirst(LossesByHand):
    """Makes queries without a box members of class 0."""

    def classes(self, logits: Logits, pairs: Pairs, batch: Batch, background: int) -> Int[Tensor, "batch query"]:
        return super().classes(logits, pairs, batch, 0)


@mutant("losses-labels-in-order", rejects="LOSS-6", operation="detection_losses", origin="the permutation forgotten")
class LabelsInOrder(LossesByHand):
    """Hands out labels in the order of the boxes, not of the pairs."""

    def labels(self, batch: Batch, image: int, box: Int[Tensor, " pair"]) -> Int[Tensor, " pair"]:
        return batch.labels[image][: len(box)]


@mutant(
    "losses-labels-of-the-batch", rejects="LOSS-6", operation="detection_losses", origin="torch.cat without offsets"
)
class LabelsOfTheBatch(LossesByHand):
    """Looks a box's label up among those of all images."""

    def labels(self, batch: Batch, image: int, box: Int[Tensor, " pair"]) -> Int[Tensor, " pair"]:
        return torch.cat(batch.labels)[box]


@mutant("losses-background-ignored-by-softmax", rejects="LOSS-6", operation="detection_losses", origin="ignore_index")
class BackgroundIgnored(LossesByHand):
    """Leaves queries without a box out of the cross entropy."""

    def cross_entropy(self, logits: Tensor, classes: Tensor, number: Tensor, chosen: Chosen) -> Tensor:
        objects = classes < logits.shape[-1] - 1
        return super().cross_entropy(logits[objects], classes[objects], number, chosen)
