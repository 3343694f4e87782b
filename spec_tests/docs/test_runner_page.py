"""The page on runners: its examples are messages by the schema, and what it says of the files is so."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_conformance.isolation.wire import write_storages
from helpers.runners.page import EXAMPLES, PAGE

pytest.importorskip("jsonschema", reason="the schema is read by the extra vectors")
from detr_conformance.running.runner_talk import problem_of, validator


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda message: str(message.get("message")))
def test_every_example_is_a_message(example: dict[str, Any]) -> None:
    assert list(validator().iter_errors(example)) == []
    assert problem_of(example) is None


def test_every_kind_of_message_has_an_example() -> None:
    assert {each["message"] for each in EXAMPLES} == {"hello", "run", "done", "refused", "raised", "stop"}
    steps = {step["do"] for each in EXAMPLES if each["message"] == "run" for step in each["steps"]}
    assert steps == {"make", "mode", "call", "backward"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"message": "run"}, "'folder' is a required property"),
        ({"id": -1}, "id: -1 is less than the minimum of 0"),
        ({"results": [{"tensor": "r0", "list": []}]}, "results.0"),
        ({"tensors": [{"id": "r0"}]}, "tensors.0: 'storage' is a required property"),
        ({"storages": {"out": "4"}}, "storages.out: '4' is not of type 'integer'"),
        ({"message": "finished"}, "message is 'finished'"),
    ],
)
def test_an_example_that_is_wrong_is_noticed(change: dict[str, Any], said: str) -> None:
    done = next(each for each in EXAMPLES if each["message"] == "done")
    assert said in str(problem_of({**done, **change}))
    assert list(validator().iter_errors({**done, **change})) != []


def test_a_plain_runner_claims_what_it_can() -> None:
    hello = next(each for each in EXAMPLES if each["message"] == "hello")
    assert problem_of({**hello, "features": ["compile"]}) is not None
    assert problem_of({**hello, "features": ["compile"], "holds": True, "devices": ["cuda"]}) is None


def test_the_files_are_as_the_page_says(tmp_path: Path) -> None:
    contents = {"s0": torch.arange(8, dtype=torch.uint8), "s1": torch.arange(16, dtype=torch.uint8)}
    write_storages(tmp_path / "7.in", {**contents, "empty": torch.empty(0, dtype=torch.uint8)})
    data = (tmp_path / "7.in").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    shown = next(line for line in PAGE.splitlines() if line.startswith('{"s0": {"dtype": "U8"'))
    assert header.keys() == json.loads(shown).keys()
    for name, about in header.items():
        first, last = about["data_offsets"]
        assert about == {"dtype": "U8", "shape": [last - first], "data_offsets": [first, last]}
        assert rest[first:last] == bytes(contents[name].tolist())
