"""What is wrong with images and annotations, all of it at once and before training starts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from detr_reference.data.coco_form import form_problems, short
from detr_reference.data.images import ImageError, open_image, read_image

Progress = Callable[[int, int], None]
SHOWN = 20
# Resized to a shorter side of hundreds of pixels before it is cropped, a longer strip would fill the memory.
NARROWEST = 50
# Far beyond any image, and so far below float32's end that sums stay finite.
FARTHEST = 1e9


class DataError(ValueError):
    """Images or annotations that cannot be used; the message lists what is wrong, by file and id."""


def raise_for(found: list[str], about: str) -> None:
    """Nothing, if nothing is found.

    Raises:
        DataError: how much is found, and the first `SHOWN`.
    """
    if found:
        more = [f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        listed = "\n".join(f"  {each}" for each in [*found[:SHOWN], *more])
        raise DataError(f"{count} with {about}:\n{listed}")


def problems(
    images: Path,
    annotations: Path,
    known_ids: Collection[int] | None = None,
    *,
    decode: bool = True,
    progress: Progress | None = None,
) -> list[str]:
    """A line for everything that is wrong; where one of the two cannot be used as a whole, that alone.

    Args:
        known_ids: the category ids that a model knows; None takes those of the file.
        decode: whether every image is read whole, which finds damaged ones; else only what its head says.
        progress: called with (images done, images in all).
    """
    try:
        dataset = read_json(annotations)
    except DataError as error:
        return [str(error)]
    form = list(form_problems(dataset))
    found = [f"{annotations}: {each}" for each in form or _contents(dataset, known_ids)]
    if not images.is_dir():
        return [*found, f"{images}: no such folder"]
    return found if form else [*found, *_images(images, dataset["images"], decode, progress)]


def read_json(path: Path) -> Any:
    """What the file holds, whatever that is.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error


def dataset_problems(dataset: Any, known_ids: Collection[int] | None = None) -> list[str]:
    """What is wrong with annotations by themselves, as `problems`; the images are not looked at."""
    return list(form_problems(dataset)) or list(_contents(dataset, known_ids))


def _contents(dataset: Mapping[str, Any], known_ids: Collection[int] | None) -> Iterator[str]:
    yield from _twice("image", dataset["images"])
    yield from _categories(dataset["categories"], known_ids)
    yield from _annotations(dataset)


def _number(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < FARTHEST


def _twice(kind: str, entries: list[dict[str, Any]]) -> list[str]:
    counts = Counter(entry["id"] for entry in entries)
    return [f"{kind} {number}: the id is used {count} times" for number, count in counts.items() if count > 1]


def _categories(categories: list[dict[str, Any]], known_ids: Collection[int] | None) -> Iterator[str]:
    yield from _twice("category", categories)
    if known_ids is not None:
        for each in categories:
            if each["id"] not in known_ids:
                yield f"category {each['id']} ({short(each['name'])}): the model does not know it"


def _annotations(dataset: Mapping[str, Any]) -> Iterator[str]:
    images = {image["id"] for image in dataset["images"]}
    categories = {category["id"] for category in dataset["categories"]}
    yield from _twice("annotation", dataset["annotations"])
    for each in dataset["annotations"]:
        about = f"annotation {each['id']} of image {each['image_id']}"
        if each["id"] == 0:
            yield f"{about}: ids must not be 0, which COCO's evaluation takes for not found"
        if each["image_id"] not in images:
            yield f"{about}: there is no such image"
        if each["category_id"] not in categories:
            yield f"{about}: there is no category {each['category_id']}"
        if not _box(each["bbox"]):
            box = short(each["bbox"])
            yield f"{about}: bbox must be (x, y, width, height), finite numbers, with sizes from 0 up, is {box}"
        if each.get("iscrowd", 0) not in (0, 1):
            yield f"{about}: iscrowd must be 0 or 1, is {short(each['iscrowd'])}"
        if not (_number(each.get("area", 0)) and each.get("area", 0) >= 0):
            yield f"{about}: area must be a finite number from 0 up, is {short(each['area'])}"


def _box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_number, box)) and box[2] >= 0 and box[3] >= 0


def _images(folder: Path, images: list[dict[str, Any]], decode: bool, progress: Progress | None) -> Iterator[str]:
    for done, image in enumerate(images, start=1):
        wrong = _image(folder, image, decode)
        if wrong:
            yield f"image {image['id']}: {wrong}"
        if progress is not None:
            progress(done, len(images))


def _image(folder: Path, image: Mapping[str, Any], decode: bool) -> str | None:
    """What is wrong with a file, or None. Annotations come from elsewhere: they may name no file outside the folder."""
    path = folder / image["file_name"]
    if not _within(path, folder):
        name = short(image["file_name"])
        return f"file_name {name} leads out of {folder} (of links, only one to the whole folder is followed)"
    try:
        with read_image(path) if decode else open_image(path) as opened:
            size = (opened.height, opened.width)
    except ImageError as error:
        return str(error)
    if size != (image["height"], image["width"]):
        return f"{path}: height and width are {size}, the annotations say {(image['height'], image['width'])}"
    if max(size) > NARROWEST * min(size):
        return f"{path}: (height, width) {size} is narrower than 1 to {NARROWEST}"
    return None


def _within(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a zero byte, a circle of links: nothing to be read
        return False
