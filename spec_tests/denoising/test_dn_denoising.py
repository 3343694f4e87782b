"""DN-DETR's plain denoising: published arithmetic on the same random numbers, layout, noise, indicator, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from detr_reference.denoising.denoising_mask import denoising_attention_mask
from detr_reference.denoising.dn_denoising import dn_denoising, shifted_and_scaled, with_indicator
from detr_reference.queries.box_refinement import inverse_sigmoid


def test_equals_the_published_arithmetic() -> None:
    """Centre and size by Python's floats, list after list."""
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.3], [0.95, 0.1, 0.1, 0.15], [0.3, 0.7, 0.5, 0.6]], dtype=torch.float64)
    labels, counts, embedding = torch.tensor([1, 0, 2]), torch.tensor([1, 2]), torch.randn(3, 4, dtype=torch.float64)
    torch.manual_seed(2)
    output = dn_denoising(labels, boxes, counts, embedding, num_queries=2)
    torch.manual_seed(2)
    shape = (2, 5, 2)
    drawn, chance = torch.randint(3, shape), torch.rand(shape)
    part = torch.rand(*shape, 4, dtype=torch.float64)
    content, references = torch.zeros(2, 10, 4, dtype=torch.float64), torch.zeros(2, 10, 4, dtype=torch.float64)
    for box, (image, slot) in enumerate(((0, 0), (1, 0), (1, 1))):
        for group in range(5):
            at = (image, group, slot)
            label = drawn[at] if chance[at] < 0.2 else labels[box]
            x, y, w, h = boxes[box].tolist()
            r = [2 * value - 1 for value in part[at].tolist()]
            noised = [x + r[0] * w / 2 * 0.4, y + r[1] * h / 2 * 0.4, w + r[2] * w * 0.4, h + r[3] * h * 0.4]
            inside = [min(max(value, 0.0), 1.0) for value in noised]
            content[image, 2 * group + slot] = embedding[label]
            logits = [math.log(max(value, 1e-3) / max(1 - value, 1e-3)) for value in inside]
            references[image, 2 * group + slot] = torch.tensor(logits, dtype=torch.float64)
    assert torch.equal(output["content"], content)
    torch.testing.assert_close(output["references"], references, rtol=0, atol=1e-11)
    assert torch.equal(output["attn_mask"], denoising_attention_mask(5, 2, 2))


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=3), groups=st.integers(1, 4), seed=st.integers(0, 99))
def test_any_counts(counts: list[int], groups: int, seed: int) -> None:
    torch.manual_seed(seed)
    boxes = 0.3 + 0.4 * torch.rand(sum(counts), 4, dtype=torch.float64)
    labels, embedding = torch.randint(3, (sum(counts),)), torch.randn(3, 2, dtype=torch.float64)
    settings = {"groups": groups, "label_noise_probability": 0.0, "box_noise_scale": 0.0}
    output = dn_denoising(labels, boxes, torch.tensor(counts), embedding, num_queries=3, **settings)
    assert output["content"].shape == (len(counts), groups * max(counts), 2)
    start = 0
    for image, count in enumerate(counts):
        for group in range(groups):
            slots = output["content"][image].unflatten(0, (groups, max(counts)))[group]
            references = output["references"][image].unflatten(0, (groups, max(counts)))[group]
            assert torch.equal(slots[:count], embedding[labels[start : start + count]])
            torch.testing.assert_close(references[:count], inverse_sigmoid(boxes[start : start + count]))
            assert not slots[count:].any()
            assert not references[count:].any()
        start += count


def test_centres_and_sizes_move_by_their_own_law() -> None:
    box = torch.tensor([0.5, 0.5, 0.2, 0.4], dtype=torch.float64).expand(4000, 4)
    noised = shifted_and_scaled(box, 0.4)
    for coordinate, most in enumerate((0.04, 0.08, 0.08, 0.16)):
        assert kstest((noised - box)[:, coordinate], "uniform", args=(-most, 2 * most)).pvalue > 1e-6
    assert (torch.corrcoef((noised - box).T) - torch.eye(4)).abs().max() < 6 / math.sqrt(4000)
    assert (shifted_and_scaled(torch.rand(1000, 4), 1.0) >= 0).all()


def test_indicator() -> None:
    """The content of denoising queries ends in 1, that of matching queries in 0, and empty slots hold nothing."""
    embedding = torch.randn(4, 3)
    matching = with_indicator(embedding[3], False)
    assert matching.tolist() == [*embedding[3].tolist(), 0.0]
    table = with_indicator(embedding[:3], True)
    output = dn_denoising(torch.tensor([2, 1, 0]), torch.rand(3, 4), torch.tensor([2, 1]), table, num_queries=1)
    indicator = output["content"].unflatten(1, (5, 2))[..., -1]
    assert torch.equal(indicator, torch.tensor([[1.0, 1.0], [1.0, 0.0]])[:, None].expand(2, 5, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"label_noise_probability": -0.2}, r"label_noise_probability must lie between 0 and 1, got -0\.2"),
        ({"box_noise_scale": -1.0}, r"box_noise_scale must not be negative, got -1\.0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dn_denoising(
            torch.tensor([0]), torch.rand(1, 4), torch.tensor([1]), torch.randn(2, 3), num_queries=1, **settings
        )
