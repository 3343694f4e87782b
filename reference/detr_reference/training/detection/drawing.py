"""Boxes drawn on images, with the names of their categories."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

READABLE = 480  # pixels; a shorter image is enlarged by a whole factor, or its names could not be read
GOLDEN = 0.618034  # of a turn: hues of neighbouring labels lie far apart, however many there are
DARKEST = 150  # a background less bright than this, of 255, takes white text
PAD = 2  # pixels of background around a text

Corners = tuple[float, float, float, float]  # x1, y1, x2, y2


class Drawn(NamedTuple):
    """What is drawn on one image.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels of the image.
        labels: classes, counted from 0.
        scores: None for the ground truth.
    """

    boxes: Float[Tensor, "box 4"]
    labels: Int[Tensor, " box"]
    scores: Float[Tensor, " box"] | None = None


class Label(NamedTuple):
    """A text and the rectangle of its background."""

    text: str
    x: float
    y: float
    across: float
    down: float
    font: ImageFont.FreeTypeFont


def above(detection: Mapping[str, Any], threshold: float, top: int | None = None) -> Drawn:
    """The detections {"scores", "labels", "boxes"} of one image with at least this score, best first, at most top."""
    scores = detection["scores"].double().cpu()
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= threshold][:top]
    return Drawn(detection["boxes"].double().cpu()[order], detection["labels"].cpu()[order], scores[order])


def draw_boxes(image: Image.Image, drawn: Drawn, names: Sequence[str]) -> Image.Image:
    """A copy of the image with boxes, names and scores; the best detection lies on top.

    Lines and text grow with the image. A small image is enlarged, see `READABLE`. A name stands above its box, or
    where else it fits without hiding another one, and never outside the image.

    Args:
        names: of the labels.
    """
    factor = -(-READABLE // max(image.size))
    picture = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 250))
    corners = [_inside(box, picture.size) for box in (drawn.boxes * factor).tolist()]
    colours = [colour_of(label) for label in drawn.labels.tolist()]
    for box, colour in reversed([*zip(corners, colours, strict=True)]):
        canvas.rectangle(box, outline=colour, width=line)
    labels = [*zip(_placed(_texts(drawn, names), corners, picture.size), colours, strict=True)]
    for label, colour in reversed(labels):
        _write(canvas, label, colour)
    return picture


def colour_of(label: int) -> tuple[int, int, int]:
    """A strong colour, always the same for a label."""
    value = (0.95, 0.75)[label % 2]
    red, green, blue = colorsys.hsv_to_rgb(0.58 + label * GOLDEN, 0.8, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def font_for(size: tuple[int, int]) -> ImageFont.FreeTypeFont:
    """Text that is read on an image of this size, and hides little of it."""
    font = ImageFont.load_default(min(40, max(11, round(min(size) / 32))))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("writing on images needs a Pillow that was built with FreeType")
    return font


def _texts(drawn: Drawn, names: Sequence[str]) -> list[str]:
    texts = [names[label] for label in drawn.labels.tolist()]
    if drawn.scores is None:
        return texts
    return [f"{text} {score:.2f}" for text, score in zip(texts, drawn.scores.tolist(), strict=True)]


def _inside(box: Sequence[float], size: tuple[int, int]) -> Corners:
    x1, y1, x2, y2 = (float(min(max(at, 0), limit - 1)) for at, limit in zip(box, (*size, *size), strict=True))
    return x1, y1, max(x1, x2), max(y1, y2)


def _placed(texts: Sequence[str], boxes: Sequence[Corners], size: tuple[int, int]) -> list[Label]:
    """Each text at the first place by its box where it covers no earlier one, if there is such a place."""
    placed: list[Label] = []
    font = font_for(size)
    down = float(sum(font.getmetrics()) + PAD)
    for text, (left, top, right, bottom) in zip(texts, boxes, strict=True):
        text = _shortened(text, font, size[0] - 2 * PAD)
        across = font.getlength(text) + 2 * PAD
        places = [(left, top - down), (left, top), (right - across, top), (left, bottom - down), (left, bottom)]
        kept = [(min(max(x, 0.0), size[0] - across), min(max(y, 0.0), size[1] - down)) for x, y in places]
        labels = [Label(text, x, y, across, down, font) for x, y in kept]
        free = (label for label in labels if not any(_meet(label, other) for other in placed))
        placed.append(next(free, labels[0]))
    return placed


def _write(canvas: ImageDraw.ImageDraw, label: Label, colour: tuple[int, int, int]) -> None:
    canvas.rectangle((label.x, label.y, label.x + label.across, label.y + label.down), fill=colour)
    brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    place = (label.x + PAD, label.y + PAD / 2)
    canvas.text(place, label.text, fill="white" if brightness < DARKEST else "black", font=label.font)


def _meet(first: Label, second: Label) -> bool:
    return (
        abs(2 * (first.x - second.x) + first.across - second.across) < first.across + second.across
        and abs(2 * (first.y - second.y) + first.down - second.down) < first.down + second.down
    )


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or its beginning and an ellipsis where it is too long."""
    if font.getlength(text) <= width:
        return text
    return next((cut for end in range(len(text) - 1, 0, -1) if font.getlength(cut := text[:end] + "...") <= width), "")
