"""Whether annotations have COCO's form: three lists of objects, in which what is read is there and of its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Of each list: keys with whole numbers, and other keys that must be there.
LISTS = {
    "images": (("id", "height", "width"), ("file_name",)),
    "annotations": (("id", "image_id", "category_id"), ("bbox",)),
    "categories": (("id",), ("name",)),
}
LENGTHS, TEXTS = ("height", "width"), ("file_name", "name")


def form_problems(dataset: Any) -> Iterator[str]:
    """A line for everything that is missing or of another kind."""
    if not isinstance(dataset, dict):
        yield f"should be an object with {', '.join(LISTS)}, is a {type(dataset).__name__}"
        return
    for name, (numbers, others) in LISTS.items():
        entries = dataset.get(name)
        if not isinstance(entries, list):
            yield f"has no list {name!r}"
            continue
        if not entries and name != "annotations":
            yield f"there are no {name}"
        for place, entry in enumerate(entries):
            wrong = _entry(entry, numbers, others)
            if wrong:
                known = f" (id {short(entry['id'])})" if isinstance(entry, dict) and "id" in entry else ""
                yield f"{name}[{place}]{known} {wrong}"


def _entry(entry: Any, numbers: tuple[str, ...], others: tuple[str, ...]) -> str | None:
    if not isinstance(entry, dict):
        return f"should be an object, is {short(entry)}"
    missing = [key for key in (*numbers, *others) if key not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    wrong = [key for key in (*numbers, *others) if not _kind(entry, key, numbers)]
    return f"is wrong: {', '.join(f'{key} is {short(entry[key])}' for key in wrong)}" if wrong else None


def _kind(entry: Mapping[str, Any], key: str, numbers: tuple[str, ...]) -> bool:
    if key in TEXTS:
        return isinstance(entry[key], str)
    return key not in numbers or (whole(entry[key]) and (key not in LENGTHS or entry[key] >= 1))


def whole(number: Any) -> bool:
    """Whether it is a whole number within int64, in which ids are kept."""
    return isinstance(number, int) and not isinstance(number, bool) and -(2**63) <= number < 2**63


def short(value: Any) -> str:
    """A value in a message: one line, and never a whole file's length."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
