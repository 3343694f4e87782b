"""Image files, read as what COCO's annotations refer to: the stored pixels, in RGB.

Grey, palette and CMYK are converted and transparency is dropped (Pillow's `convert`, as facebookresearch/detr through
torchvision). A turn that a camera notes in the file (EXIF) is not applied: neither COCO's boxes nor the published code
do. For that reason TIFF, which Pillow turns by itself, is not read.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

# Named, since Pillow would otherwise try all it knows, among them formats that start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
LARGEST = 100_000_000  # pixels; a file of a few kilobytes can claim more than a machine has memory for


class ImageError(ValueError):
    """A file that cannot be read as an image; the message names it and says why."""


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The image with its size known and its pixels not read yet; to be closed.

    Raises:
        ImageError: there is no such file, it is none of `FORMATS`, has more than 8 bits a colour in a form that does
            not convert to RGB, or more than `LARGEST` pixels.
    """
    path = Path(path)
    if not _is_file(path):
        raise ImageError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `LARGEST` is checked below
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: too large, {error}") from error
    except Exception as error:  # whatever a decoder makes of bytes that mean nothing
        raise ImageError(f"{path}: not an image of {', '.join(FORMATS)} ({error})") from error
    wrong = None
    if image.width * image.height > LARGEST:
        wrong = f"{image.width} x {image.height} pixels are more than the {LARGEST} that are read"
    elif image.mode.startswith(("I", "F")):
        wrong = f"grey with more than 8 bits (mode {image.mode}), to be converted to 8 bits first"
    if wrong:
        image.close()
        raise ImageError(f"{path}: {wrong}")
    return image


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """The whole image in RGB.

    Raises:
        ImageError: as `open_image`, or the file is damaged.
    """
    with open_image(path) as image:
        try:
            return image.convert("RGB")
        except Exception as error:  # as above
            raise ImageError(f"{path}: damaged ({error})") from error


def tensor_of(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """RGB in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255


def _is_file(path: Path) -> bool:
    """Also of names that no file can have, too long or with a zero byte."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
