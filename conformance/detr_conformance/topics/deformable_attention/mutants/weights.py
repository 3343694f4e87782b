"""Mutants that use other weights than the given ones, or not all samples (MSDA-19, MSDA-20)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import Call, Kernel, Mask, PerLevel, PerSample


def joint_softmax(weights: PerSample) -> PerSample:
    return weights.flatten(3).softmax(-1).reshape(weights.shape)


@mutant("softmax-inside", rejects="MSDA-19", origin="DCNv4's FlashDeformAttn, BEVFormer's TensorRT plugin")
class SoftmaxInside(Kernel):
    """Takes its weights for logits."""

    def prepare(self, call: Call) -> Call:
        return call._replace(attention_weights=joint_softmax(call.attention_weights))


@mutant("divided-by-sum", rejects="MSDA-19", origin="normalisation moved from the softmax into the kernel")
class DividedBySum(Kernel):
    """Divides by the sum of the weights: nothing happens after a softmax, or where the sum is zero."""

    def prepare(self, call: Call) -> Call:
        total = call.attention_weights.sum((3, 4), keepdim=True)
        return call._replace(attention_weights=call.attention_weights / torch.where(total == 0, 1, total))


@mutant("weights-clipped-to-one", rejects="MSDA-19", origin="unsigned normalised 16-bit storage")
class WeightsClippedToOne(Kernel):
    """Clips weights at one, where a softmax ends."""

    def prepare(self, call: Call) -> Call:
        return call._replace(attention_weights=call.attention_weights.clamp(max=1))


@mutant("negative-weights-dropped", rejects="MSDA-19", origin="if (weight <= 0) continue")
class NegativeWeightsDropped(Kernel):
    """Takes negative weights for rounding errors of a softmax."""

    def prepare(self, call: Call) -> Call:
        return call._replace(attention_weights=call.attention_weights.clamp(min=0))


@mutant("last-weight-from-sum", rejects="MSDA-19", origin="one load saved: the last weight is 1 - the others")
class LastWeightFromSum(Kernel):
    """Computes the last weight of a query and head as one minus the others."""

    def prepare(self, call: Call) -> Call:
        others = call.attention_weights.flatten(3)[..., :-1]
        weights = torch.cat((others, 1 - others.sum(-1, keepdim=True)), -1)
        return call._replace(attention_weights=weights.reshape(call.attention_weights.shape))


@mutant("small-weights-pruned", rejects="MSDA-20", origin="DEFA and other accelerators prune by threshold")
class SmallWeightsPruned(Kernel):
    """Drops weights below 1e-3, however large the value."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        return super().weigh(torch.where(weights.abs() < 1e-3, 0, weights), in_range)


@mutant("largest-weights-only", rejects="MSDA-20", origin="top-k sparsification")
class LargestWeightsOnly(Kernel):
    """Keeps the sixteen largest weights of a query and head: all of them, in the published models."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        flat = weights.flatten(3)
        if flat.shape[-1] > 16:
            smallest = flat.abs().topk(16).values[..., -1:]
            weights = torch.where(flat.abs() < smallest, 0, flat).reshape(weights.shape)
        return super().weigh(weights, in_range)


@mutant("early-termination", rejects="MSDA-20", origin="front-to-back compositing in volume rendering")
class EarlyTermination(Kernel):
    """Stops as soon as the weights have added up to one."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        flat = weights.flatten(3)
        done = (flat.cumsum(-1) - flat) > 1.001
        return super().weigh(torch.where(done, 0, flat).reshape(weights.shape), in_range)


@mutant("repeated-location-skipped", rejects="MSDA-20", origin="deduplication of memory requests")
class RepeatedLocationSkipped(Kernel):
    """Reads a location only once if consecutive points of a level share it, and loses the second weight."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        x, y = super().coordinates(locations, height, width, dtype)
        repeated = torch.zeros_like(x, dtype=torch.bool)
        repeated[..., 1:] = (locations[..., 1:, :] == locations[..., :-1, :]).all(-1)
        return torch.where(repeated, -2, x), y


@mutant("share-threshold", rejects="MSDA-20", origin="corners with a negligible share are not fetched")
class ShareThreshold(Kernel):
    """Does not fetch a corner whose interpolation share is below 1/512."""

    def shares(self, fx: PerSample, fy: PerSample) -> tuple[PerSample, ...]:
        return tuple(torch.where(share < 1 / 512, 0, share) for share in super().shares(fx, fy))
