"""Stacks of transformer layers: own parameters, one shared final norm, intermediate outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_reference.transformer.config import TransformerStackConfig
from detr_reference.transformer.stack import build_decoder, build_encoder
from helpers.tiny.transformer_layer_cases import POST, PRE, config, decoder_call, encoder_call, perturbed, without_cross


def one_by_one(stack: nn.Module, call: dict[str, Tensor]) -> list[Tensor]:
    """The outputs of the layers before any final norm."""
    arguments = dict(call)
    outputs = []
    for layer in stack.layers:
        arguments["query"] = layer(**arguments)
        outputs.append(arguments["query"])
    return outputs


def test_layers_follow_each_other_with_parameters_of_their_own() -> None:
    """DETR's post-norm encoder: no final norm; positions and masks go to every layer."""
    stack = perturbed(build_encoder(TransformerStackConfig(config(*without_cross(POST)), num_layers=3)))
    call = encoder_call()
    torch.testing.assert_close(stack(**call), one_by_one(stack, call)[-1])
    assert not any("post_norm" in name for name in stack.state_dict())
    weights = [stack.state_dict()[f"layers.{i}.norms.0.weight"] for i in range(3)]
    assert len({weight.data_ptr() for weight in weights}) == 3


@pytest.mark.parametrize("order", [POST, PRE])
def test_intermediate_outputs_share_the_final_norm(order: tuple[str, ...]) -> None:
    """DETR's decoder: each output goes through the one norm on its way out, the next layer gets it as it was."""
    chosen = TransformerStackConfig(config(*order), num_layers=3, post_norm=True, return_intermediate=True)
    stack, call = perturbed(build_decoder(chosen)), decoder_call()
    expected = torch.stack([stack.post_norm_layer(output) for output in one_by_one(stack, call)])
    found = stack(**call)
    assert found.shape == (3, 2, 5, 12)
    torch.testing.assert_close(found, expected)
    last = TransformerStackConfig(config(*order), num_layers=3, post_norm=True)
    torch.testing.assert_close(build_decoder(last, stack.state_dict()).eval()(**call), expected[-1])


def test_pre_norm_stream_is_normalised_at_the_end_alone() -> None:
    """Layers that add nothing: the stack is its final norm."""
    stack = perturbed(build_encoder(TransformerStackConfig(config(*without_cross(PRE)), 2, post_norm=True)))
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            if "out_proj" in name or "ffns.0.layers.1" in name:
                parameter.zero_()
    call = encoder_call()
    torch.testing.assert_close(stack(**call), stack.post_norm_layer(call["query"]))


def test_build_copies_the_parameters_it_is_given() -> None:
    chosen = TransformerStackConfig(config(*POST), num_layers=2, post_norm=True)
    source = perturbed(build_decoder(chosen))
    state = source.state_dict()
    built = build_decoder(chosen, state).eval()
    call = decoder_call()
    assert torch.equal(built(**call), source(**call))
    assert all(p.data_ptr() != state[name].data_ptr() for name, p in built.named_parameters())


def test_configuration_is_checked() -> None:
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        TransformerStackConfig(config(*POST), num_layers=0)
    with pytest.raises(ValueError, match="an encoder layer has no key"):
        build_encoder(TransformerStackConfig(config(*POST)))
