"""What a Python implementation makes of a vector: how the gate, and whoever has one, writes outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from detr_conformance.harness.block import by_name, make, parameters_by_name
from detr_conformance.harness.block_case import call_with
from detr_conformance.harness.case import PARAMETER, Case
from detr_conformance.harness.subject import Subject
from detr_conformance.isolation.stage_values import by_stage, stage_calls
from detr_conformance.reporting.json_file import write_whole
from detr_conformance.stages import STAGES
from detr_conformance.vectors.reading import Vectors
from detr_conformance.vectors.vector import GRADIENT, STAGE

Entry = Mapping[str, Any]


def placed(given: Entry, tensors: Mapping[str, Tensor]) -> Tensor:
    """A tensor as it lay in memory; what lies between is NaN."""
    numbers = tensors[given["tensor"]]
    if "strides" not in given or not numbers.numel():
        return numbers.clone()
    strides, offset = given["strides"], given["offset"]
    reach = offset + 1 + sum((size - 1) * stride for size, stride in zip(numbers.shape, strides, strict=True))
    storage = torch.full((reach,), torch.nan if numbers.is_floating_point() else 0, dtype=numbers.dtype)
    view = storage.as_strided(numbers.shape, strides, offset)
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)
    view[once] = numbers[once]
    return view


def case_of(vector: Entry, vectors: Vectors) -> Case:
    """The call as the suite writes one down."""
    inputs = {name: placed(given, vectors.tensors) for name, given in vector["inputs"].items()}
    parameters = {PARAMETER + name: vectors.tensors[key] for name, key in vector["parameters"].items()}
    settings = vector.get("config", vector.get("settings", {}))
    options = {name: json.dumps(value) for name, value in settings.items() if name != "dtype"}
    return Case(inputs | parameters, options=options)


def replayed(subject: Subject, vector: Entry, vectors: Vectors) -> dict[str, Tensor]:
    """Every result that the vector asks for, as far as the implementation gives it; whatever it raises is passed on."""
    case = case_of(vector, vectors)
    made = make(subject, case)
    if isinstance(made, nn.Module):
        made.train(vector["training"])
    inputs = {name: case[name] for name in vector["inputs"]}
    leaves = {name: inputs[name].requires_grad_() for name in vector["gradients"] if name in inputs}
    if len(leaves) < len(vector["gradients"]):
        own = parameters_by_name(subject.operation, made, case)
        wanted = {name: parts for name, parts in own.items() if name in vector["gradients"]}
        leaves |= {f"{name}/{i}": part for name, parts in wanted.items() for i, part in enumerate(parts)}
    output = call_with(subject.operation, made, inputs)
    results = dict(output) if isinstance(output, Mapping) else {"output": output}
    if vector["incoming"]:
        sent = {name: placed(given, vectors.tensors) for name, given in vector["incoming"].items()}
        differentiable = [name for name in sent if results[name].requires_grad]
        found = torch.autograd.grad(
            [results[name] for name in differentiable],
            list(leaves.values()),
            [sent[name] for name in differentiable],
            allow_unused=True,
        )
        results |= {GRADIENT + n: g for n, g in by_name(dict(zip(leaves, found, strict=True))).items() if g is not None}
    if any(name.startswith(STAGE) for name in vector["results"]):
        results |= _stages(subject, made, inputs)
    return {name: results[name].detach() for name in vector["results"] if isinstance(results.get(name), Tensor)}


def _stages(subject: Subject, made: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read from the modules that have the reference's paths."""
    if not isinstance(made, nn.Module):
        return {}
    calls = stage_calls(made, STAGES[subject.operation], lambda: call_with(subject.operation, made, inputs))
    return {STAGE + name: torch.cat(numbers).to(subject.torch_dtype) for name, numbers in by_stage(calls).items()}


def write_outputs(folder: Path, subject_of: Mapping[tuple[str, str], Subject], vectors: Vectors) -> None:
    """A file for each vector of these operations and dtypes; none where the implementation raises."""
    folder.mkdir(parents=True, exist_ok=True)
    for vector in vectors.manifest["vectors"]:
        subject = subject_of.get((vector["operation"], vector["dtype"]))
        if subject is None:
            continue
        try:
            results = replayed(subject, vector, vectors)
        except Exception:  # the missing file says so
            continue
        contents = save({name: tensor.contiguous().clone() for name, tensor in results.items()})
        write_whole(folder / f"{vector['id']}.safetensors", contents)


def subjects(operation: str, implementation: Any, dtypes: Iterable[str]) -> dict[tuple[str, str], Subject]:
    return {(operation, dtype): Subject(operation, implementation, dtype) for dtype in dtypes}
