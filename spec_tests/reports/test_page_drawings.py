"""Drawings: numbers and tensors in, SVG out. What is drawn where, and that nothing from a report gets in unescaped."""

from __future__ import annotations

import json
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detr_conformance.reporting.pages import case_reading
from detr_conformance.reporting.pages.case_reading import tensors_drawn
from detr_conformance.reporting.pages.drawings.band import band, number
from detr_conformance.reporting.pages.drawings.boxes import corners_of, unit_square
from detr_conformance.reporting.pages.drawings.maps import kind_of, sampling_map
from detr_conformance.reporting.pages.drawings.masks import mask_grid
from detr_conformance.reporting.pages.drawings.of_case import drawings_of
from detr_conformance.reporting.pages.drawings.place import Place, element_of, sampled_place
from detr_conformance.reporting.pages.drawings.stages import stage_ladder, told_stages
from detr_conformance.reporting.pages.drawings.svg import Drawing, picture, words
from helpers.reports.shown_reports import HOSTILE, case_of_samples

LEVELS = [(4, 6), (2, 3)]
SHAPES = {"value": (1, 30, 2, 3)}


def parts(drawing: Drawing | None, style: str) -> list[ET.Element]:
    """The shapes of a class."""
    assert drawing is not None
    return [each for each in ET.fromstring(drawing.svg).iter() if style in each.get("class", "").split()]


def across(shape: ET.Element) -> float:
    return float(shape.get("cx") or shape.get("x1") or shape.get("x") or "nan")


def test_what_is_written_is_escaped() -> None:
    assert "<script" not in picture(10, 10, HOSTILE, [words(0, 0, HOSTILE)])
    assert "<script" not in band("1", "2", "0.5 (<script>)").svg  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0 (exact)", 0.0), ("-1.5e-07", -1.5e-07), ("inf", float("inf")), ("(2, 3)", None), ("3 of 4", None), ("", None)],
)
def test_numbers_are_read_of_text(text: str, value: float | None) -> None:
    assert number(text) == value


def test_the_band_shows_who_is_outside_and_on_which_side() -> None:
    above, below = band("1", "3", "0.5"), band("1", "-1", "0.5")
    assert across(parts(above, "d-got")[0]) > across(parts(above, "d-expected")[0])
    assert across(parts(below, "d-got")[0]) < across(parts(below, "d-expected")[0])
    allowed = parts(above, "d-allowed")[0]
    assert across(allowed) + float(allowed.get("width", "0")) < across(parts(above, "d-got")[0])
    assert above is not None
    assert above.caption == "4 limits away"


@pytest.mark.parametrize("got", ["nan", "inf", "-inf", "1e308"])
def test_what_no_axis_holds_is_drawn_beside_it(got: str) -> None:
    assert parts(band("-1e308", got, "1e-3"), "d-got")


def test_shapes_and_words_are_no_numbers() -> None:
    assert band("(2, 3)", "(3, 2)", "") is None
    assert band("a result", "died of SIGSEGV", "") is None
    assert band("nan", "1", "0") is None


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        ((0.5, 0.5), "inside"),
        ((0.25 / 6, 0.5), "on the border"),
        ((-0.4 / 6, 0.5), "on the border"),
        ((-0.5 / 6, 0.5), "outside"),  # pixel coordinate -1: no corner is read
        ((0.5, 1 + 0.5 / 4), "outside"),
        ((float("nan"), 0.5), "not finite"),
    ],
)
def test_a_sample_reads_as_much_of_the_map_as_the_spec_says(point: tuple[float, float], kind: str) -> None:
    assert kind_of(*point, (4, 6)) == kind


def test_samples_outside_are_drawn_outside() -> None:
    drawing = sampling_map("level 0", (4, 6), [(0.5, 0.5), (1.2, 0.5), (9e9, 0.5), (float("inf"), 0.0)], [True] * 4)
    (board,) = parts(drawing, "d-map")
    right = across(board) + float(board.get("width", "0"))
    (inside,) = parts(drawing, "d-inside")
    assert across(inside) < right
    crosses = [float(each.get("d", "")[1:].split()[0]) for each in parts(drawing, "d-outside")]
    assert len(crosses) == 2
    assert min(crosses) > right
    assert max(crosses) < float(ET.fromstring(drawing.svg).get("width", "0"))
    assert drawing.caption == "samples that count: 1 inside, 2 outside, 1 not finite"


def test_the_cell_of_a_gradient_is_marked() -> None:
    drawing = sampling_map("level 0", (4, 6), [], [], cell=13)
    (board,), (cell,) = parts(drawing, "d-map"), parts(drawing, "d-cell")
    size = float(cell.get("width", "0"))
    assert across(cell) == pytest.approx(across(board) + size, abs=0.2)
    assert float(cell.get("y", "0")) == pytest.approx(float(board.get("y", "0")) + 2 * size, abs=0.2)


def test_a_mask_is_drawn_by_runs_and_only_its_corner_if_it_is_large() -> None:
    drawing = mask_grid("mask", [[False, True, True], [True, False, True]])
    assert len(parts(drawing, "d-padded")) == 3
    assert drawing.caption == "4 of 6 left out (dark)"
    large = mask_grid("mask", [[True] * 1000] * 1000)
    assert len(parts(large, "d-padded")) == 64
    assert "64 x 64 of 1000 x 1000" in large.caption


def test_boxes_lie_in_the_unit_square_and_the_one_meant_stands_out() -> None:
    boxes = {"boxes1": [(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 2.0, 1.0)], "boxes2": [(float("nan"), 0.0, 1.0, 1.0)]}
    drawing = unit_square("boxes", boxes, {"boxes1": 1, "boxes2": None})
    assert len(parts(drawing, "d-box")) == 2
    (special,) = parts(drawing, "d-special")
    assert special.find("title").text == "boxes1[1]"  # type: ignore[union-attr]
    assert corners_of((0.5, 0.5, 0.2, 0.4), "cxcywh") == pytest.approx((0.4, 0.3, 0.6, 0.7))


def test_the_first_stage_that_diverges_is_the_last_bar() -> None:
    told = told_stages(
        "images (2, 3); contiguous\nfirst divergence: stage decoder.2, off by 5.7e+04 limits (decoder.2[6]: ...)\n"
        "stages before it (error / limit): backbone (0.37), neck (0)"
    )
    assert told == [("backbone", 0.37), ("neck", 0.0), ("decoder.2", 5.7e4)]
    assert len(parts(stage_ladder(told), "d-over")) == 1
    assert told_stages("no stages are named that could be compared") == []
    assert stage_ladder([]) is None


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("output[0, 2, 4]", Place(image=0, query=2, head=1)),
        ("grad_sampling_locations[0, 2, 1, 1, 2, 0]", Place(0, 2, 1, 1, 2)),
        ("grad_attention_weights[0, 1, 0, 1, 2]", Place(0, 1, 0, 1, 2)),
        ("grad_value[0, 26, 1, 2]", Place(image=0, head=1, level=1, cell=2)),
        ("grad_value[0, 99, 1, 2]", Place(image=0, head=1)),
        ("output.shape", Place()),
        ("process", Place()),
    ],
)
def test_an_element_tells_what_it_belongs_to(where: str, place: Place) -> None:
    assert sampled_place(where, SHAPES, LEVELS) == place


def test_names_and_indices_are_told_apart() -> None:
    assert element_of("pred_logits, again[2, 0]") == ("pred_logits, again", (2, 0))
    assert element_of("output") is None


def test_the_samples_of_the_query_are_marked_on_every_level() -> None:
    first, second = drawings_of(case_of_samples().tensors, "output[0, 2, 4]")
    assert [drawing.title for drawing in (first, second)] == [
        "level 0 (4 x 6): image 0, query 2, head 1",
        "level 1 (2 x 3): image 0, query 2, head 1",
    ]
    assert len(parts(first, "d-marked")) == 3
    assert first.caption == "samples that count: 1 inside, 1 on the border, 1 outside"


def test_a_gradient_of_one_level_shows_that_level() -> None:
    (drawing,) = drawings_of(case_of_samples().tensors, "grad_value[0, 24, 1, 0]")
    assert drawing.title.startswith("level 1")
    assert parts(drawing, "d-cell")


def test_masks_and_boxes_of_a_case_are_drawn() -> None:
    tensors = {
        "spatial_shapes": torch.tensor(LEVELS),
        "key_padding_mask": torch.arange(30)[None] > 20,
        "attn_mask": torch.tensor([[0.0, -torch.inf]]),
        "boxes1": torch.rand(2, 4),
        "boxes2": torch.rand(3, 4),
    }
    titles = [drawing.title for drawing in drawings_of(tensors, "output[1, 2]")]
    assert titles == [
        "key_padding_mask, level 0 (4 x 6)",
        "key_padding_mask, level 1 (2 x 3)",
        "attn_mask",
        "boxes in the image",
    ]
    marked = parts(drawings_of(tensors, "output[1, 2]")[-1], "d-special")
    assert [each.find("title").text for each in marked] == ["boxes1[1]", "boxes2[2]"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"spatial_shapes": torch.tensor([[-1, 4]]), "sampling_locations": torch.rand(1, 1, 1, 1, 1, 2)},
        {"spatial_shapes": torch.tensor([[1 << 40, 4]]), "key_padding_mask": torch.ones(1, 4, dtype=torch.bool)},
        {"spatial_shapes": torch.tensor(LEVELS), "sampling_locations": torch.rand(0, 3, 2, 2, 3, 2)},
        {"spatial_shapes": torch.tensor(LEVELS), "sampling_locations": torch.rand(1, 3, 2, 2)},
        {"mask": torch.ones(0, 4, 4, dtype=torch.bool), "boxes": torch.rand(0, 4)},
        {"boxes": torch.full((2, 4), torch.nan), "masks": torch.ones(2, 2, 2, 2, 2, dtype=torch.bool)},
    ],
)
@pytest.mark.parametrize("where", ["output[9, 9, 9]", "grad_value[7, 1, 5, 0]", "boxes[3]", "nowhere"])
def test_odd_cases_are_no_failure(tensors: dict[str, torch.Tensor], where: str) -> None:
    for drawing in drawings_of(tensors, where):
        ET.fromstring(drawing.svg)


def test_of_very_many_samples_some_are_drawn() -> None:
    tensors = {"spatial_shapes": torch.tensor([[1, 1]]), "sampling_locations": torch.rand(1, 2, 1, 1, 5000, 2)}
    (drawing,) = drawings_of(tensors, "output[0, 1, 0]")
    assert len(parts(drawing, "d-marked")) + len(parts(drawing, "d-faint")) == 650


def test_only_what_is_drawn_is_read(tmp_path: Path) -> None:
    file = tmp_path / "case.safetensors"
    save_file({**case_of_samples().tensors, "parameter:weight": torch.ones(3)}, file)
    tensors = tensors_drawn(file)
    assert not isinstance(tensors, str)
    assert set(tensors) == {"value", "spatial_shapes", "level_start_index", "sampling_locations"}
    assert tensors["value"].is_meta


def test_what_is_no_case_or_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not there" in str(tensors_drawn(tmp_path / "none.safetensors"))
    assert "is not there" in str(tensors_drawn(tmp_path))
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no header")
    assert "is no case file" in str(tensors_drawn(bad))
    lying = json.dumps({"boxes": {"dtype": "F32", "shape": [1 << 40, 4], "data_offsets": [0, 16]}}).encode()
    bad.write_bytes(struct.pack("<Q", len(lying)) + lying + bytes(16))
    assert "is no case file" in str(tensors_drawn(bad))
    good = tmp_path / "good.safetensors"
    save_file({"mask": torch.ones(8, 8, dtype=torch.bool)}, good)
    monkeypatch.setattr(case_reading, "MOST_ELEMENTS", 63)
    assert tensors_drawn(good) == {}
    monkeypatch.setattr(case_reading, "LARGEST_FILE", 10)
    assert "is larger than" in str(tensors_drawn(good))
