"""Everything that is wrong with a data set is said before training starts, by file and id, in one message."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detr_reference.data.coco import CocoDetection, checked, read_annotations
from detr_reference.data.coco_problems import SHOWN, DataError, problems
from detr_reference.data.images import ImageError, read_image
from helpers.tiny.coco_folder import CocoFolder, coco_folder


@pytest.fixture
def data(tmp_path: Path) -> CocoFolder:
    return coco_folder(tmp_path)


def found(data: CocoFolder, **how: Any) -> list[str]:
    return problems(data.images, data.save().annotations, **how)


def test_nothing_is_wrong(data: CocoFolder) -> None:
    assert found(data) == []
    assert len(checked(data.images, data.annotations)) == 3


def _set(kind: str, place: int, **values: Any) -> Callable[[Any], None]:
    return lambda dataset: dataset[kind][place].update(values)


def _drop(kind: str, place: int, key: str) -> Callable[[Any], None]:
    return lambda dataset: dataset[kind][place].pop(key)


BOX = "annotation 2 of image 4: bbox must be"
BROKEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no list": (lambda dataset: dataset.pop("annotations"), "has no list 'annotations'"),
    "list of another kind": (lambda dataset: dataset.update(images={}), "has no list 'images'"),
    "no images": (lambda dataset: dataset.update(images=[], annotations=[]), "there are no images"),
    "no categories": (lambda dataset: dataset.update(categories=[], annotations=[]), "there are no categories"),
    "no object": (lambda dataset: dataset["annotations"].append([1, 2]), "annotations[4] should be an object"),
    "missing bbox": (_drop("annotations", 1, "bbox"), "annotations[1] (id 2) has no bbox"),
    "missing file_name": (_drop("images", 1, "file_name"), "images[1] (id 7) has no file_name"),
    "missing name": (_drop("categories", 0, "name"), "categories[0] (id 5) has no name"),
    "id is text": (_set("images", 0, id="4"), "images[0] (id '4') is wrong: id is '4'"),
    "id is a list": (_set("annotations", 0, image_id=[4]), "annotations[0] (id 1) is wrong: image_id is [4]"),
    "id beyond int64": (_set("images", 2, id=2**63), f"id is {2**63}"),
    "id is true": (_set("annotations", 0, category_id=True), "category_id is True"),
    "height 0": (_set("images", 0, height=0), "images[0] (id 4) is wrong: height is 0"),
    "file_name is null": (_set("images", 0, file_name=None), "file_name is None"),
    "image twice": (_set("images", 2, id=4), "image 4: the id is used 2 times"),
    "annotation twice": (_set("annotations", 1, id=1), "annotation 1: the id is used 2 times"),
    "annotation 0": (_set("annotations", 1, id=0), "annotation 0 of image 4: ids must not be 0"),
    "category twice": (
        lambda dataset: dataset["categories"].append({"id": 5, "name": "cow"}),
        "category 5: the id is used 2 times",
    ),
    "unknown image": (_set("annotations", 1, image_id=99), "annotation 2 of image 99: there is no such image"),
    "unknown category": (_set("annotations", 1, category_id=99), "annotation 2 of image 4: there is no category 99"),
    "three sides": (_set("annotations", 1, bbox=[1, 2, 3]), BOX),
    "not a list": (_set("annotations", 1, bbox=None), BOX),
    "text in a box": (_set("annotations", 1, bbox=[1, 2, 3, "4"]), BOX),
    "true in a box": (_set("annotations", 1, bbox=[1, 2, 3, True]), BOX),
    "NaN": (_set("annotations", 1, bbox=[1, 2, float("nan"), 4]), BOX),
    "infinite": (_set("annotations", 1, bbox=[float("-inf"), 2, 3, 4]), BOX),
    "beyond float": (_set("annotations", 1, bbox=[1, 2, 10**400, 4]), BOX),
    "negative width": (_set("annotations", 1, bbox=[1, 2, -3, 4]), BOX),
    "iscrowd 2": (_set("annotations", 1, iscrowd=2), "annotation 2 of image 4: iscrowd must be 0 or 1, is 2"),
    "area is text": (_set("annotations", 1, area="12"), "annotation 2 of image 4: area must be a finite number"),
    "area NaN": (_set("annotations", 1, area=float("nan")), "annotation 2 of image 4: area must be a finite number"),
    "another size": (_set("images", 0, width=31), "4.png: height and width are (20, 30), the annotations say (20, 31)"),
    "missing file": (_set("images", 0, file_name="none.png"), "image 4: "),
    "a folder": (_set("images", 0, file_name="."), "image 4: "),
    "a name with a zero byte": (_set("images", 0, file_name="4\0.png"), "image 4: "),
    "a name too long": (_set("images", 0, file_name="4" * 5000), "image 4: "),
    "upwards": (_set("images", 0, file_name="../outside.png"), "image 4: file_name '../outside.png' leads out of"),
    "absolute": (_set("images", 0, file_name="/etc/hostname"), "image 4: file_name '/etc/hostname' leads out of"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_annotations_is_found_alone(kind: str, data: CocoFolder) -> None:
    breaks, message = BROKEN[kind]
    Image.new("RGB", (30, 20)).save(data.images.parent / "outside.png")
    breaks(data.dataset)
    lines = found(data)
    assert len(lines) == 1, lines
    assert message in lines[0]
    assert "\n" not in lines[0]
    with pytest.raises(DataError, match="1 problem with"):
        checked(data.images, data.annotations)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_what_is_not_json(text: str, data: CocoFolder) -> None:
    data.annotations.write_text(text, encoding="latin-1")
    (line,) = problems(data.images, data.annotations)
    assert str(data.annotations) in line
    assert "not JSON" in line
    with pytest.raises(DataError, match="not JSON"):
        read_annotations(data.annotations)


def test_missing_files(data: CocoFolder, tmp_path: Path) -> None:
    assert problems(data.images, tmp_path / "none.json") == [
        f"{tmp_path / 'none.json'}: cannot be read (No such file or directory)"
    ]
    assert problems(tmp_path / "none", data.annotations) == [f"{tmp_path / 'none'}: no such folder"]
    data.annotations.write_text("[]")
    assert (
        "should be an object with images, annotations, categories, is a list"
        in problems(data.images, data.annotations)[0]
    )


def test_categories_that_the_model_does_not_know(data: CocoFolder) -> None:
    assert found(data, known_ids=(3, 5, 8)) == []
    (line,) = found(data, known_ids=(5,))
    assert "category 3 ('cat'): the model does not know it" in line


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def _truncated_jpeg(path: Path) -> None:
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    pixels.save(path, "JPEG", quality=100)
    _cut(path)


def _flipped_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut, _truncated_jpeg, _flipped_byte])
def test_damaged_images_are_found_by_decoding(damage: Callable[[Path], None], data: CocoFolder) -> None:
    damage(data.file(7))
    (line,) = found(data)
    assert line.startswith(f"image 7: {data.file(7)}: damaged")
    assert found(data, decode=False) == []


def _no_image(path: Path) -> None:
    path.write_bytes(b"not an image")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _postscript(path: Path) -> None:
    Image.new("RGB", (16, 24)).save(path, "EPS")


def _bomb(width: int, height: int) -> Callable[[Path], None]:
    """A PNG of a few bytes that claims a great size."""

    def write(path: Path) -> None:
        head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        body = b"IDAT" + zlib.compress(b"\0")
        chunks = [
            struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in (head, body)
        ]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))

    return write


def _sixteen_bits(path: Path) -> None:
    Image.new("I;16", (16, 24)).save(path)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_no_image, "not an image of JPEG, PNG"),
        (_empty, "not an image of JPEG, PNG"),
        (_postscript, "not an image of JPEG, PNG"),
        (_bomb(60_000, 60_000), "too large"),
        (_bomb(10_000, 10_001), "10000 x 10001 pixels are more than"),
        (_sixteen_bits, "more than 8 bits"),
    ],
)
def test_images_that_are_not_read(write: Callable[[Path], None], message: str, decode: bool, data: CocoFolder) -> None:
    write(data.file(7))
    (line,) = found(data, decode=decode)
    assert line.startswith(f"image 7: {data.file(7)}: ")
    assert message in line
    with pytest.raises(ImageError):
        read_image(data.file(7))


def test_a_strip_is_refused(data: CocoFolder) -> None:
    Image.new("RGB", (1, 51)).save(data.file(9))
    data.dataset["images"][2].update(width=1, height=51)
    (line,) = found(data)
    assert "(51, 1) is narrower than 1 to 50" in line


def test_links(data: CocoFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    os.replace(data.file(7), outside)
    data.file(7).symlink_to(outside)
    (line,) = found(data)
    assert line.startswith("image 7: file_name '7.png' leads out of")
    data.file(7).unlink()
    data.file(7).symlink_to(data.file(7))
    assert len(found(data)) == 1
    data.file(7).unlink()
    os.replace(outside, data.file(7))
    whole = tmp_path / "link"
    whole.symlink_to(data.images)
    assert problems(whole, data.annotations) == []


def test_everything_is_in_one_message(data: CocoFolder) -> None:
    data.file(7).write_bytes(b"no image")
    data.dataset["annotations"][0]["category_id"] = 99
    data.dataset["annotations"][3]["bbox"] = []
    with pytest.raises(DataError) as error:
        checked(data.images, data.save().annotations)
    message = str(error.value)
    assert message.startswith(f"3 problems with the images in {data.images} and the annotations in {data.annotations}:")
    assert len(message.splitlines()) == 4
    for part in ("annotation 1 of image 4", "annotation 4 of image 7", "image 7: "):
        assert part in message


def test_many_problems_are_counted(data: CocoFolder) -> None:
    bad = dict(data.dataset["annotations"][0], bbox=[])
    data.dataset["annotations"] = [dict(bad, id=number) for number in range(1, SHOWN + 8)]
    with pytest.raises(DataError) as error:
        checked(data.images, data.save().annotations)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{SHOWN + 7} problems")
    assert len(lines) == SHOWN + 2
    assert lines[-1].strip() == "... and 7 more"


def test_long_values_are_cut(data: CocoFolder) -> None:
    data.dataset["annotations"][0]["bbox"] = [0] * 10_000
    assert len(found(data)[0]) < 400


def test_progress_is_told(data: CocoFolder) -> None:
    told: list[tuple[int, int]] = []
    found(data, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_data_set_is_not_made_of_broken_annotations(data: CocoFolder) -> None:
    data.dataset["annotations"][0]["bbox"] = [1, 2, 3]
    with pytest.raises(DataError, match="annotation 1 of image 4"):
        CocoDetection(data.images, data.save().annotations)
