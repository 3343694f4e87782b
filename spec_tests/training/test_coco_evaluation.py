"""COCO's twelve figures: those of a small case by arithmetic, and those of pycocotools to the last digit."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from detr_reference.data.categories import Categories
from detr_reference.training.detection.evaluation import (
    NAMES,
    Twelve,
    coco_results,
    evaluate_boxes,
    read_results,
    table_of,
)

CATEGORIES = Categories.of([{"id": 3, "name": "car"}, {"id": 17, "name": "cat"}])

# Ground truth (image, category, box, crowd). Small: area up to 32^2 = 1024; medium: up to 96^2 = 9216.
A = (1, 1, (0, 0, 100, 100), 0)  # large
B = (1, 1, (200, 0, 50, 50), 0)  # medium
C = (2, 1, (0, 0, 20, 20), 0)  # small; nothing is detected on image 2
D = (1, 2, (0, 200, 100, 100), 0)  # large
E = (1, 2, (300, 200, 200, 100), 1)  # a crowd
G = (3, 2, (0, 0, 100, 100), 0)  # large
TRUTH = (A, B, C, D, E, G)

# Detections (image, category, box, score).
ON_A = (1, 1, (0, 0, 100, 82), 0.9)  # IoU 0.82 with A; its own area is medium
STRAY = (3, 1, (300, 0, 100, 100), 0.8)  # on nothing; large
ON_B = (1, 1, (200, 0, 50, 31), 0.7)  # IoU 0.62 with B; medium
CROWD = [(1, 2, (310, 210, 50, 50), 0.95), (1, 2, (400, 210, 80, 80), 0.94)]  # within E
ROUGH_D = (1, 2, (0, 200, 100, 82), 0.7)  # IoU 0.82 with D; medium
EXACT_D = (1, 2, (0, 200, 100, 100), 0.6)  # IoU 1 with D
TEN = [(3, 2, (30 * i, 300, 20, 20), 0.5) for i in range(10)]  # on nothing; small
EXACT_G = (3, 2, (0, 0, 100, 100), 0.4)  # IoU 1 with G, and the eleventh of its image and category
FOUND = (ROUGH_D, EXACT_D, ON_A, STRAY, ON_B, *CROWD, *TEN, EXACT_G)

# Of the ten thresholds 0.50, 0.55, ..., 0.95 an IoU of 0.62 passes 3, and an IoU of 0.82 passes 7. The interpolated
# precision is read at the recalls 0.00, 0.01, ..., 1.00: 101 numbers, of which 34 are at most 1/3, 67 are at most 2/3,
# and 51 are at most 1/2.


def coco_of(truth: Any, images: int = 3, categories: int = 2) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(1, images + 1)],
        "categories": [{"id": number, "name": f"kind {number}"} for number in range(1, categories + 1)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": kind, "bbox": [*box], "area": box[2] * box[3], "iscrowd": crowd}
            for i, (image, kind, box, crowd) in enumerate(truth, start=1)
        ],
    }
    coco.createIndex()
    return coco


def results_of(found: Any) -> list[dict[str, Any]]:
    return [
        {"image_id": image, "category_id": kind, "bbox": [*box], "score": score} for image, kind, box, score in found
    ]


def by_hand() -> dict[str, float]:
    """The figures of the case above."""
    # Kind 1 has A, B and C. In falling order: ON_A, STRAY (false), ON_B.
    # 3 thresholds (up to 0.60): true, false, true: recall 1/3, 1/3, 2/3, precision 1, 1/2, 2/3.
    both = (34 * 1 + (67 - 34) * 2 / 3) / 101
    # 4 thresholds (0.65 to 0.80): only ON_A is true. 3 thresholds (from 0.85): none is.
    only_a = 34 / 101
    ap_1 = (3 * both + 4 * only_a) / 10
    # Kind 2 has D and G; the crowd E is not to be found, and what lies within it is neither true nor false.
    # 7 thresholds: ROUGH_D true, EXACT_D false, as D is taken, TEN false, EXACT_G true: precision 1 at recall 1/2,
    # and 2 of 13 at recall 1.
    rough = (51 * 1 + 50 * 2 / 13) / 101
    # 3 thresholds: ROUGH_D false, EXACT_D true: precision 1/2 at recall 1/2, and the same 2 of 13.
    exact = (51 * 1 / 2 + 50 * 2 / 13) / 101
    ap_2 = (7 * rough + 3 * exact) / 10
    # Medium is B alone: ON_B is true at 3 thresholds. ON_A, medium itself, counts only where it matches nothing, after
    # those 3. Kind 2 has nothing medium, and is left out of the mean.
    medium = 3 / 10
    # Large: A, D and G. Of kind 1, ON_A is true at 7 thresholds before the large STRAY, and later matches nothing but
    # is not large; ON_B neither. Of kind 2 TEN are small. 7 thresholds: true, false (EXACT_D), true: 1 and 2/3.
    # 3 thresholds: ROUGH_D is not large and matches nothing, so that both others are all there is.
    large_1 = 7 / 10
    large_2 = (7 * (51 * 1 + 50 * 2 / 3) / 101 + 3 * 1) / 10
    # Recall with one detection: of kind 1 ON_A, and of kind 2 one in the crowd and one of TEN. With ten: of kind 1
    # both, but of kind 2 TEN stand before EXACT_G.
    one = (7 / 10 * 1 / 3 + 0) / 2
    recall_1 = (3 * 2 / 3 + 4 * 1 / 3) / 10
    return {
        "AP": (ap_1 + ap_2) / 2,
        "AP50": (both + rough) / 2,
        "AP75": (only_a + rough) / 2,
        "AP small": 0.0,  # C is missed; without image 2, where nothing is detected, there would be nothing small: -1
        "AP medium": medium,
        "AP large": (large_1 + large_2) / 2,
        "AR1": one,
        "AR10": (recall_1 + 1 / 2) / 2,
        "AR100": (recall_1 + 1) / 2,
        "AR small": 0.0,
        "AR medium": medium,
        "AR large": (7 / 10 + 1) / 2,
    }


def test_the_twelve_figures_of_a_small_case_follow_by_arithmetic() -> None:
    assert evaluate_boxes(coco_of(TRUTH), results_of(FOUND)).named() == pytest.approx(by_hand(), abs=1e-12)


def test_a_detection_within_a_crowd_is_ignored() -> None:
    """As soon as E is no crowd, its two detections are false, and it is missed."""
    plain = tuple((*each[:3], 0) for each in TRUTH)
    figures = evaluate_boxes(coco_of(plain), results_of(FOUND))
    without = evaluate_boxes(coco_of(TRUTH), results_of([each for each in FOUND if each not in CROWD]))
    assert without.ap == pytest.approx(by_hand()["AP"], abs=1e-12)
    assert figures.ap < by_hand()["AP"] - 0.1


def directly(coco: COCO, results: list[dict[str, Any]]) -> list[float]:
    """The figures as pycocotools' own loader of results leads to them."""
    evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats.tolist()


def random_case(seed: int) -> tuple[COCO, list[dict[str, Any]]]:
    """Boxes of all sizes, crowds and empty images, and detections near them."""
    draw = torch.Generator().manual_seed(seed)

    def box(size: float) -> list[float]:
        x, y, w, h = torch.rand(4, generator=draw).tolist()
        return [400 * x, 300 * y, size * (0.3 + w), size * (0.3 + h)]

    truth, found = [], []
    for image in range(1, 13):
        for size in (20, 60, 150) * (image % 3):
            kind = int(torch.randint(1, 5, (), generator=draw))
            truth.append((image, kind, tuple(box(size)), int(torch.rand((), generator=draw) < 0.15)))
    for image, kind, near, _ in truth:
        for _ in range(2):
            moved = (torch.tensor(near) * (1 + 0.1 * torch.randn(4, generator=draw))).tolist()
            found.append((image, kind, moved, round(float(torch.rand((), generator=draw)), 1)))  # some scores are equal
    return coco_of(truth, images=12, categories=4), results_of(found)


@pytest.mark.parametrize("seed", [0, 1])
def test_pycocotools_gives_the_same_to_the_last_digit(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    coco, results = random_case(seed)
    before = copy.deepcopy(results)
    capsys.readouterr()  # what COCO said of the index
    ours = evaluate_boxes(coco, results)
    assert capsys.readouterr().out == ""
    assert results == before
    assert list(ours) == directly(coco, results)
    assert 0 < ours.ap < 1


def test_annotations_of_boxes_alone_are_enough() -> None:
    """Without areas, which are those of masks in COCO, and without a word about crowds."""
    truth = [each for each in TRUTH if each is not E]
    bare = coco_of(truth)
    for annotation in bare.dataset["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    assert evaluate_boxes(bare, results_of(FOUND)) == evaluate_boxes(coco_of(truth), results_of(FOUND))


def test_no_detection_at_all_gives_zeros() -> None:
    figures = evaluate_boxes(coco_of([A, C]), [])
    assert figures.named() == {name: -1 if "medium" in name else 0 for name in NAMES}


def test_the_known_figures_of_real_detections(shared_data: Path) -> None:
    folder = shared_data / "coco_eval"
    coco = COCO(folder / "instances_val2014_100.json")
    results = read_results(folder / "instances_val2014_fakebbox100_results.json")
    known = (
        "0.504581 0.696973 0.572982 0.585626 0.519400 0.501398 0.386813 0.593680 0.595353 0.639811 0.566421 0.564291"
    )
    assert [f"{figure:.6f}" for figure in evaluate_boxes(coco, results)] == known.split()


def test_results_have_corner_and_size_and_category_ids() -> None:
    detections = [
        {
            "image_id": 7,
            "scores": torch.tensor([0.5, 0.25]),
            "labels": torch.tensor([1, 0]),
            "boxes": torch.tensor([[1.0, 2.0, 5.0, 10.0], [-1.0, 0.0, 3.0, 4.5]]),
        },
        {"image_id": 8, "scores": torch.ones(0), "labels": torch.ones(0, dtype=torch.int64), "boxes": torch.ones(0, 4)},
    ]
    assert coco_results(detections, CATEGORIES) == [
        {"image_id": 7, "category_id": 17, "bbox": [1, 2, 4, 8], "score": 0.5},
        {"image_id": 7, "category_id": 3, "bbox": [-1, 0, 4, 4.5], "score": 0.25},
    ]


@pytest.mark.parametrize("name", ["scores", "boxes"])
def test_numbers_of_a_diverged_model_are_refused(name: str) -> None:
    detection = {"scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.int64), "boxes": torch.ones(1, 4)}
    detection[name] = detection[name] * torch.nan
    with pytest.raises(ValueError, match="on image 9 is not finite"):
        coco_results([{"image_id": 9, **detection}], CATEGORIES)


def test_detections_of_unknown_images_are_refused() -> None:
    with pytest.raises(ValueError, match="1 detected images are not in the annotations, such as image 44"):
        evaluate_boxes(coco_of(TRUTH), results_of([(44, 1, (0, 0, 1, 1), 0.5)]))


def test_the_annotation_id_that_pycocotools_counts_as_missed_is_refused() -> None:
    coco = coco_of(TRUTH)
    coco.dataset["annotations"][0]["id"] = 0
    coco.createIndex()
    with pytest.raises(ValueError, match="id 0"):
        evaluate_boxes(coco, [])


GOOD = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1.5], "score": 0.5, "segmentation": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ("{}", "should hold a list of detections, but holds a dict"),
        ("[3]", "detection 0 should be an object"),
        ([GOOD, GOOD | {"image_id": "1"}], "detection 1 should have a whole number as image_id, but has '1'"),
        ([GOOD | {"category_id": True}], "category_id, but has True"),
        ([GOOD | {"bbox": [0, 0, 1]}], "four finite numbers"),
        ([GOOD | {"bbox": [0, 0, 1, float("nan")]}], "four finite numbers"),
        ([GOOD | {"score": True}], "finite score, but has True"),
        ([GOOD | {"score": None}], "finite score, but has None"),
    ],
)
def test_files_of_results_are_checked(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_results(file)


def test_a_file_of_results_is_read(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([GOOD]))
    assert read_results(file) == [{name: GOOD[name] for name in GOOD if name != "segmentation"}]
    with pytest.raises(ValueError, match="no file"):
        read_results(tmp_path / "none.json")


def test_the_table_has_a_line_for_each_figure() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table_of(Twelve(*(i / 16 for i in range(11)), -1.0)))
    rows = [line.split() for line in console.export_text().splitlines() if " A" in line]
    assert [row[1] for row in rows] == [name.split()[0] for name in NAMES]
    assert [row[-2] for row in rows] == [f"{i / 16:.4f}" for i in range(11)] + ["-"]
