"""What is done to an image before a detector sees it.

Source: DETR, arXiv:2005.12872, appendix A.4; facebookresearch/detr, datasets/coco.py (`make_coco_transforms`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from detr_reference.data.crop import crop
from detr_reference.data.flip import flip
from detr_reference.data.normalise import normalise
from detr_reference.data.resize import resize
from detr_reference.data.sample import Sample


@dataclass(frozen=True)
class Augmentation:
    """Flip, then resize or resize-crop-resize, then normalise; in evaluation one size and no choice.

    Attributes:
        scales: lengths of the shorter side, one of which is drawn.
        max_size: of the longer side.
        crop_scales: of the shorter side before cropping; without any there is no cropping. Half of the images are
            cropped.
        crop_range: the least and the greatest side of the part, as far as the image has it.
        flip: probability.
        evaluation_scale: length of the shorter side in evaluation.

    Raises:
        ValueError: a length is below 1, there are no scales, a range is reversed, or flip is no probability.
    """

    scales: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    max_size: int = 1333
    crop_scales: tuple[int, ...] = (400, 500, 600)
    crop_range: tuple[int, int] = (384, 600)
    flip: float = 0.5
    evaluation_scale: int = 800

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError("scales must name at least one length")
        lengths = (*self.scales, *self.crop_scales, *self.crop_range, self.max_size, self.evaluation_scale)
        if min(lengths) < 1:
            raise ValueError(f"lengths must be from 1 up, got {min(lengths)}")
        if len(self.crop_range) != 2 or self.crop_range[0] > self.crop_range[1]:
            raise ValueError(f"crop_range must be (least, greatest), got {self.crop_range}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability, got {self.flip}")

    def training(self, sample: Sample, generator: torch.Generator) -> Sample:
        """One of the many forms of an image; all that is drawn is drawn from the generator."""
        if _chance(generator) < self.flip:
            sample = flip(sample)
        if self.crop_scales and _chance(generator) < 0.5:
            sample = resize(sample, _one_of(self.crop_scales, generator))
            sample = _random_part(sample, self.crop_range, generator)
        return normalise(resize(sample, _one_of(self.scales, generator), self.max_size))

    def evaluation(self, sample: Sample) -> Sample:
        """The form in which an image is judged."""
        return normalise(resize(sample, self.evaluation_scale, self.max_size))


def _random_part(sample: Sample, crop_range: tuple[int, int], generator: torch.Generator) -> Sample:
    """A part of random size and place: its sides are drawn within the range, as far as the image has them."""
    least, greatest = crop_range
    height, width = (_whole(min(side, least), min(side, greatest), generator) for side in sample.size)
    top, left = _whole(0, sample.size[0] - height, generator), _whole(0, sample.size[1] - width, generator)
    return crop(sample, top, left, height, width)


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _whole(low: int, high: int, generator: torch.Generator) -> int:
    """low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _one_of(choices: tuple[int, ...], generator: torch.Generator) -> int:
    return choices[_whole(0, len(choices) - 1, generator)]
