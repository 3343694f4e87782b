"""An image cut into square patches, each projected to a token.

Source: ViT, arXiv:2010.11929, section 3.1, equation 1; read with timm, layers/patch_embed.py. Clauses: spec chapter 09.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """token(i * W/P + j) = proj(pixels of rows i*P to (i + 1)*P, columns j*P to (j + 1)*P)

    A convolution whose kernel and stride are the patch: patches touch, none overlap, and they are counted row by row.

    Parameters:
        proj: Conv2d in_channels -> embed_dim, weight (embed, channel, row, column), with bias.

    Args:
        patch_size: P, in pixels.
        in_channels: channels of the image.
        embed_dim: channels of a token.
    """

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch patch embed"]:
        """The sides of the image are multiples of the patch; `VisionTransformer` sees to that."""
        return self.proj(image).flatten(2).transpose(1, 2)
