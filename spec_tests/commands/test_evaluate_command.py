"""`detr-spec evaluate`: figures known beforehand, of a published file and of saved detections, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from detr_reference.training.detection.evaluation import NAMES
from detr_reference.training.detection.trained import open_trained, save_trained
from detr_reference.training.recipes.recipe import Recipe
from helpers import commands
from helpers.tiny.trained_cases import CAR, SCORE, write_coco, write_published

# Every image is said to have a car in its middle. The scores are equal, so the order is that of the images: the first
# has no car, the other three do. Precision 1/2, 2/3 and 3/4 at the recalls 1/3, 2/3 and 1; interpolated 3/4 everywhere.
AP, AR = 3 / 4, 1.0


def run(*arguments: object) -> Result:
    return commands.run("evaluate", *arguments)


def refused(*arguments: object) -> str:
    """What says why not: one line, or a list of all that is wrong with the data."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.strip().splitlines()) == 1 or " problem" in result.stderr
    return result.stderr


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def test_a_published_file_is_evaluated(tmp_path: Path, coco: Path) -> None:
    """The same by COCO's folder, two images at a time, and by images and annotations; then of what it saved."""
    weights, recipe = write_published(tmp_path)
    figures, found = tmp_path / "figures.json", tmp_path / "found.json"
    images, annotations = coco / "val2017", coco / "annotations" / "instances_val2017.json"
    model = (weights, "--recipe", recipe, "--device", "cpu", "--workers", 0)
    for place in (("--coco", coco, "--batch-size", 2), ("--images", images, "--annotations", annotations)):
        result = run(*model, *place, "--json", figures, "--save-detections", found)
        assert result.exit_code == 0, result.output
        assert [line.split()[1] for line in result.stdout.splitlines() if "0.7500" in line] == [
            "AP",
            "AP50",
            "AP75",
            "AP",
        ]
        known = json.loads(figures.read_text())
        assert list(known) == list(NAMES)
        assert [known["AP"], known["AP50"], known["AR100"]] == pytest.approx([AP, AP, AR])
        assert known["AP large"] == -1

    first = json.loads(found.read_text())[0]
    assert (first["image_id"], first["category_id"]) == (1, CAR)
    assert first["bbox"] == pytest.approx([15, 10, 30, 20], abs=1e-4)
    assert first["score"] == pytest.approx(SCORE, abs=1e-5)
    again = run("--detections", found, "--annotations", annotations)
    assert again.stdout == result.stdout


def test_the_known_figures_of_real_detections(shared_data: Path, tmp_path: Path) -> None:
    folder, figures = shared_data / "coco_eval", tmp_path / "figures.json"
    saved = ("--detections", folder / "instances_val2014_fakebbox100_results.json")
    result = run(*saved, "--annotations", folder / "instances_val2014_100.json", "--json", figures)
    assert result.exit_code == 0, result.output
    assert round(json.loads(figures.read_text())["AP"], 6) == 0.504581


def test_a_run_on_generated_images_needs_no_others(tmp_path: Path) -> None:
    """It keeps them in its folder."""
    weights, recipe = write_published(tmp_path)
    trained = open_trained(weights, recipe=Recipe.read(recipe))
    save_trained(tmp_path, trained.model, trained.recipe, trained.categories)
    write_coco(tmp_path / "data")
    result = run(tmp_path, "--device", "cpu", "--workers", 0)
    assert result.exit_code == 0, result.output
    assert "0.7500" in result.stdout


def test_one_line_says_what_is_missing(tmp_path: Path, coco: Path) -> None:
    weights, recipe = write_published(tmp_path)
    assert "CHECKPOINT or --detections" in refused("--coco", coco)
    assert "CHECKPOINT or --detections" in refused(weights, "--detections", weights, "--coco", coco)
    assert "say where the images are" in refused(weights)
    assert "say where the images are" in refused(weights, "--annotations", coco)
    assert "leave --images and --annotations out" in refused(weights, "--coco", coco, "--images", coco)
    assert "name a recipe" in refused(weights, "--coco", coco)
    assert "--set changes the recipe" in refused(weights, "--coco", coco, "--set", "model.num_queries=3")
    assert "needs KEY=VALUE" in refused(weights, "--coco", coco, "--recipe", recipe, "--set", "model.num_queries")
    assert "nowhere" in refused(weights, "--recipe", tmp_path / "nowhere.toml", "--coco", coco)
    assert "no file at" in refused(tmp_path / "nothing.pth", "--recipe", recipe, "--coco", coco)
    assert "nowhere" in refused(weights, "--recipe", recipe, "--coco", tmp_path / "nowhere")
    assert "device" in refused(weights, "--recipe", recipe, "--coco", coco, "--device", "abacus")
    assert "there is no folder" in refused(
        "--detections", _empty(tmp_path), *_annotations(coco), "--json", tmp_path / "no" / "folder.json"
    )


def _empty(folder: Path) -> Path:
    file = folder / "empty.json"
    file.write_text("[]")
    return file


def _annotations(coco: Path) -> tuple[str, Path]:
    return "--annotations", coco / "annotations" / "instances_val2017.json"


def test_no_detections_are_zeros(tmp_path: Path, coco: Path) -> None:
    result = run("--detections", _empty(tmp_path), *_annotations(coco))
    assert result.exit_code == 0, result.output
    assert "0.0000" in result.stdout


def test_detections_of_other_images_are_refused(tmp_path: Path, coco: Path) -> None:
    file = tmp_path / "found.json"
    file.write_text(json.dumps([{"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]))
    assert "such as image 77" in refused("--detections", file, *_annotations(coco))
