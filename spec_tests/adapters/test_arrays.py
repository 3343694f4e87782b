"""Functions of other arrays as functions of tensors: numbers, dtypes, gradients, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import detr_conformance
from detr_conformance import TargetError, from_dlpack, from_numpy
from detr_conformance.adapters import numpy_arrays

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bool, torch.int64, torch.int32)


def product(x: Any, count: Any, scale: float = 1.0) -> Any:
    return x * x * count.astype(x.dtype) * scale


def product_vjp(grad: Any, x: Any, count: Any, scale: float = 1.0) -> Any:
    return 2 * x * count.astype(x.dtype) * scale * grad, None


def numbers(*shape: int) -> Tensor:
    return torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float32).view(shape)


def adapter(library: str) -> Any:
    if library == "numpy":
        return from_numpy(product, product_vjp)
    if library == "dlpack":
        return from_dlpack(product, product_vjp, into=np.from_dlpack)
    pytest.importorskip("jax")
    return detr_conformance.from_jax(product, jit=library == "jax jitted")


@pytest.mark.parametrize("library", ["numpy", "dlpack", "jax", "jax jitted"])
@pytest.mark.parametrize("turned", [False, True])
def test_numbers_settings_and_gradients(library: str, turned: bool) -> None:
    leaf = (numbers(2, 3).t() if turned else numbers(3, 2)).requires_grad_()
    count = torch.tensor(3, dtype=torch.int32)
    output = adapter(library)(leaf, count, scale=2.0)
    assert torch.equal(output, leaf * leaf * 6)
    assert output.dtype == torch.float32
    (gradient,) = torch.autograd.grad(output, leaf, numbers(3, 2).expand(3, 2))
    assert torch.equal(gradient, 12 * leaf * numbers(3, 2))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_numpy_has_every_dtype(dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    given = numbers(2, 3).to(dtype).t()
    returned = from_numpy(lambda x: x[::-1])(given)
    assert torch.equal(returned, given.flip(0))
    assert returned.dtype == dtype


def test_bfloat16_without_its_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(TargetError, match="pip install ml_dtypes, or leave bfloat16 out of dtypes"):
        from_numpy(product)(numbers(2).bfloat16(), torch.tensor(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_jax_has_every_floating_dtype_and_wide_integers(dtype: torch.dtype) -> None:
    pytest.importorskip("jax")
    double = detr_conformance.from_jax(lambda x, n: {"x": x * 2, "n": n})
    given = numbers(2).to(dtype) / 3
    returned = double(given, torch.tensor([7]))
    assert torch.equal(returned["x"], given * 2)
    assert (returned["x"].dtype, returned["n"].dtype) == (dtype, torch.int64)


def test_static_arguments_of_jax_are_python_numbers() -> None:
    pytest.importorskip("jax")
    seen = []

    def cut(x: Any, sizes: Any) -> Any:
        seen.append(sizes)
        return x[: sizes[0][0]] * 3

    leaf = numbers(4).requires_grad_()
    output = detr_conformance.from_jax(cut, jit=True, static=(1,))(leaf, torch.tensor([[2, 5]]))
    assert torch.autograd.grad(output.sum(), leaf)[0].tolist() == [3, 3, 0, 0]
    assert set(seen) == {((2, 5),)}


def test_dtypes_of_torch_are_given_as_numpys() -> None:
    made = from_numpy(lambda mask, dtype: mask.astype(dtype))
    assert made(torch.tensor([True]), dtype=torch.float64).dtype == torch.float64


def test_without_a_vjp_nothing_asks_for_gradients() -> None:
    assert not from_numpy(product)(numbers(2).requires_grad_(), torch.tensor(1)).requires_grad


def test_several_outputs_and_named_arrays() -> None:
    def both(x: Any, *, other: Any) -> Any:
        return {"sum": x + other, "order": np.argsort(x)}

    def pull(grad: Any, x: Any, *, other: Any) -> Any:
        assert grad["order"] is None
        return grad["sum"], 3 * grad["sum"]

    x, other = numbers(2).requires_grad_(), numbers(2).requires_grad_()
    returned = from_numpy(both, pull)(x, other=other)
    assert not returned["order"].requires_grad
    assert [g.tolist() for g in torch.autograd.grad(returned["sum"].sum(), (x, other))] == [[1, 1], [3, 3]]


def test_second_derivatives_are_refused() -> None:
    leaf = numbers(2).requires_grad_()
    output = from_numpy(product, product_vjp)(leaf, torch.tensor(1))
    (gradient,) = torch.autograd.grad(output.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        gradient.sum().backward()


def test_arguments_that_changed_since_are_noticed() -> None:
    leaf = numbers(2).requires_grad_()
    given = leaf * 1
    output = from_numpy(product, product_vjp)(given, torch.tensor(1))
    given.data.add_(0)
    with torch.no_grad():
        given.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_what_a_function_writes_is_seen() -> None:
    def writes(x: Any) -> Any:
        x[0] = 9
        return x * 1

    for dtype in (torch.float32, torch.int64):
        given = numbers(2).to(dtype)
        from_numpy(writes)(given)
        assert given[0] == 9


@pytest.mark.parametrize(
    ("pull", "said"),
    [
        (lambda grad, x, count: grad, "1 gradients for 2 arrays"),
        (lambda grad, x, count: (grad[:1], None), r"of shape \(1,\) for array 0, which has shape \(2,\)"),
    ],
)
def test_a_wrong_vjp_is_explained(pull: Any, said: str) -> None:
    leaf = numbers(2).requires_grad_()
    output = from_numpy(product, pull)(leaf, torch.tensor(1))
    with pytest.raises(ValueError, match=said):
        output.sum().backward()


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(TypeError, match="a tensor was returned"):
        from_numpy(lambda x: torch.ones(1))(numbers(1))
    with pytest.raises(TypeError, match="no array of numbers"):
        from_numpy(lambda x: object())(numbers(1))
    with pytest.raises(TypeError, match="has no __dlpack__"):
        from_dlpack(lambda x: 1.0)(numbers(1))


def test_read_only_memory_is_copied() -> None:
    returned = from_numpy(lambda x: np.broadcast_to(x, (2, 2)))(numbers(2))
    returned += 1
    assert numpy_arrays.array_of(returned).tolist() == [[2, 3], [2, 3]]


def test_adapters_come_without_torch_until_they_are_asked_for() -> None:
    code = "import sys; from detr_conformance import Target; print(sys.modules.keys() & {'torch', 'numpy', 'jax'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert {"from_numpy", "from_dlpack", "from_jax", "Target"} <= set(detr_conformance.__all__)
