"""A data set in COCO's format: a folder of images and a file of annotations.

Source: pycocotools, coco.py; facebookresearch/detr, datasets/coco.py (`ConvertCocoPolysToMask`): what is left out of
training.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pycocotools.coco import COCO
from torch import Tensor

from detr_reference.data.categories import Categories
from detr_reference.data.coco_problems import Progress, dataset_problems, problems, raise_for, read_json
from detr_reference.data.images import read_image, tensor_of
from detr_reference.data.sample import Sample


class CocoDetection:
    """The images in the order of their ids, with the boxes to learn from.

    Crowds are left out: a box around a crowd is no object. They stay in `coco`, where the evaluation ignores what is
    found in them. Boxes are clipped to their image, and those without area are dropped. Images without boxes stay.

    Attributes:
        coco: pycocotools' index of all annotations.
        image_ids: in rising order.
        categories: of the annotations, or those given.

    Args:
        images: folder of the images.
        annotations: file. It is checked, the images are not: see `checked`.
        categories: which label is which category id, where the model knows; None numbers those of the file.

    Raises:
        DataError: something is wrong with the annotations, or the categories given do not have one of them.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        categories: Categories | None = None,
    ) -> None:
        self.folder = Path(images)
        self.coco = read_annotations(annotations, None if categories is None else categories.ids)
        self.image_ids = sorted(self.coco.imgs)
        self.categories = categories or Categories.of(self.coco.dataset["categories"])
        self._labels = {number: label for label, number in enumerate(self.categories.ids)}

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        image = tensor_of(read_image(self.image_path(index)))
        height, width = image.shape[-2:]
        boxes, labels = self.boxes_and_labels(index)
        return Sample(image, boxes, labels, self.image_ids[index], (height, width))

    def image_path(self, index: int) -> Path:
        return self.folder / str(self.coco.imgs[self.image_ids[index]]["file_name"])

    def boxes_and_labels(self, index: int) -> tuple[Float[Tensor, "box 4"], Int[Tensor, " box"]]:
        """What is to be found on an image, boxes as (x1, y1, x2, y2) in its pixels."""
        image = self.coco.imgs[self.image_ids[index]]
        objects = [each for each in self.coco.imgToAnns[image["id"]] if not each.get("iscrowd", 0)]
        boxes = torch.tensor([each["bbox"] for each in objects], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([self._labels[each["category_id"]] for each in objects], dtype=torch.int64)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, image["width"])
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, image["height"])
        solid = (boxes[:, 2:] > boxes[:, :2]).all(-1)
        return boxes[solid], labels[solid]


def checked(
    images: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    categories: Categories | None = None,
    *,
    decode: bool = True,
    progress: Progress | None = None,
) -> CocoDetection:
    """The data set, once nothing is wrong with it.

    Args:
        decode: whether every image is read whole, which finds damaged ones; else only their sizes.
        progress: called with (images done, images in all).

    Raises:
        DataError: everything that is wrong, by file and id.
    """
    known = None if categories is None else categories.ids
    found = problems(Path(images), Path(annotations), known, decode=decode, progress=progress)
    raise_for(found, f"the images in {images} and the annotations in {annotations}")
    return CocoDetection(images, annotations, categories)


def read_annotations(annotations: str | os.PathLike[str], known_ids: Collection[int] | None = None) -> COCO:
    """pycocotools' index of a file of annotations, whose images may be absent.

    Raises:
        DataError: everything that is wrong with the file, see `dataset_problems`.
    """
    dataset = read_json(Path(annotations))
    raise_for(dataset_problems(dataset, known_ids), f"the annotations in {annotations}")
    return coco_index(dataset)


def coco_index(dataset: dict[str, Any]) -> COCO:
    """pycocotools' index of annotations in memory, without what it prints."""
    index = COCO()
    index.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    return index
