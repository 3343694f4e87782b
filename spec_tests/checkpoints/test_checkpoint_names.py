"""The tables of names, apart from any model: each name has one row, each row is needed, and rows mean what they say."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from detr_reference.checkpoints import FORMATS, CheckpointError, detect_format
from detr_reference.checkpoints.classes import COCO_IDS, rows_of_the_model
from detr_reference.checkpoints.heads import head_in_the_model, heads_of_the_model, numbered_heads
from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables.neck import numbered, placed
from detr_reference.checkpoints.tables.parts import joined, separated
from helpers import published_models as published

RECORDS = {
    "detr": ["detr"],
    "deformable_detr": ["deformable_detr", "deformable_detr_refined", "deformable_detr_two_stage"],
    "dino": ["dino"],
    "detrex_dino": ["detrex_dino"],
    "torchvision_resnet": ["torchvision_resnet"],
}


@pytest.mark.parametrize("format", RECORDS)
def test_every_row_of_a_table_is_for_a_name_of_published_code(format: str) -> None:
    table = FORMATS[format].table
    names = [name for record in RECORDS[format] for name in published.load_record(record)["parameters"]]
    idle = [ours for theirs, ours in table.rows if not any(theirs.fullmatch(name) for name in names)]
    assert idle == []


@pytest.mark.parametrize("format", RECORDS)
def test_no_two_names_become_one_but_copies(format: str) -> None:
    table = FORMATS[format].table
    for record in map(published.load_record, RECORDS[format]):
        copies = record["copies"]
        found: dict[str, str] = {}
        for name in record["parameters"]:
            if table.is_unused(name):
                continue
            first = copies.get(name, name)
            assert copies.get(found.setdefault(str(table.ours(name)), name), found[str(table.ours(name))]) == first


def test_a_row_with_numbers_kinds_and_choices() -> None:
    table = NameTable([("[old.|]enc.{i}.[a|b].{n}.{p}", "encoder.{n}.{i}.{p}")])
    assert table.ours("old.enc.3.a.12.weight") == "encoder.12.3.weight"
    assert table.ours("enc.3.b.12.bias") == "encoder.12.3.bias"
    assert table.ours("enc.3.c.12.bias") is None
    assert table.ours("enc.3.a.12.running_mean") is None
    assert table.ours("enc.3.a.12.biases") is None
    assert table.ours("encx3.a.12.bias") is None


def test_a_name_in_two_rows_is_a_fault_of_the_table() -> None:
    table = NameTable([("a.{i}", "x.{i}"), ("a.1", "y")])
    assert table.ours("a.2") == "x.2"
    with pytest.raises(LookupError, match=r"'a\.1' is in 2 rows of the table: x\.1, y"):
        table.ours("a.1")


def test_formats_that_know_a_file_equally_well_must_be_told_apart() -> None:
    with pytest.raises(CheckpointError, match="say which it is"):
        detect_format(["input_proj.0.0.weight", "transformer.level_embed"])


def test_thirds_are_joined_in_the_order_of_query_key_value() -> None:
    thirds = {f"a.in_proj_bias:{third}": torch.tensor([float(i)]) for i, third in enumerate("qkv")}
    shuffled = dict(reversed(thirds.items()))
    whole = joined(shuffled)
    assert whole.keys() == {"a.in_proj_bias"}
    assert whole["a.in_proj_bias"].tolist() == [0, 1, 2]
    assert separated(whole).keys() == whole.keys() | thirds.keys()
    assert separated(whole)["a.in_proj_bias:k"].tolist() == [1]


def test_levels_are_placed_by_the_size_of_their_convolutions() -> None:
    levels: dict[str, Tensor] = {
        "neck.0.conv.weight": torch.zeros(2, 3, 1, 1),
        "neck.1.conv.weight": torch.zeros(2, 3, 1, 1),
        "neck.2.conv.weight": torch.zeros(2, 3, 3, 3),
        "neck.2.norm.bias": torch.zeros(2),
        "neck.10.conv.weight": torch.zeros(2, 2, 3, 3),
    }
    assert list(placed(levels)) == [
        "neck.convs.0.conv.weight",
        "neck.convs.1.conv.weight",
        "neck.extra_convs.0.conv.weight",
        "neck.extra_convs.0.norm.bias",
        "neck.extra_convs.8.conv.weight",
    ]
    assert numbered(placed(levels)).keys() > levels.keys()


def heads(*numbers: int | str) -> dict[str, Tensor]:
    return {f"class_embed.{number}.bias": torch.tensor([float(str(number) == "encoder")]) for number in numbers}


def test_the_encoders_head_comes_after_the_decoders() -> None:
    named = numbered_heads(heads("encoder", 0, 1, 2))
    assert named["class_embed.3.bias"].item() == 1
    assert list(named) == [f"class_embed.{number}.bias" for number in (3, 0, 1, 2)]


def test_shared_heads_become_one_and_the_encoders_stays_the_last() -> None:
    named = numbered_heads(heads(0, 1, 2, "encoder"))
    model = ["transformer.enc_output.bias", "class_embed.0.bias", "class_embed.1.bias"]
    kept, faults = heads_of_the_model(named, model)
    assert {name: tensor.item() for name, tensor in kept.items()} == {"class_embed.0.bias": 0, "class_embed.1.bias": 1}
    assert faults == []


@pytest.mark.parametrize(
    ("heads_of_model", "two_stage", "expected"),
    [
        (1, False, {"0": 0, "1": 0, "2": 0}),
        (3, False, {"0": 0, "1": 1, "2": 2}),
        (2, True, {"0": 0, "1": 0, "2": 0, "3": 1, "encoder": 1}),
        (4, True, {"0": 0, "1": 1, "2": 2, "3": 3, "encoder": 3}),
    ],
)
def test_the_head_behind_each_name_of_a_file(heads_of_model: int, two_stage: bool, expected: dict[str, int]) -> None:
    model = [f"class_embed.{number}.bias" for number in range(heads_of_model)]
    model += [f"transformer.decoder.layers.{layer}.norms.0.bias" for layer in range(3)]
    model += ["transformer.enc_output.bias"] if two_stage else []
    for theirs, ours in expected.items():
        assert head_in_the_model(f"class_embed.{theirs}.bias", model) == f"class_embed.{ours}.bias"


def test_coco_has_eighty_ids_with_ten_gaps() -> None:
    assert len(COCO_IDS) == 80
    assert (COCO_IDS[0], COCO_IDS[-1]) == (1, 90)
    assert sorted(set(range(1, 91)) - set(COCO_IDS)) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


@pytest.mark.parametrize(
    ("name", "rows", "wanted", "first", "last"),
    [
        ("class_embed.2.bias", 91, 80, 1, 90),
        ("class_embed.bias", 92, 81, 1, 91),
        ("label_enc.weight", 92, 80, 1, 90),
        ("class_embed.2.bias", 91, 91, 0, 90),
        ("class_embed.2.bias", 20, 80, 0, 19),
        ("bbox_embed.2.layers.0.bias", 91, 80, 0, 90),
    ],
)
def test_rows_are_taken_by_id_where_the_model_has_eighty(
    name: str, rows: int, wanted: int, first: int, last: int
) -> None:
    taken = rows_of_the_model(name, torch.arange(rows), wanted, objectness=False)
    assert (taken[0].item(), taken[-1].item()) == (first, last)


def test_the_objectness_head_keeps_its_first_rows() -> None:
    taken = rows_of_the_model("class_embed.6.bias", torch.arange(91), 80, objectness=True)
    assert taken.tolist() == list(range(80))


def test_no_table_has_a_pattern_that_is_not_meant() -> None:
    """A brace that is no placeholder would only match itself."""
    for format in FORMATS.values():
        assert not [ours for _, ours in format.table.rows if re.search(r"[{}\[\]|]", ours)]
