"""The deformable attention module: an independent computation of all of it, then each of its rules alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import build
from helpers.oracles import scalar_msda_module
from helpers.tiny.msda_module_cases import CELLS, CONFIG, SHAPES, call, padding, perturbed


class Spy:
    """A core that remembers what it was given."""

    def __call__(self, *arguments: Tensor) -> Tensor:
        self.value, _, _, self.locations, self.weights = arguments
        return ms_deform_attn(*arguments)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_equals_the_scalar_module(coordinates: int) -> None:
    """Everything at once: projections, both kinds of reference, joint softmax, mask, position, identity."""
    module, arguments = perturbed(), call(coordinates)
    identity = torch.randn_like(arguments["query"])
    expected = scalar_msda_module.forward(
        {name: parameter.detach().numpy() for name, parameter in module.named_parameters()},
        (CONFIG.num_heads, CONFIG.num_levels, CONFIG.num_points),
        SHAPES,
        arguments["query"].numpy(),
        arguments["value"].numpy(),
        identity.numpy(),
        arguments["query_pos"].numpy(),
        arguments["key_padding_mask"].numpy(),
        arguments["reference_points"].numpy(),
    )
    torch.testing.assert_close(module(**arguments, identity=identity), torch.from_numpy(expected))


def test_offsets_are_in_cells_for_references_with_two_coordinates() -> None:
    """Bias-only module, H != W: location = ref + offset / (W_l, H_l), level by level."""
    spy = Spy()
    module, arguments = perturbed(core=spy), call(2)
    torch.nn.init.zeros_(module.sampling_offsets.weight)
    module(**arguments)
    offset = module.sampling_offsets.bias.reshape(3, 2, 4, 2)
    for level, (height, width) in enumerate(SHAPES):
        reference = arguments["reference_points"][:, :, None, level, None]
        cells = torch.tensor((width, height))
        torch.testing.assert_close(spy.locations[:, :, :, level], reference + offset[None, None, :, level] / cells)


def test_offsets_are_parts_of_the_half_box_for_references_with_four_coordinates() -> None:
    """location = ref_xy + offset / P * ref_wh / 2: an offset of P is on the box's border, on every level."""
    spy = Spy()
    module, arguments = perturbed(core=spy), call(4)
    torch.nn.init.zeros_(module.sampling_offsets.weight)
    module(**arguments)
    centre, size = arguments["reference_points"].split(2, dim=-1)
    relative = (spy.locations - centre[:, :, None, :, None]) / (size[:, :, None, :, None] / 2)
    expected = module.sampling_offsets.bias.reshape(3, 2, 4, 2) / CONFIG.num_points
    torch.testing.assert_close(relative, expected.expand_as(relative))


def test_softmax_is_joint_over_levels_and_points() -> None:
    """The weights of a head sum to one over levels and points together, and follow the logits."""
    spy = Spy()
    module, arguments = perturbed(core=spy), call()
    module(**arguments)
    logits = module.attention_weights(arguments["query"] + arguments["query_pos"])
    expected = logits.reshape(2, 5, 3, 8).softmax(-1).reshape(2, 5, 3, 2, 4)
    torch.testing.assert_close(spy.weights, expected)
    assert (spy.weights.sum(-1) - 0.5).abs().max() > 0.1  # a softmax a level would give equal halves


def test_padding_is_zero_after_the_value_projection() -> None:
    """The bias does not reach a padded cell; the weights of the others are as without a mask."""
    spy = Spy()
    module, arguments = perturbed(core=spy), call()
    module(**arguments)
    masked, weights = spy.value, spy.weights
    module(**{**arguments, "key_padding_mask": None})
    outside = padding()[..., None, None]
    assert module.value_proj.bias.abs().min() > 0
    assert torch.equal(masked, spy.value.masked_fill(outside, 0))
    assert torch.equal(weights, spy.weights)


def test_padded_cells_never_show() -> None:
    """NaN in the padding changes no output and no gradient of query or value."""
    module, arguments = perturbed(), call()
    outputs = []
    for filler in (0.0, torch.nan):
        value = arguments["value"].masked_fill(padding()[..., None], filler).requires_grad_()
        query = arguments["query"].clone().requires_grad_()
        output = module(**{**arguments, "value": value, "query": query})
        outputs.append((output, *torch.autograd.grad(output.square().sum(), (query, value))))
    for ordinary, poisoned in zip(*outputs, strict=True):
        assert torch.equal(ordinary, poisoned)


def test_each_image_has_its_own_mask() -> None:
    """An image alone gives what it gives in the batch."""
    module, arguments = perturbed(), call()
    together = module(**arguments)
    per_batch = ("query", "value", "query_pos", "key_padding_mask", "reference_points")
    for image in range(2):
        alone = {name: arguments[name][image : image + 1] for name in per_batch}
        torch.testing.assert_close(module(**{**arguments, **alone}), together[image : image + 1])


def test_position_is_added_to_the_query_alone() -> None:
    """query_pos moves locations and weights; identity and value default to the query without it."""
    module = perturbed()
    arguments = call(queries=CELLS)  # self-attention: value defaults to query
    del arguments["value"]
    query, position = arguments["query"], arguments["query_pos"]
    output = module(**arguments)
    spelled_out = {**arguments, "query": query + position, "query_pos": None, "value": query, "identity": query}
    torch.testing.assert_close(output, module(**spelled_out))
    assert (output - module(**{**arguments, "query_pos": None})).abs().max() > 0.1


def test_identity_is_added_to_the_result() -> None:
    """out - identity does not depend on identity, which defaults to the query."""
    module, arguments = perturbed(), call()
    zero, other = torch.zeros(2, 5, 12, dtype=torch.float64), torch.randn(2, 5, 12, dtype=torch.float64)
    bare = module(**arguments, identity=zero)
    torch.testing.assert_close(module(**arguments, identity=other), bare + other)
    torch.testing.assert_close(module(**arguments), bare + arguments["query"])


def test_output_is_affine_in_value() -> None:
    """Locations and weights do not look at the value: f(2u - v) = 2 f(u) - f(v), bias and all."""
    module, arguments = perturbed(), call()
    u, v = arguments["value"], torch.randn_like(arguments["value"])
    f = [module(**{**arguments, "value": value}) for value in (2 * u - v, u, v)]
    torch.testing.assert_close(f[0], 2 * f[1] - f[2])
    assert (f[1] - f[2]).abs().max() > 0.1


def test_dropout_is_on_the_projected_output_and_in_training_only() -> None:
    """identity + dropout(output_proj(...)): at p = 0.5 an entry is the identity or twice as far from it."""
    module, arguments = perturbed(MSDeformAttnConfig(12, 3, 2, 4, dropout=0.5)), call()
    bare = module(**arguments) - arguments["query"]
    assert torch.equal(module(**arguments) - arguments["query"], bare)
    dropped = module.train()(**arguments) - arguments["query"]
    zero = dropped == 0
    assert 0.3 < zero.double().mean() < 0.7
    torch.testing.assert_close(dropped[~zero], 2 * bare[~zero])


def test_every_parameter_has_a_gradient() -> None:
    """With perturbed parameters nothing is cut off, the query's both paths included."""
    module, arguments = perturbed(), call()
    arguments["query"].requires_grad_()
    module(**arguments, identity=torch.zeros(2, 5, 12, dtype=torch.float64)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().max() > 1e-3, name
    assert arguments["query"].grad.abs().max() > 1e-3


def test_gradcheck() -> None:
    """Gradients of query, value, position and references equal difference quotients."""
    module, arguments = perturbed(), call(4, queries=2)
    names = ("query", "value", "query_pos", "reference_points")

    def forward(*tensors: Tensor) -> Tensor:
        return module(**{**arguments, **dict(zip(names, tensors, strict=True))})

    assert torch.autograd.gradcheck(forward, tuple(arguments[name].requires_grad_() for name in names), fast_mode=True)


def test_an_empty_level_gives_finite_gradients() -> None:
    """A level without cells has no size to divide by; it adds nothing."""
    module, arguments = perturbed(), call()
    arguments["spatial_shapes"] = torch.tensor([SHAPES[0], (0, 0)])
    for name in ("value", "key_padding_mask"):
        arguments[name] = arguments[name][:, :24]
    module(**arguments).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_modules_keep_float32_locations(dtype: torch.dtype) -> None:
    """Coordinates are added in float32 and given to the core so; value and weights have the module's dtype."""
    spy = Spy()
    module, arguments = perturbed(core=spy).to(dtype), call(dtype=dtype)
    output = module(**arguments)
    assert (output.dtype, spy.value.dtype, spy.weights.dtype) == (dtype, dtype, dtype)
    offset = module.sampling_offsets(arguments["query"] + arguments["query_pos"]).reshape(2, 5, 3, 2, 4, 2)
    size = torch.tensor([(width, height) for height, width in SHAPES])[:, None]
    reference = arguments["reference_points"][:, :, None, :, None]
    assert torch.equal(spy.locations, reference.float() + offset.float() / size)
    assert output.isfinite().all()


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_autocast(device: str) -> None:
    """Under autocast the core gets bfloat16 but for the locations; the result is near the float32 one."""
    spy = Spy()
    module = perturbed(core=spy).float().to(device)
    arguments = {name: tensor.to(device) for name, tensor in call(dtype=torch.float32).items()}
    expected = module(**arguments)
    with torch.autocast(device, torch.bfloat16):
        output = module(**arguments)
    assert (spy.value.dtype, spy.weights.dtype) == (torch.bfloat16, torch.bfloat16)
    assert spy.locations.dtype == torch.float32
    assert 0 < (output - expected).abs().max() < 0.3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_build_copies_the_parameters_it_is_given(dtype: torch.dtype) -> None:
    """build(config, state_dict) keeps dtype and numbers, and shares no memory with the caller."""
    source = perturbed().to(dtype)
    state = source.state_dict()
    built = build(CONFIG, state).eval()
    arguments = call(dtype=dtype)
    assert torch.equal(built(**arguments), source(**arguments))
    for name, parameter in built.named_parameters():
        assert parameter.dtype == dtype
        assert parameter.data_ptr() != state[name].data_ptr()


def test_a_core_can_be_plugged_in() -> None:
    """What the core returns is what output_proj sees."""

    def constant_core(value: Tensor, *rest: Tensor) -> Tensor:
        return torch.full((2, 5, 12), 0.5, dtype=value.dtype)

    module, arguments = perturbed(core=constant_core), call()
    half = torch.full((2, 5, 12), 0.5, dtype=torch.float64)
    torch.testing.assert_close(module(**arguments), arguments["query"] + module.output_proj(half))


def test_arguments_are_left_alone() -> None:
    """No argument is changed, not even by an edit of the output in place."""
    module, arguments = perturbed(), call()
    copies = {name: tensor.clone() for name, tensor in arguments.items()}
    output = module(**arguments)
    output.add_(1)
    assert all(torch.equal(arguments[name], copy) for name, copy in copies.items())
