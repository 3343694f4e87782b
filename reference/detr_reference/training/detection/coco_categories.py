"""The categories of COCO's detection, for models whose files do not name them.

Source: https://cocodataset.org, annotations/instances_val2017.json, "categories".
"""

from __future__ import annotations

from detr_reference.checkpoints.classes import COCO_IDS
from detr_reference.data.categories import Categories

NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, "
    "laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, "
    "scissors, teddy bear, hair drier, toothbrush"
)
COCO = Categories(COCO_IDS, tuple(NAMES.split(", ")))


def published_categories(num_classes: int) -> Categories:
    """What the labels of a published model with so many classes are.

    80 classes are COCO's in the order of their ids. In the published code of DETR, Deformable DETR and DINO the
    label is the id, so it is with all other numbers of classes: COCO's ids where there are more than 90, those of a
    data set of one's own where there are fewer, which have no names here.
    """
    if num_classes == len(COCO):
        return COCO
    if num_classes > max(COCO_IDS):
        return COCO.by_id(num_classes)
    return Categories(tuple(range(num_classes)), tuple(f"({label})" for label in range(num_classes)))
