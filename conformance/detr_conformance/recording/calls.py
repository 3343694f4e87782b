"""Recorded calls on disk, and what makes cases of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from detr_conformance.harness.block_case import block_case, config_of, inputs_of, parameters_of, settings_of
from detr_conformance.harness.case import PARAMETER, TORCH_DTYPES, Case, digest_of
from detr_conformance.harness.case_files import CaseFileError, read_case, write_case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import OPERATIONS, resolve

RECORDED = "recorded call of "
MOST_FILES = 10_000
LARGEST_SETTING = 1 << 16
Call = tuple[str, str, Case]  # operation, dtype, case


def write_call(folder: Path, operation: str, call: Case, why: str) -> Path:
    """Saves one call; the same call always gets the same name."""
    tensors = {name: tensor.detach().cpu() for name, tensor in call.tensors.items()}
    return write_case(folder, replace(call, tensors=tensors, note=why), clause=operation, test=RECORDED + operation)


def read_calls(folder: Path) -> list[Call]:
    """All recorded calls of a folder, in the order of their names.

    Raises:
        CaseFileError: no such folder, none in it, or a file that is no recorded call, or one that cannot be.
    """
    if not folder.is_dir():
        raise CaseFileError(f"no folder at {folder}")
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CaseFileError(f"{folder} holds no recorded calls (*.safetensors)")
    if len(paths) > MOST_FILES:
        raise CaseFileError(f"{folder} holds {len(paths)} files; at most {MOST_FILES} are read")
    return [_read_call(path) for path in paths]


def _read_call(path: Path) -> Call:
    case, test = read_case(path)
    operation = test.removeprefix(RECORDED)
    if not test.startswith(RECORDED) or operation not in OPERATIONS:
        raise CaseFileError(f"{path} is no recorded call but a case of {test}; --replay judges one case")
    known = {*OPERATIONS[operation].inputs}
    if strange := [name for name in case.tensors if name not in known and not name.startswith(PARAMETER)]:
        raise CaseFileError(f"{path}: {operation} has no argument {strange[0]!r}")
    floating = {tensor.dtype for name, tensor in case.tensors.items() if tensor.is_floating_point() and name in known}
    names = [name for name, dtype in TORCH_DTYPES.items() if floating == {dtype}]
    if not names:
        told = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in floating)) or "none"
        raise CaseFileError(f"{path}: a case has floating arguments of one known dtype, not of {told}")
    try:
        _check(operation, case)
    except Exception as error:
        raise CaseFileError(f"{path}: the reference refuses this call: {error}") from error
    return operation, names[0], replace(case, note=case.note or "recorded")


def _check(operation: str, case: Case) -> None:
    """What the reference says of the call, at no cost: one query of the core, a module without memory."""
    settings = settings_of(case)
    if any(isinstance(value, int) and abs(value) > LARGEST_SETTING for value in settings.values()):
        raise ValueError(f"a setting is larger than {LARGEST_SETTING}")
    if operation == "ms_deform_attn":
        names = ("sampling_locations", "attention_weights")
        one = case.having(**{name: case[name][:, :1] for name in names}) if case["attention_weights"].ndim > 1 else case
        resolve(OPERATIONS[operation].reference)(*inputs_of(operation, one).values())
    if OPERATIONS[operation].kind == "module":
        with torch.device("meta"):
            module = resolve(OPERATIONS[operation].reference)(config_of(operation, case))
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in parameters_of(case).items()}
        if wrong := sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name)):
            raise ValueError(f"its configuration and its parameter {wrong[0]} do not belong together")


def prepared(subject: Subject, case: Case) -> Case:
    """The call with an incoming gradient, which none was recorded of."""
    if subject.operation == "ms_deform_attn":
        fill = Filler(subject.dtype, subject.settings.seed, "grad_output", digest_of(case))
        batch, _, heads, channels = case["value"].shape
        queries = case["sampling_locations"].shape[1]
        return case.having(grad_output=fill.normal(batch, queries, heads * channels).to(fill.dtype))
    made = block_case(subject, inputs_of(subject.operation, case), parameters_of(case), settings_of(case), case.note)
    return replace(made, layout=case.layout)
