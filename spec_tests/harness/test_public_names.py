"""The public names: found without torch, documented with shapes and errors, and none of them a topic."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor, nn

import detr_reference
from detr_conformance.operations import OPERATIONS, resolve
from helpers.imports import modules

TOPICS = {operation.topic for operation in OPERATIONS.values()} | {"every_block", "training"}
CONFIGS = sorted(name for name in modules() if name.startswith("detr_reference.") and name.endswith(".config"))


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def unsaid(public: Any) -> list[str]:
    """What the documentation of a public name lacks: words, shapes of the tensors that it takes, errors it raises."""
    missing = [] if inspect.getdoc(public) else ["what it is"]
    called = public.forward if inspect.isclass(public) and issubclass(public, nn.Module) else public
    source = inspect.getsource(public)
    if "raise " in source and "Raises:" not in source:
        missing.append("errors")
    if not inspect.isclass(called):
        said = f"{inspect.getdoc(public)}\n{inspect.getdoc(called)}"
        parameters = inspect.signature(called).parameters.values()
        missing += [f"the shape of {each.name}" for each in parameters if not has_shape(each, said)]
    return missing


def has_shape(parameter: inspect.Parameter, said: str) -> bool:
    """In the annotation, or in words: `name: ..., (batch, 4)`."""
    plain = re.search(r"\bTensor\b(?!,)", str(parameter.annotation))
    return plain is None or re.search(rf"\b{parameter.name}\b[^\n]*\([\w, ]+\)", said) is not None


@pytest.mark.parametrize("name", detr_reference.__all__)
def test_a_public_name_says_what_it_is_with_shapes_and_errors(name: str) -> None:
    public = getattr(detr_reference, name)
    assert not isinstance(public, ModuleType)
    assert unsaid(public) == []


def test_what_is_unsaid_is_noticed() -> None:
    def silent(boxes: Tensor, eps: float) -> Tensor:
        if eps < 0:
            raise ValueError("eps")
        return boxes

    assert unsaid(silent) == ["what it is", "errors", "the shape of boxes"]


def test_no_public_name_is_a_topic_or_a_module() -> None:
    packages = {name.split(".")[1] for name in modules() if name.startswith("detr_reference.")}
    assert set(detr_reference.__all__) & (TOPICS | packages) == set()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_public(operation: str) -> None:
    """A function by its name, a module by its class and its configuration."""
    entry = OPERATIONS[operation]
    made = resolve(entry.reference)
    if entry.config is None:
        assert getattr(detr_reference, operation) is made
    else:
        assert resolve(entry.config).__name__ in detr_reference.__all__
        assert inspect.get_annotations(made, eval_str=True)["return"].__name__ in detr_reference.__all__


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    heavy = "print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    assert run(f"import sys, detr_reference, detr_conformance; {heavy}") == "[]"
    assert run(f"import sys; from detr_conformance import Target; {heavy}") == "[]"
    assert run("import sys; from detr_reference import ms_deform_attn; print('torch' in sys.modules)") == "True"


def test_configurations_need_no_torch() -> None:
    assert CONFIGS
    heavy = "print([name for name in ('torch', 'jaxtyping', 'numpy') if name in sys.modules])"
    assert run(f"import sys, {', '.join(CONFIGS)}; {heavy}") == "[]"
    assert run(f"import sys; from detr_reference import DINOConfig, DETRConfig; {heavy}") == "[]"


def test_every_configuration_of_an_operation_lies_there() -> None:
    places = {entry.config.partition(":")[0] for entry in OPERATIONS.values() if entry.config}
    assert places <= set(CONFIGS)
