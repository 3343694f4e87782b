"""Mutants of the sine embedding of maps: which cells are counted, and how (POS-4 to 6, POS-11, POS-13, POS-15)."""

from __future__ import annotations

import torch

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.positions.mutants.embeddings import Embedded, Maps, Padding, SineByHand, Waves

# -- counts ---------------------------------------------------------------------------------------------------


@mutant("counted-from-zero", rejects="POS-4", operation="sine_position_embedding", origin="arange in place of cumsum")
class CountedFromZero(SineByHand):
    """Does not count the cell itself."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().count(valid, axis, dtype) - valid.to(dtype)


@mutant(
    "counted-along-the-other-axis",
    rejects="POS-4",
    operation="sine_position_embedding",
    origin="cumsum(1) and cumsum(2) exchanged",
)
class CountedAlongTheOtherAxis(SineByHand):
    """Counts along rows for y and along columns for x, but divides by the right extents."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().count(valid, 3 - axis, dtype)


@mutant("counted-from-the-far-end", rejects="POS-4", operation="sine_position_embedding", origin="flip around cumsum")
class CountedFromTheFarEnd(SineByHand):
    """Counts upwards and leftwards."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().count(valid.flip(axis), axis, dtype).flip(axis)


@mutant(
    "sine-mask-inverted",
    rejects="POS-5",
    operation="sine_position_embedding",
    origin="transformers' pixel_mask, True is valid",
)
class MaskInverted(SineByHand):
    """Counts the padding."""

    def valid(self, mask: Padding) -> Padding:
        return mask


@mutant(
    "sine-mask-ignored",
    rejects="POS-5",
    operation="sine_position_embedding",
    origin="mask=None at every call, as in Mask2Former of transformers",
)
class MaskIgnored(SineByHand):
    """Counts all cells of the map."""

    def valid(self, mask: Padding) -> Padding:
        return torch.ones_like(mask)


@mutant(
    "counts-of-the-first-row",
    rejects="POS-6",
    operation="sine_position_embedding",
    origin="valid ratios, taken along the first row",
)
class CountsOfTheFirstRow(SineByHand):
    """Takes the counts of each image from its first row and column."""

    def valid(self, mask: Padding) -> Padding:
        return ~(mask[:, :1] | mask[:, :, :1])


@mutant(
    "largest-count-of-the-image", rejects="POS-6", operation="sine_position_embedding", origin="one extent an image"
)
class LargestCountOfTheImage(SineByHand):
    """Divides by the largest extent in the image."""

    def extent(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().extent(valid, axis, dtype).amax((1, 2), keepdim=True)


@mutant("zero-in-padding", rejects="POS-11", operation="sine_position_embedding", origin="pos.masked_fill(mask, 0)")
class ZeroInPadding(SineByHand):
    """Erases the embedding of padded cells."""

    def result(self, y: Waves, x: Waves, mask: Padding) -> Embedded:
        return super().result(y, x, mask).masked_fill(mask[:, None], 0)


@mutant(
    "counted-on-in-padding",
    rejects="POS-11",
    operation="sine_position_embedding",
    origin="arange over the valid extent",
)
class CountedOnInPadding(SineByHand):
    """Numbers the cells of the map and divides by the valid extent."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        everywhere = super().count(torch.ones_like(valid), axis, dtype)
        return torch.where(valid.any(axis, keepdim=True), everywhere, 0)


@mutant(
    "counts-in-uint8",
    rejects="POS-13",
    operation="sine_position_embedding",
    origin="cumsum(dtype=mask.dtype) of a byte mask",
)
class CountsInUint8(SineByHand):
    """Counts modulo 256."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return valid.to(torch.uint8).cumsum(axis, dtype=torch.uint8).to(dtype)


@mutant(
    "counts-end-early",
    rejects="POS-13",
    operation="sine_position_embedding",
    origin="ones added one by one in half precision",
)
class CountsEndEarly(SineByHand):
    """Adds ones in the dtype of the output until its integers end, at 256 or 2048."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().count(valid, axis, dtype).clamp(max=2 / torch.finfo(self.claimed).eps)

    def extent(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().extent(valid, axis, dtype).clamp(max=2 / torch.finfo(self.claimed).eps)

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        self.claimed = dtype
        return super().wide(dtype)


# -- errors ---------------------------------------------------------------------------------------------------


@mutant(
    "byte-mask-accepted",
    rejects="POS-15",
    operation="sine_position_embedding",
    origin="~mask of the ByteTensor masks of old",
)
class ByteMaskAccepted(SineByHand):
    """Takes the complement of whatever it is given."""

    def check_mask(self, mask: Padding) -> None:
        pass

    def valid(self, mask: Padding) -> Padding:
        return (~mask if not mask.is_floating_point() else 1 - mask).bool()
