"""COCO's format is read as published: crowds out, boxes clipped, no area dropped, images without boxes kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detr_reference.data.categories import Categories
from detr_reference.data.coco import CocoDetection, checked, read_annotations
from detr_reference.data.coco_problems import DataError
from detr_reference.data.images import read_image, tensor_of
from helpers.tiny.coco_folder import CocoFolder, annotation, coco_folder


@pytest.fixture
def data(tmp_path: Path) -> CocoFolder:
    return coco_folder(tmp_path)


def test_images_come_in_the_order_of_their_ids(data: CocoFolder) -> None:
    data.dataset["images"].reverse()
    dataset = CocoDetection(data.images, data.save().annotations)
    assert dataset.image_ids == [4, 7, 9]
    assert [dataset[index].image_id for index in range(len(dataset))] == [4, 7, 9]
    assert [dataset[index].original_size for index in range(3)] == [(20, 30), (24, 16), (10, 10)]
    assert dataset.image_path(1) == data.file(7)


def test_a_sample_has_the_pixels_and_the_boxes(data: CocoFolder) -> None:
    sample = CocoDetection(data.images, data.annotations)[0]
    with Image.open(data.file(4)) as image:
        pixels = np.asarray(image)
    assert sample.image.dtype == torch.float32
    assert torch.equal((sample.image * 255).round().to(torch.uint8), torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    # The second reaches over the right and the lower edge; the crowd is left out. Category 3 is label 0, 5 is 1.
    assert sample.boxes.tolist() == [[2, 3, 12, 11], [25.5, 15, 30, 20]]
    assert sample.labels.tolist() == [1, 0]


def test_boxes_are_clipped_on_all_sides_and_dropped_without_area(data: CocoFolder) -> None:
    data.dataset["annotations"] = [
        annotation(1, 4, 3, [-5, -6, 10, 10]),
        annotation(2, 4, 5, [3, 3, 0, 5]),
        annotation(3, 4, 5, [3, 3, 5, 0]),
        annotation(4, 4, 5, [30, 2, 5, 5]),
        annotation(5, 4, 3, [2, -9, 5, 9]),
        annotation(6, 4, 5, [28, 18, 9, 9]),
    ]
    sample = CocoDetection(data.images, data.save().annotations)[0]
    assert sample.boxes.tolist() == [[0, 0, 5, 4], [28, 18, 30, 20]]
    assert sample.labels.tolist() == [0, 1]


def test_images_without_boxes_are_kept(data: CocoFolder) -> None:
    sample = CocoDetection(data.images, data.annotations)[2]
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == (0,)
    assert (sample.boxes.dtype, sample.labels.dtype) == (torch.float32, torch.int64)


def test_crowds_are_kept_for_the_evaluation_and_nothing_is_printed(
    data: CocoFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = checked(data.images, data.annotations)
    assert sorted(dataset.coco.anns) == [1, 2, 3, 4]
    assert dataset.coco.anns[3]["iscrowd"] == 1
    assert capsys.readouterr() == ("", "")


def test_iscrowd_may_be_absent(data: CocoFolder) -> None:
    for each in data.dataset["annotations"]:
        del each["iscrowd"], each["area"]
    assert len(checked(data.images, data.save().annotations)[0].boxes) == 3


def test_labels_of_a_model_that_numbers_by_id(data: CocoFolder) -> None:
    categories = Categories.of(data.dataset["categories"]).by_id(6)
    dataset = checked(data.images, data.annotations, categories)
    assert dataset[0].labels.tolist() == [5, 3]
    assert dataset.categories is categories


def test_categories_given_must_have_those_of_the_file(data: CocoFolder) -> None:
    with pytest.raises(DataError, match="category 3 \\('cat'\\): the model does not know it"):
        CocoDetection(data.images, data.annotations, Categories((5,), ("dog",)))


def test_annotations_alone(data: CocoFolder) -> None:
    for image_id in (4, 7, 9):
        data.file(image_id).unlink()
    assert sorted(read_annotations(data.annotations).imgs) == [4, 7, 9]


def test_categories_both_ways() -> None:
    categories = Categories.of(
        [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop"}]
    )
    assert (categories.ids, categories.names) == ((1, 13, 90), ("person", "stop", "toothbrush"))
    assert [categories.label_of(number) for number in categories.ids] == [0, 1, 2]
    assert [categories.id_of(label) for label in range(len(categories))] == [1, 13, 90]
    assert Categories.of(categories.to_list()) == categories
    with pytest.raises(KeyError, match="no category has the id 2"):
        categories.label_of(2)
    for label in (-1, 3):
        with pytest.raises(IndexError, match=f"no category has the label {label}"):
            categories.id_of(label)


def test_categories_by_id() -> None:
    categories = Categories((1, 3), ("person", "car")).by_id(5)
    assert categories.names == ("(0)", "person", "(2)", "car", "(4)")
    assert all(categories.label_of(number) == number == categories.id_of(number) for number in range(5))
    with pytest.raises(ValueError, match="category id 3 needs more than 3 classes"):
        Categories((1, 3), ("person", "car")).by_id(3)


@pytest.mark.parametrize(("ids", "names"), [((), ()), ((1,), ("a", "b")), ((1, 2, 1), ("a", "b", "c"))])
def test_categories_that_are_none(ids: tuple[int, ...], names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"category ids must differ|as many names as ids"):
        Categories(ids, names)


RED = (200, 40, 40)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_kind_of_image_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), RED).convert(mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    image.save(path)
    with read_image(path) as read:
        assert (read.mode, read.size) == ("RGB", (6, 4))
        tensor = tensor_of(read)
    assert tensor.shape == (3, 4, 6)
    grey = 87 / 255  # 0.299 x 200 + 0.587 x 40 + 0.114 x 40
    if mode in ("P", "RGBA", "CMYK"):
        expected = torch.tensor(RED) / 255
    elif mode == "1":
        expected = tensor[:, 0, 0].round()
    else:
        expected = torch.full((3,), grey)
    torch.testing.assert_close(tensor[:, 1, 2], expected, atol=0.1 if mode == "P" else 0.02, rtol=0)


def test_the_turn_noted_in_a_file_is_not_applied(tmp_path: Path) -> None:
    """COCO's boxes refer to the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    for name in ("image.jpg", "image.png"):
        Image.new("RGB", (6, 4), RED).save(tmp_path / name, exif=exif)
        assert read_image(tmp_path / name).size == (6, 4)
