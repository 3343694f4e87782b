"""Several outputs judged as one tensor: nothing is lost on the way, and what does not fit is said by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detr_conformance.harness.block_case import call_with
from detr_conformance.harness.case import Case
from detr_conformance.harness.case_files import read_case, write_case
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.packing import of_image, packed, shapes_of, shapes_of_image, unpacked
from detr_conformance.harness.subject import Subject


def outputs() -> dict[str, Tensor]:
    return {"logits": torch.randn(3, 2, 5), "indices": torch.arange(4), "boxes": torch.randn(3, 2, 4)}


def test_parts_come_back_as_they_were() -> None:
    given = outputs()
    shapes = shapes_of(given)
    assert shapes == {"logits": (3, 2, 5), "boxes": (3, 2, 4)}
    parts = unpacked(packed(given, shapes), shapes)
    assert list(parts) == ["logits", "boxes"]
    assert all(torch.equal(parts[name], given[name]) for name in parts)


def test_one_image_of_several() -> None:
    given = outputs()
    shapes = shapes_of(given)
    alone = unpacked(of_image(packed(given, shapes), shapes, 1, axis=1), shapes_of_image(shapes, 1))
    assert torch.equal(alone["boxes"], given["boxes"][:, 1:])


def test_a_single_tensor_is_left_alone() -> None:
    tensor = torch.randn(2, 3)
    assert packed(tensor, None) is tensor


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"boxes": None}, "no boxes"),
        ({"boxes": torch.zeros(3, 2, 5)}, r"boxes has shape \(3, 2, 5\), expected \(3, 2, 4\)"),
        ({"boxes": [0.0]}, "boxes is a list"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor | None], told: str) -> None:
    given = outputs()
    wrong = {name: part for name, part in {**given, **change}.items() if part is not None}
    with pytest.raises(Mismatch, match=told):
        packed(wrong, shapes_of(given))


def test_a_tuple_is_no_dict() -> None:
    given = outputs()
    with pytest.raises(Mismatch, match="is a tuple"):
        packed(tuple(given.values()), shapes_of(given))


def test_a_mismatch_names_the_part_and_its_element() -> None:
    given = outputs()
    shapes = shapes_of(given)
    subject = Subject("postprocess", lambda: given, shapes=shapes)
    right = packed(given, shapes).double()
    wrong = right.float()
    wrong[3 * 2 * 5 + 9] += 1
    with pytest.raises(Mismatch) as raised:
        subject.compare("output", wrong, right, torch.full_like(right, 1e-6))
    assert raised.value.where == "boxes[1, 0, 1]"


@pytest.mark.parametrize("name", ["boxes", "indices"])
def test_each_output_is_held_over_later_calls(name: str) -> None:
    """The parts themselves are watched, not the copy that they are packed into; so are integer outputs."""
    given = outputs()

    def reusing() -> dict[str, Tensor]:
        given[name] += 1
        return dict(given)

    subject = Subject("postprocess", reusing, shapes=shapes_of(given))
    subject.call({})
    with pytest.raises(Mismatch, match="a later call changed the output of an earlier one"):
        subject.call({})


def test_shapes_survive_a_case_file(tmp_path: Path) -> None:
    case = Case({"x": torch.ones(2), "grad_output": torch.ones(6)}, shapes={"a": (2, 2), "b": (2,)})
    path = write_case(tmp_path, case, clause="BLK-1", test="test")
    assert read_case(path)[0].shapes == case.shapes


def test_behind_a_tensor_left_out_names_are_used() -> None:
    seen = {}

    def losses(*tensors: Tensor, **named: Tensor) -> Tensor:
        seen["positional"], seen["named"] = len(tensors), list(named)
        return torch.zeros(())

    given = ("pred_logits", "pred_boxes", "target_labels", "target_boxes", "target_counts", "dn_logits", "dn_boxes")
    call_with("detection_losses", losses, {name: torch.zeros(1) for name in given})
    assert seen == {"positional": 5, "named": ["dn_logits", "dn_boxes"]}
