"""Claims 19 to 21 of spec chapter 10: where DAB's positions come from, shared heads, looking forward twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from detr_reference.positions.box_position_embedding import box_position_embedding
from helpers.tiny.claims_models import (
    EMBED,
    LAYERS,
    BoxPosition,
    Decoded,
    LookForward,
    RefiningDecoder,
    decoder_inputs,
    logit,
    perturbed,
)


def largest(difference: Tensor) -> float:
    return difference.abs().max().item()


# Claim 19


def bend(f: Callable[[Tensor], Tensor]) -> float:
    """How far f of the mean of two boxes is from the mean of both f: zero if f is affine, as any Linear is."""
    _, boxes, _ = decoder_inputs()
    one, other = boxes[:, :2], boxes[:, 2:4]
    return largest(f((one + other) / 2) - (f(one) + f(other)) / 2)


def test_claim_19_the_query_position_is_not_one_linear_of_the_box() -> None:
    """Neither the sine embedding nor what the 2-layer MLP makes of it is affine in the box."""
    position = perturbed(BoxPosition())
    assert bend(nn.Linear(4, EMBED).double()) < 1e-12
    assert bend(lambda boxes: box_position_embedding(boxes, num_pos_feats=EMBED // 2)) > 0.1
    assert bend(lambda boxes: position(boxes, boxes, 0)) > 0.1
    assert [type(layer) for layer in position.ref_point_head.layers] == [nn.Linear, nn.Linear]


def test_claim_19_the_query_position_is_made_anew_at_each_layer() -> None:
    """It follows the references: a head of layer 0 that moves them changes the query_pos of every later layer."""
    decoder = perturbed(RefiningDecoder(position=BoxPosition()))
    inputs = decoder_inputs()
    before = decoder(*inputs).query_pos
    with torch.no_grad():
        decoder.box_heads[0].layers[-1].bias.add_(0.5)
    after = decoder(*inputs).query_pos
    changed = [largest(new - old) > 0.01 for old, new in zip(before, after, strict=True)]
    assert changed == [False] + [True] * (LAYERS - 1)


def positions_of_two_contents(scaled_by_content: bool) -> tuple[list[Tensor], list[Tensor]]:
    """query_pos of each layer for two contents, all else alike; box heads of zero keep the references in place."""
    decoder = perturbed(RefiningDecoder(position=BoxPosition(scaled_by_content)))
    with torch.no_grad():
        for head in decoder.box_heads:
            head.layers[-1].weight.zero_()
            head.layers[-1].bias.zero_()
    content, boxes, maps = decoder_inputs()
    one, other = decoder(content, boxes, maps), decoder(content + 1, boxes, maps)
    for fed in (*one.fed, *other.fed):
        torch.testing.assert_close(fed, boxes)
    return one.query_pos, other.query_pos


def test_claim_19_in_dino_two_lines_are_all() -> None:
    """sine, MLP: a function of the reference alone, so that equal references have equal positions at all layers."""
    for one, other in zip(*positions_of_two_contents(scaled_by_content=False), strict=True):
        torch.testing.assert_close(one, other)


def test_claim_19_dab_deformable_detr_scales_by_content() -> None:
    """The factor query_scale(content), from the second layer on, is what the two lines lack."""
    one, other = positions_of_two_contents(scaled_by_content=True)
    torch.testing.assert_close(one[0], other[0])
    assert min(largest(a - b) for a, b in zip(one[1:], other[1:], strict=True)) > 0.1


# Claim 20


def head_storages(decoder: RefiningDecoder) -> set[int]:
    return {head.layers[0].weight.data_ptr() for head in decoder.box_heads}


def box_head_step(decoder: RefiningDecoder) -> Decoded:
    """One step of gradient descent on the box heads; what the decoder gave before it."""
    decoded = decoder(*decoder_inputs())
    sum(prediction.sum() for prediction in decoded.predictions).backward()
    torch.optim.SGD(decoder.box_heads.parameters(), lr=0.1).step()
    return decoded


@pytest.mark.parametrize("shared", [True, False])
def test_claim_20_refinement_works_with_shared_and_with_separate_heads(shared: bool) -> None:
    """Every layer looks from the box that the one before has refined, whoever owns the parameters."""
    decoder = perturbed(RefiningDecoder(shared_heads=shared))
    content, boxes, maps = decoder_inputs()
    states = []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: states.append(output))
    decoded = decoder(content, boxes, maps)
    assert len(decoder.box_heads) == LAYERS
    assert len(head_storages(decoder)) == (1 if shared else LAYERS)
    for i in range(LAYERS - 1):
        refined = (decoder.box_heads[i](states[i]) + logit(decoded.fed[i])).sigmoid()
        torch.testing.assert_close(decoded.fed[i + 1], refined)
        assert largest(decoded.fed[i + 1] - decoded.fed[i]) > 0.01


def test_claim_20_separate_heads_start_as_copies_and_part_in_training() -> None:
    """Equal numbers are no sign of sharing: copies part with the first step, one head for all layers cannot."""
    separate = perturbed(RefiningDecoder())
    for head in separate.box_heads:
        head.load_state_dict(separate.box_heads[0].state_dict())
    shared = perturbed(RefiningDecoder(shared_heads=True))
    for decoder, stays_one in ((separate, False), (shared, True)):
        box_head_step(decoder)
        first, *others = (head.layers[0].weight for head in decoder.box_heads)
        assert all(torch.equal(first, other) == stays_one for other in others)


# Claim 21


def band(look_forward: LookForward) -> list[str]:
    """Row i, column j: # where the loss of prediction i reaches the parameters of box head j."""
    decoder = perturbed(RefiningDecoder(look_forward))
    predictions = decoder(*decoder_inputs()).predictions
    rows = []
    for prediction in predictions:
        row = ""
        for head in decoder.box_heads:
            gradients = torch.autograd.grad(
                (prediction * torch.randn_like(prediction)).sum(),
                list(head.parameters()),
                retain_graph=True,
                allow_unused=True,
            )
            row += "#" if any(g is not None and g.any() for g in gradients) else "."
        rows.append(row)
    return rows


def test_claim_21_looking_forward_twice_is_a_band() -> None:
    """Prediction i trains its own head and the one before, no further."""
    assert band("twice") == ["#...", "##..", ".##.", "..##"]


def test_claim_21_looking_forward_once_is_a_diagonal() -> None:
    """With both copies detached, each head is trained by its own prediction alone."""
    assert band("once") == ["#...", ".#..", "..#.", "...#"]


def test_claim_21_detaching_nothing_is_a_triangle() -> None:
    """If the copy fed to the next layer is not detached either, every loss reaches all earlier heads."""
    assert band("nothing detached") == ["#...", "##..", "###.", "####"]


def test_claim_21_the_three_predict_the_same() -> None:
    """Detaching is about gradients alone: with the same parameters all three give the same numbers."""
    inputs = decoder_inputs()
    once, *others = (RefiningDecoder(kind).double().eval() for kind in ("once", "twice", "nothing detached"))
    perturbed(once)
    for other in others:
        other.load_state_dict(once.state_dict())
        for expected, got in zip(once(*inputs).predictions, other(*inputs).predictions, strict=True):
            assert torch.equal(got, expected)
