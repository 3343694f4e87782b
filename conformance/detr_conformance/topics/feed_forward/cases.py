"""Cases of `feed_forward` and `mlp`: every parameter is random, no two widths are equal."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import OPERATIONS, resolve

NETWORK = {"embed_dim": 6, "feedforward_dim": 10}
PERCEPTRON = {"input_dim": 6, "hidden_dim": 9, "output_dim": 4, "num_layers": 3}
LEADING = (2, 5)
CANDIDATES = 60  # random tokens for each one that is kept, where kinks are to be avoided


def layer_numbers(subject: Subject, *numbers: int) -> list[int]:
    """Those of the numbers of linear layers that the networks can have; the variant `num_fcs` says two only."""
    return [number for number in numbers if number == 2 or subject.variants.get("num_fcs", "any") == "any"]


def random_parameters(operation: str, settings: dict[str, Any], fill: Filler) -> dict[str, Tensor]:
    """Parameters under the reference's names: matrices that keep the size of what they map, random biases and norms."""
    key = operation, repr(sorted(settings.items()))
    if key not in _shapes:
        _shapes[key] = _parameter_shapes(operation, settings)
    return {name: _drawn(name, shape, fill) for name, shape in _shapes[key].items()}


_shapes: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}


def _parameter_shapes(operation: str, settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    entry = OPERATIONS[operation]
    assert entry.config is not None
    with torch.device("meta"):
        module: nn.Module = resolve(entry.reference)(resolve(entry.config)(**settings))
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def _drawn(name: str, shape: tuple[int, ...], fill: Filler) -> Tensor:
    if len(shape) == 2:
        return 1.4 * shape[1] ** -0.5 * fill.normal(*shape)
    if "norm" in name and name.endswith("weight"):
        return fill.uniform(0.4, 1.6, *shape)
    return 0.7 * fill.normal(*shape)


def network_case(
    subject: Subject,
    *seed: Any,
    note: str = "",
    leading: tuple[int, ...] = LEADING,
    smooth: bool = False,
    **settings: Any,
) -> Case:
    """A call of a random feed-forward network or MLP, the network with an identity that is not x.

    Args:
        smooth: keep, of many random tokens, those whose hidden channels are furthest from the kink of the ReLU, where
            a rounding error would change gradients.
    """
    plain = PERCEPTRON if subject.operation == "mlp" else NETWORK
    settings = {**plain, **settings}
    fill = Filler(subject.dtype, subject.settings.seed, subject.operation, note, sorted(settings.items()), *seed)
    parameters = {n: t.to(fill.dtype) for n, t in random_parameters(subject.operation, settings, fill).items()}
    width = settings["input_dim" if subject.operation == "mlp" else "embed_dim"]
    x = fill.normal(*leading, width).to(fill.dtype)
    if smooth:
        count = x[..., 0].numel()
        drawn = fill.normal(count * CANDIDATES, width).to(fill.dtype)
        x = drawn[_distance_from_kinks(parameters, drawn).topk(count).indices].view_as(x)
    inputs = {"x": x}
    if subject.operation == "feed_forward":
        inputs["identity"] = fill.normal(*leading, width)
    return block_case(subject, inputs, parameters, settings, note or "a random network")


def _distance_from_kinks(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """(token,): the smallest absolute value that a hidden channel has before its ReLU."""
    wide = [tensor.double() for tensor in parameters.values()]
    distance, h = torch.full((len(x),), torch.inf, dtype=torch.float64), x.double()
    for weight, bias in zip(wide[:-2:2], wide[1:-2:2], strict=True):
        h = h @ weight.T + bias
        distance = torch.minimum(distance, h.abs().amin(-1))
        h = h.relu()
    return distance


def linear_names(case: Case, part: str = "weight") -> list[str]:
    """The names of the linear layers' weights (or biases), first to last, as `with_parameters` wants them."""
    names = [name.removeprefix("parameter:") for name in case.tensors if name.endswith(part)]
    return [name.replace(".", "__") for name in names]


def representative_feed_forward(subject: Subject) -> list[Case]:
    return [
        network_case(subject, note="ReLU", smooth=True),
        network_case(subject, note="GELU", activation="gelu", num_fcs=layer_numbers(subject, 2, 3)[-1], leading=(3, 4)),
    ]


def representative_mlp(subject: Subject) -> list[Case]:
    return [
        network_case(subject, note="three layers", smooth=True),
        network_case(subject, note="two layers", num_layers=2, leading=(3, 2, 4), smooth=True),
    ]


def drawn_networks(subject: Subject) -> st.SearchStrategy[Case]:
    """Feed-forward networks of every structure."""

    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        case = network_case(
            subject,
            draw(SEEDS),
            leading=(draw(st.integers(1, 3)), draw(st.integers(1, 6))),
            embed_dim=draw(st.integers(1, 16)),
            feedforward_dim=draw(st.integers(1, 24)),
            num_fcs=draw(st.sampled_from(layer_numbers(subject, 2, 3, 4))),
            activation=draw(st.sampled_from(("relu", "gelu"))),
            add_identity=draw(st.sampled_from((True, True, False))),
        )
        if draw(st.booleans()):
            case = case.having(identity=None)
        return case.laid_out(draw(ANY_LAYOUT))

    return draw_case()


def drawn_perceptrons(subject: Subject) -> st.SearchStrategy[Case]:
    """MLPs of every structure."""

    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        return network_case(
            subject,
            draw(SEEDS),
            leading=tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))),
            input_dim=draw(st.integers(1, 16)),
            hidden_dim=draw(st.integers(1, 24)),
            output_dim=draw(st.integers(1, 8)),
            num_layers=draw(st.integers(1, 4)),
        ).laid_out(draw(ANY_LAYOUT))

    return draw_case()
