"""Mutants of the Vision Transformer: pixels, patches, class token, positions (VIT-1 to VIT-6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.vision_transformer.mutants.vit import Block, HandWrittenVit, Image, Tokens


@mutant("vit-pixels-channel-last", rejects="VIT-1", origin="einops pattern 'b c (h p) (w q) -> b (h w) (p q c)'")
class PixelsChannelLast(HandWrittenVit):
    """Flattens a patch as (row, column, channel) against a weight of (channel, row, column)."""

    def patches(self, image: Image) -> Tokens:
        projection, side = self.patch_embed.proj, self.config.patch_size
        columns = F.unfold(image, side, stride=side).transpose(1, 2)
        columns = columns.unflatten(-1, (-1, side * side)).transpose(-2, -1).flatten(2)
        return F.linear(columns, projection.weight.flatten(1), projection.bias)


@mutant("vit-patch-transposed", rejects="VIT-1", origin="images read as (width, height)")
class PatchTransposed(HandWrittenVit):
    """Swaps rows and columns within each patch."""

    def patches(self, image: Image) -> Tokens:
        projection, side = self.patch_embed.proj, self.config.patch_size
        columns = F.unfold(image, side, stride=side).transpose(1, 2)
        return F.linear(columns, projection.weight.transpose(2, 3).flatten(1), projection.bias)


@mutant("vit-patch-bias-ignored", rejects="VIT-1", origin="bias=False, as CLIP's patch embedding has it")
class PatchBiasIgnored(HandWrittenVit):
    """Leaves out the bias of the patch embedding."""

    def patches(self, image: Image) -> Tokens:
        projection, side = self.patch_embed.proj, self.config.patch_size
        columns = F.unfold(image, side, stride=side).transpose(1, 2)
        return F.linear(columns, projection.weight.flatten(1))


@mutant("vit-channels-reversed", rejects="VIT-1", origin="OpenCV's BGR order undone inside the model")
class ChannelsReversed(HandWrittenVit):
    """Reverses the channels of the image."""

    def pixels(self, image: Image) -> Image:
        return image.flip(1)


@mutant("vit-patches-column-first", rejects="VIT-2", origin="flatten after permute(0, 1, 3, 2)")
class PatchesColumnFirst(HandWrittenVit):
    """Counts the patches column by column."""

    def patches(self, image: Image) -> Tokens:
        return super().patches(image).unflatten(1, self.grid).transpose(1, 2).flatten(1, 2)


@mutant("vit-grid-height-for-width", rejects="VIT-2", origin="unflatten(1, (W, H)) of a square grid")
class GridHeightForWidth(HandWrittenVit):
    """Takes the H x W grid for a W x H one and transposes it."""

    def patches(self, image: Image) -> Tokens:
        return super().patches(image).unflatten(1, self.grid[::-1]).transpose(1, 2).flatten(1, 2)


@mutant("vit-class-token-last", rejects="VIT-3", origin="torch.cat((x, cls_token), 1)")
class ClassTokenLast(HandWrittenVit):
    """Appends the class token, with its position, behind the patches."""

    def embedded(self, patches: Tokens) -> Tokens:
        tokens = super().embedded(patches)
        return torch.cat((tokens[:, 1:], tokens[:, :1]), 1)

    def pooled(self, x: Tokens) -> Tensor:
        if self.config.pool == "none":
            return super().pooled(x)
        return super().pooled(torch.cat((x[:, -1:], x[:, :-1]), 1))


@mutant("vit-no-class-token", rejects="VIT-3", origin="the patches' mean for a learned token")
class NoClassToken(HandWrittenVit):
    """Puts the mean of the patches where the class token belongs."""

    def embedded(self, patches: Tokens) -> Tokens:
        tokens = super().embedded(patches)
        first = patches.mean(1, keepdim=True) + self.pos_embed[:, :1] + 0 * self.cls_token
        return torch.cat((first, tokens[:, 1:]), 1)


@mutant("vit-class-token-scaled", rejects="VIT-3", origin="sqrt(embed_dim) of the original Transformer's embeddings")
class ClassTokenScaled(HandWrittenVit):
    """Multiplies the class token by the square root of the channels."""

    def embedded(self, patches: Tokens) -> Tokens:
        tokens = super().embedded(patches)
        more = (self.config.embed_dim**0.5 - 1) * self.cls_token
        return torch.cat((tokens[:, :1] + more, tokens[:, 1:]), 1)


@mutant("vit-position-before-class-token", rejects="VIT-4", origin="x + pos_embed[:, :N], then cat")
class PositionBeforeClassToken(HandWrittenVit):
    """Adds the first N positions to the patches, and none to the class token."""

    def embedded(self, patches: Tokens) -> Tokens:
        first = self.cls_token.expand(patches.shape[0], -1, -1)
        return torch.cat((first, patches + self.pos_embed[:, :-1] + 0 * self.pos_embed[:, 1:]), 1)


@mutant("vit-class-token-without-position", rejects="VIT-4", origin="no_embed_class of DeiT III")
class ClassTokenWithoutPosition(HandWrittenVit):
    """Adds the right positions to the patches, and none to the class token."""

    def embedded(self, patches: Tokens) -> Tokens:
        first = (self.cls_token + 0 * self.pos_embed[:, :1]).expand(patches.shape[0], -1, -1)
        return torch.cat((first, patches + self.pos_embed[:, 1:]), 1)


@mutant("vit-class-position-last", rejects="VIT-4", origin="positions of a model whose class token stands last")
class ClassPositionLast(HandWrittenVit):
    """Takes the last position for the class token's."""

    def embedded(self, patches: Tokens) -> Tokens:
        tokens = super().embedded(patches) - self.pos_embed
        return tokens + self.pos_embed.roll(1, 1)


@mutant("vit-positions-column-first", rejects="VIT-4", origin="a position grid built by meshgrid(indexing='xy')")
class PositionsColumnFirst(HandWrittenVit):
    """Counts the rows of the position embedding column by column."""

    def embedded(self, patches: Tokens) -> Tokens:
        own = self.pos_embed[:, 1:].unflatten(1, self.grid[::-1]).transpose(1, 2).flatten(1, 2)
        return super().embedded(patches - self.pos_embed[:, 1:] + own)


@mutant("vit-position-in-every-block", rejects="VIT-10", origin="positions added layer by layer, as DETR does")
class PositionInEveryBlock(HandWrittenVit):
    """Adds the positions in front of every block."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        return super().through(x + self.pos_embed if index else x, block, index)


@mutant("vit-position-ignored", rejects="VIT-4", origin="positions at their initial deviation of 0.02 look like noise")
class PositionIgnored(HandWrittenVit):
    """Adds no positions."""

    def embedded(self, patches: Tokens) -> Tokens:
        return super().embedded(patches) - self.pos_embed


@mutant(
    "vit-any-image-of-as-many-patches",
    rejects="VIT-5",
    origin="tokens and positions agree in shape",
)
class AnyImageOfAsManyPatches(HandWrittenVit):
    """Takes images of any height and width that give as many patches."""

    def check(self, image: Image) -> None:
        side = self.config.patch_size
        if (image.shape[2] // side) * (image.shape[3] // side) != self.grid[0] * self.grid[1]:
            super().check(image)


@mutant("vit-positions-resampled", rejects="VIT-5", origin="interpolate_pos_encoding, as in DINO and DINOv2")
class PositionsResampled(HandWrittenVit):
    """Resamples the positions for images of other sizes."""

    def check(self, image: Image) -> None:
        self.seen = (image.shape[2] // self.config.patch_size, image.shape[3] // self.config.patch_size)

    def embedded(self, patches: Tokens) -> Tokens:
        if self.seen == self.grid:
            return super().embedded(patches)
        grid = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        own = F.interpolate(grid, self.seen, mode="bicubic").flatten(2).transpose(1, 2)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(patches.shape[0], -1, -1)
        return torch.cat((first, patches + own), 1)


@mutant("vit-image-cropped", rejects="VIT-5", origin="a convolution drops what fills no patch")
class ImageCropped(HandWrittenVit):
    """Cuts a larger image to the configured size."""

    def check(self, image: Image) -> None:
        height, width = self.config.image_size
        super().check(image[..., :height, :width])

    def pixels(self, image: Image) -> Image:
        return image[..., : self.config.image_size[0], : self.config.image_size[1]]


@mutant("vit-channels-unchecked", rejects="VIT-5", origin="grey images repeated or padded to three channels")
class ChannelsUnchecked(HandWrittenVit):
    """Fills missing channels with zeros."""

    def check(self, image: Image) -> None:
        super().check(self.pixels(image))

    def pixels(self, image: Image) -> Image:
        return F.pad(image, (0, 0, 0, 0, 0, max(0, self.config.in_channels - image.shape[1])))


@mutant("vit-pixels-clamped", rejects="VIT-6", origin="clamp(0, 1) against bad images")
class PixelsClamped(HandWrittenVit):
    """Clamps pixels to five deviations."""

    def pixels(self, image: Image) -> Image:
        return image.clamp(-5, 5)


@mutant("vit-bytes-guessed", rejects="VIT-6", origin="if image.max() > 1: image = image / 255")
class BytesGuessed(HandWrittenVit):
    """Divides by 255 where values look like bytes."""

    def pixels(self, image: Image) -> Image:
        return image / 255 if image.max() > 100 else image


@mutant("vit-image-standardised", rejects="VIT-6", origin="per-image standardisation inside the model")
class ImageStandardised(HandWrittenVit):
    """Subtracts each image's mean."""

    def pixels(self, image: Image) -> Image:
        return image - image.mean((1, 2, 3), keepdim=True)
