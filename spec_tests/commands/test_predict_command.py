"""`detr-spec predict`: boxes known beforehand are drawn where they are, listed and written."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from detr_reference.training.detection.drawing import colour_of
from helpers import commands
from helpers.tiny.trained_cases import CAR, SCORE, write_image, write_published


def run(*arguments: object) -> Result:
    return commands.run("predict", *arguments)


@pytest.fixture
def model(tmp_path: Path) -> tuple[object, ...]:
    """The arguments that name it; options can stand behind the images."""
    weights, recipe = write_published(tmp_path)
    return weights, "--recipe", recipe, "--device", "cpu"


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_the_box_is_drawn_where_it_is_and_listed(tmp_path: Path, model: tuple[object, ...]) -> None:
    image, out, boxes = tmp_path / "photo.png", tmp_path / "found.png", tmp_path / "boxes.json"
    write_image(image, 600, 400)
    result = run(*model, image, "-o", out, "--json", boxes)
    assert result.exit_code == 0, result.output
    picture = np.asarray(Image.open(out))
    assert picture.shape == (400, 600, 3)
    coloured = (picture == colour_of(CAR)).all(-1)
    assert coloured[110:290, 150].all()
    assert coloured[300, 150:450].all()
    assert not coloured[150:250, 200:400].any()
    (told,) = json.loads(boxes.read_text())
    assert told["image"] == str(image)
    (box,) = told["boxes"]
    assert (box["category"], box["category_id"], box["score"]) == ("car", CAR, SCORE)
    assert box["box"] == pytest.approx([150, 100, 450, 300], abs=0.01)
    (row,) = (line.split() for line in result.stdout.splitlines() if "car" in line)
    assert [word for word in row if word.strip("│")] == ["car", "0.800", "150", "100", "450", "300"]


def test_nothing_is_above_the_threshold(tmp_path: Path, model: tuple[object, ...]) -> None:
    image, out = tmp_path / "photo.png", tmp_path / "found.png"
    write_image(image, 600, 400)
    result = run(*model, image, "-o", out, "--threshold", SCORE + 0.01)
    assert result.exit_code == 0, result.output
    assert "nothing" in result.stdout
    assert (np.asarray(Image.open(out)) == np.asarray(Image.open(image))).all()


def test_at_most_so_many_boxes(tmp_path: Path) -> None:
    """Of two queries, which both find the same."""
    weights, recipe = write_published(tmp_path, queries=2)
    image, boxes = tmp_path / "photo.png", tmp_path / "boxes.json"
    write_image(image, 60, 40)
    for options, count in (((), 2), (("--top", 1), 1)):
        run(weights, "--recipe", recipe, "--device", "cpu", image, "-o", tmp_path / "o", "--json", boxes, *options)
        assert len(json.loads(boxes.read_text())[0]["boxes"]) == count


def test_several_images_go_into_a_folder(tmp_path: Path, model: tuple[object, ...]) -> None:
    images = [tmp_path / "a.jpg", tmp_path / "b.png"]
    for image in images:
        write_image(image, 60, 40)
    out = tmp_path / "new" / "folder"
    assert run(*model, *images, "-o", out).exit_code == 0
    assert sorted(file.name for file in out.iterdir()) == ["a.png", "b.png"]


def test_a_photograph_is_turned_upright(tmp_path: Path, model: tuple[object, ...]) -> None:
    """As viewers show it: what the camera wrote sideways is wider than high only in the file."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter to the right
    image, boxes = tmp_path / "photo.jpg", tmp_path / "boxes.json"
    Image.new("RGB", (600, 500)).save(image, exif=exif)
    assert run(*model, image, "-o", tmp_path / "out.png", "--json", boxes).exit_code == 0
    assert Image.open(tmp_path / "out.png").size == (500, 600)
    assert json.loads(boxes.read_text())[0]["boxes"][0]["box"] == pytest.approx([125, 150, 375, 450], abs=0.01)


def test_one_line_says_what_is_wrong(tmp_path: Path, model: tuple[object, ...]) -> None:
    image, other, text = tmp_path / "photo.png", tmp_path / "x" / "photo.png", tmp_path / "text.png"
    write_image(image, 60, 40)
    write_image(other, 60, 40)
    text.write_text("no image")
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:-30])
    assert "none.png: no such file" in refused(*model, tmp_path / "none.png", "-o", tmp_path / "o")
    assert "text.png: not an image of" in refused(*model, text, "-o", tmp_path / "o")
    assert "cut.png: damaged" in refused(*model, tmp_path / "cut.png", "-o", tmp_path / "o")
    assert "need a folder" in refused(*model, image, text, "-o", tmp_path / "o.png")
    assert "would both be written" in refused(*model, image, other, "-o", tmp_path / "o")
    assert "is one of the images" in refused(*model, image, "-o", tmp_path)
    assert "is one of the images" in refused(*model, image, "-o", image)
    assert "cannot write" in refused(*model, image, "-o", text / "o.png")
    assert "name a recipe" in refused(model[0], image, "-o", tmp_path / "o")
    assert "no file at" in refused(tmp_path / "none.pth", "--recipe", model[2], image, "-o", tmp_path / "o")


def claiming(width: int, height: int) -> bytes:
    """The beginning of a PNG of so many pixels: its signature and its header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_bomb_is_refused(tmp_path: Path, model: tuple[object, ...]) -> None:
    """A few bytes that claim more pixels than are read, by this project or by Pillow."""
    image = tmp_path / "bomb.png"
    image.write_bytes(claiming(20_000, 5_001))
    assert "20000 x 5001 pixels are more" in refused(*model, image, "-o", tmp_path / "o")
    image.write_bytes(claiming(50_000, 50_000))
    assert "bomb.png: too large" in refused(*model, image, "-o", tmp_path / "o")
