"""COCO's twelve figures of detections, computed by pycocotools.

Source: cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py; https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.table import Table

from detr_reference.data.categories import Categories

LARGEST_FILE = 4 << 30


class Twelve(NamedTuple):
    """Average precision and recall, each between 0 and 1, or -1 where the ground truth has no box of that size.

    ap is the mean over the IoU thresholds 0.50, 0.55, ..., 0.95; ap50 and ap75 are of one threshold. Small boxes have
    an area up to 32^2 pixels, medium ones up to 96^2. ar1, ar10 and ar100 allow so many detections of a category in an
    image; all others allow 100.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float

    def named(self) -> dict[str, float]:
        """The figures under COCO's names: "AP", "AP50", "AP75", "AP small", ..., "AR large"."""
        return dict(zip(NAMES, self, strict=True))


NAMES = tuple(name[:2].upper() + name[2:].replace("_", " ") for name in Twelve._fields)


def coco_results(detections: Iterable[Mapping[str, Any]], categories: Categories) -> list[dict[str, Any]]:
    """Detections as COCO's results: boxes (x, y, w, h) from the upper left corner, and category ids for labels.

    Boxes are not clamped to the image, as published evaluations of DETR, Deformable DETR and DINO leave them.

    Args:
        detections: of each image {"image_id": int, "scores": (n,), "labels": (n,), "boxes": (n, 4)}; boxes
            (x1, y1, x2, y2) in pixels of the original image.
        categories: which label is which id.

    Raises:
        ValueError: a score or a box is not finite, as those of a model that has diverged.
    """
    results = []
    for image in detections:
        image_id = int(image["image_id"])
        scores, boxes = image["scores"].double(), image["boxes"].double()
        for name, numbers in (("score", scores), ("box", boxes)):
            if not numbers.isfinite().all():
                raise ValueError(f"a {name} that was detected on image {image_id} is not finite: the model diverged")
        corners, sizes = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        rows = zip(image["labels"].tolist(), corners.tolist(), sizes.tolist(), scores.tolist(), strict=True)
        results += [
            {
                "image_id": image_id,
                "category_id": categories.id_of(label),
                "bbox": [*corner, *size],
                "score": score,
            }
            for label, corner, size, score in rows
        ]
    return results


def evaluate_boxes(coco: COCO, results: Sequence[Mapping[str, Any]]) -> Twelve:
    """The twelve figures of these results over all images of the ground truth, also those without any detection.

    Raises:
        ValueError: a result is of an image that the ground truth does not have, or an annotation has the id 0, which
            pycocotools takes for "matched nothing".
    """
    unknown = {result["image_id"] for result in results} - set(coco.getImgIds())
    if unknown:
        raise ValueError(f"{len(unknown)} detected images are not in the annotations, such as image {min(unknown)}")
    if 0 in coco.anns:
        raise ValueError("an annotation has the id 0, which pycocotools counts as missed; number them from 1")
    for annotation in coco.dataset["annotations"]:  # which pycocotools needs, and boxes without masks may not have
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, _as_coco(coco, results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Twelve(*(float(figure) for figure in evaluation.stats))


def _as_coco(coco: COCO, results: Sequence[Mapping[str, Any]]) -> COCO:
    """As COCO.loadRes, which fails without any result and changes those that it is given."""
    found = COCO()
    found.dataset = {
        "images": coco.dataset["images"],
        "categories": coco.dataset["categories"],
        "annotations": [
            {**result, "id": number, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
            for number, result in enumerate(results, start=1)
        ],
    }
    found.createIndex()
    return found


def read_results(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Results in COCO's format from a JSON file.

    Raises:
        ValueError: the file cannot be read, or an entry is not {"image_id", "category_id", "bbox", "score"} with whole
            ids and finite numbers; the message says which.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file of detections at {path}")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; detections have at most {LARGEST_FILE}")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(results, list):
        raise ValueError(f"{path} should hold a list of detections, but holds a {type(results).__name__}")
    return [_checked(result, f"{path}: detection {number}") for number, result in enumerate(results)]


def _checked(result: Any, where: str) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise ValueError(f"{where} should be an object, but is {str(result)[:60]!r}")
    for name in ("image_id", "category_id"):
        if type(result.get(name)) is not int:
            raise ValueError(f"{where} should have a whole number as {name}, but has {result.get(name)!r}")
    bbox = result.get("bbox")
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(_is_finite(side) for side in bbox)):
        raise ValueError(f"{where} should have four finite numbers (x, y, w, h) as bbox, but has {bbox!r}")
    if not _is_finite(result.get("score")):
        raise ValueError(f"{where} should have a finite score, but has {result.get('score')!r}")
    return {name: result[name] for name in ("image_id", "category_id", "bbox", "score")}


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def table_of(twelve: Twelve, title: str | None = None) -> Table:
    """A line for each figure, with what it counts; "-" where the ground truth has no box of that size."""
    table = Table("", "IoU", "boxes", "detections", title=title, title_justify="left")
    table.add_column("figure", justify="right")
    for name, figure in twelve.named().items():
        iou = {"AP50": "0.50", "AP75": "0.75"}.get(name, "0.50:0.95")
        size = name.partition(" ")[2] or "all"
        most = {"AR1": "1", "AR10": "10"}.get(name, "100")
        table.add_row(name, iou, size, most, shown(figure), end_section=name == "AP large")
    return table


def shown(figure: float) -> str:
    """A figure as it is printed."""
    return "-" if figure < 0 else f"{figure:.4f}"
