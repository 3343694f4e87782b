"""What a report says of an exception that a target raised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detr_conformance.harness.mismatch import Raised
from detr_conformance.harness.subject import explained


def fails() -> None:
    try:
        torch.nn.functional.softmax(torch.zeros(2), dim=3)
    except IndexError as error:
        raise RuntimeError("no softmax") from error


def test_files_are_named_from_their_package_on() -> None:
    """Reports are saved and compared: where a machine keeps its packages is nobody's business."""
    with (
        pytest.raises(Raised, match=r"the call raised RuntimeError: no softmax \(test_explained.py:18\)") as raised,
        explained("the call"),
    ):
        fails()
    detail = raised.value.detail or ""
    assert 'File "torch/nn/functional.py"' in detail
    assert "test_explained.py" in detail
    for folder in (Path(torch.__file__).parents[1], Path(__file__).parent):
        assert str(folder) not in detail
