"""Case files: the same case comes back, equal cases get equal names, and hostile files are refused in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from detr_conformance.harness.case import LAYOUTS, Case, lay_out
from detr_conformance.harness.case_files import CaseFileError, read_case, write_case
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, everywhere


def a_case(dtype: str = "bfloat16") -> Case:
    return case_at(Subject("ms_deform_attn", print, dtype), Structure(), everywhere, note="to disk").laid_out("sliced")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_case_comes_back(tmp_path: Path, dtype: str) -> None:
    """Bit for bit, in the order of the call, with its layout."""
    case = a_case(dtype)
    back, test = read_case(write_case(tmp_path, case, clause="MSDA-1", test="file.py::test"))
    assert list(back.tensors) == list(case.tensors)
    assert all(torch.equal(back[name], case[name]) for name in case.tensors)
    assert (back.layout, back.note, test) == (case.layout, case.note, "file.py::test")


def test_names_are_of_the_content(tmp_path: Path) -> None:
    first = write_case(tmp_path, a_case(), clause="MSDA-1", test="t")
    assert write_case(tmp_path / "elsewhere", a_case(), clause="MSDA-1", test="t").name == first.name
    changed = a_case().having(value=a_case()["value"] + 1)
    assert write_case(tmp_path, changed, clause="MSDA-1", test="t").name != first.name


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    whole = write_case(tmp_path, a_case(), clause="MSDA-1", test="t")
    files = {
        "absent": tmp_path / "absent.safetensors",
        "cut": tmp_path / "cut.safetensors",
        "pickle": tmp_path / "pickle.safetensors",
        "huge header": tmp_path / "header.safetensors",
    }
    files["cut"].write_bytes(whole.read_bytes()[:-10])
    files["pickle"].write_bytes(pickle.dumps({"value": [1]}))
    files["huge header"].write_bytes((2**62).to_bytes(8, "little") + b"{}")
    for path in files.values():
        with pytest.raises(CaseFileError) as raised:
            read_case(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_keep_the_contents(layout: str) -> None:
    tensor = torch.randn(2, 3, 4)
    laid_out = lay_out(tensor, layout)
    assert torch.equal(laid_out, tensor)
    assert laid_out.is_contiguous() == (layout in ("contiguous", "offset"))
    assert (laid_out.storage_offset() > 0) == (layout == "offset")
