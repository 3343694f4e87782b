"""Feed-forward network and MLP: an independent computation of all of it, then each rule alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from detr_reference.feed_forward import feed_forward, mlp
from detr_reference.feed_forward.config import FeedForwardConfig, MLPConfig
from helpers.oracles import scalar_feed_forward

CONFIG = FeedForwardConfig(embed_dim=5, feedforward_dim=7, num_fcs=3)
PERCEPTRON = MLPConfig(input_dim=6, hidden_dim=5, output_dim=4, num_layers=3)


def perturbed(module: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, no parameter as it was initialised."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.6)
    return module


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def by_scalars(module: nn.Module, x: Tensor, activation: str) -> Tensor:
    weights = [linear.weight.tolist() for linear in linears(module)]
    biases = [linear.bias.tolist() for linear in linears(module)]
    act = getattr(scalar_feed_forward, activation)
    rows = [scalar_feed_forward.network(row, weights, biases, act) for row in x.flatten(0, -2).tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("num_fcs", [2, 3, 4])
def test_equals_the_scalar_network(activation: str, num_fcs: int) -> None:
    module = perturbed(feed_forward.build(replace(CONFIG, activation=activation, num_fcs=num_fcs)))
    x, identity = tokens(2, 3, 5), tokens(2, 3, 5)
    torch.testing.assert_close(module(x, identity), identity + by_scalars(module, x, activation))
    torch.testing.assert_close(module(x), x + by_scalars(module, x, activation))


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_mlp_equals_the_scalar_network(num_layers: int) -> None:
    module = perturbed(mlp.build(replace(PERCEPTRON, num_layers=num_layers)))
    x = tokens(2, 3, 6)
    torch.testing.assert_close(module(x), by_scalars(module, x, "relu"))


def test_parameters_have_the_names_of_the_chapter() -> None:
    expected = {
        "layers.0.0.weight": (7, 5),
        "layers.0.0.bias": (7,),
        "layers.1.0.weight": (7, 7),
        "layers.1.0.bias": (7,),
        "layers.2.weight": (5, 7),
        "layers.2.bias": (5,),
    }
    found = {name: tuple(p.shape) for name, p in feed_forward.build(CONFIG).named_parameters()}
    assert found == expected
    of_mlp = {name: tuple(p.shape) for name, p in mlp.build(PERCEPTRON).named_parameters()}
    widths = [6, 5, 5, 4]
    assert of_mlp == {
        f"layers.{i}.{part}": shape
        for i in range(3)
        for part, shape in (("weight", (widths[i + 1], widths[i])), ("bias", (widths[i + 1],)))
    }


def test_gelu_is_the_exact_one() -> None:
    """Closed form at x = -3: -3 * Phi(-3), where the tanh approximation is a tenth off."""
    module = feed_forward.build(FeedForwardConfig(1, 1, activation="gelu", add_identity=False)).double()
    with torch.no_grad():
        for linear in linears(module):
            linear.weight.fill_(1)
            linear.bias.fill_(0)
    found = module(torch.tensor([[-3.0]], dtype=torch.float64)).item()
    assert found == pytest.approx(-3 * 0.5 * math.erfc(3 / math.sqrt(2)), rel=1e-12)
    approximate = nn.functional.gelu(torch.tensor(-3.0, dtype=torch.float64), approximate="tanh").item()
    assert abs(found / approximate - 1) > 0.05


def test_without_identity_the_bare_result_is_returned() -> None:
    module = perturbed(feed_forward.build(CONFIG))
    bare = feed_forward.build(replace(CONFIG, add_identity=False), module.state_dict()).eval()
    x, identity = tokens(2, 3, 5), tokens(2, 3, 5)
    torch.testing.assert_close(bare(x) + identity, module(x, identity))
    assert torch.equal(bare(x, identity), bare(x))


def test_any_leading_axes() -> None:
    module, perceptron = perturbed(feed_forward.build(CONFIG)), perturbed(mlp.build(PERCEPTRON))
    for made, width in ((module, 5), (perceptron, 6)):
        x = tokens(2, 3, 4, width)
        expected = made(x)
        torch.testing.assert_close(made(x[1, 2, 3]), expected[1, 2, 3])
        torch.testing.assert_close(made(x[1]), expected[1])


def test_dropout_is_before_the_identity_and_after_every_activation() -> None:
    """With weights of one each entry has passed two dropouts: 0, b / (1 - p) or (h / (1 - p) + b) / (1 - p)."""
    module = feed_forward.build(FeedForwardConfig(4, 4, ffn_drop=0.5)).double().train()
    with torch.no_grad():
        for linear in linears(module):
            linear.weight.copy_(torch.eye(4))
            linear.bias.fill_(3)
    x = torch.ones(500, 4, dtype=torch.float64)
    identity = torch.full_like(x, 100)
    output = module(x, identity) - 100
    shares = [(output == value).double().mean().item() for value in (0, 6, 22)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.06)
    assert sum(shares) == pytest.approx(1)
    assert torch.equal(module.eval()(x, identity), torch.full_like(x, 107))


def test_gradcheck() -> None:
    module = perturbed(feed_forward.build(replace(CONFIG, activation="gelu")))
    perceptron = perturbed(mlp.build(PERCEPTRON))
    x, identity = (tokens(2, 3, 5).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(module, (x, identity), fast_mode=True)
    assert torch.autograd.gradcheck(perceptron, (tokens(2, 6).requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("module", [feed_forward, mlp])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_build_copies_the_parameters_it_is_given(module: object, dtype: torch.dtype) -> None:
    config = CONFIG if module is feed_forward else PERCEPTRON
    source = perturbed(module.build(config)).to(dtype)
    state = source.state_dict()
    for name, parameter in module.build(config, state).named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, state[name])
        assert parameter.data_ptr() != state[name].data_ptr()
    with pytest.raises(RuntimeError, match=r"layers\.0"):
        module.build(config, {name: tensor for name, tensor in state.items() if not name.startswith("layers.0")})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("embed_dim", 0),
        ("feedforward_dim", 0),
        ("num_fcs", 1),
        ("ffn_drop", -0.1),
        ("ffn_drop", 1.5),
        ("ffn_drop", math.nan),
        ("activation", "silu"),
    ],
)
def test_configuration_is_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} must .*got .*{value}"):
        replace(CONFIG, **{field: value})


@pytest.mark.parametrize("field", ["input_dim", "hidden_dim", "output_dim", "num_layers"])
def test_configuration_of_the_mlp_is_checked(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        replace(PERCEPTRON, **{field: 0})


@pytest.mark.usefixtures("unchecked_shapes")
def test_shapes_are_checked() -> None:
    module, perceptron = feed_forward.build(CONFIG), mlp.build(PERCEPTRON)
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., 5\), got \(2, 4\)"):
        module(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"identity \(1, 5\) must have the shape of x, \(2, 5\)"):
        module(torch.zeros(2, 5), torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., 6\), got \(2, 5\)"):
        perceptron(torch.zeros(2, 5))
