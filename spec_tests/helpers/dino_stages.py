"""What DINO computes on the way, stage by stage, and the recorded noise of its denoising queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_reference.detectors import dino
from detr_reference.detectors.dino import DINO
from helpers import published_models as published


def stages(model: DINO, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What each part of the model gives out for the recorded images, as it comes, under the record's names; without
    denoising.
    """
    found: dict[str, Tensor] = {}
    transformer = model.transformer
    model.neck.register_forward_hook(lambda _m, _i, maps: found.update({f"neck_{i}": o for i, o in enumerate(maps)}))
    for stack in ("encoder", "decoder"):
        for i, layer in enumerate(getattr(transformer, stack).layers):
            layer.register_forward_hook(lambda _m, _i, o, name=f"{stack}_layer_{i}": found.update({name: o}))
    transformer.encoder.register_forward_hook(lambda _m, _i, output: found.update(memory=output))
    transformer.enc_output_norm.register_forward_hook(lambda _m, _i, output: found.update(enc_features=output))
    transformer.decoder.register_forward_hook(
        lambda _m, _i, output: found.update({name: output[name] for name in ("hidden_states", "references")})
    )

    def encoder_proposals(*arguments: Any) -> dict[str, Tensor]:
        proposed = actual_proposals(*arguments)
        found.update(proposal_memory=proposed["memory"], proposals=proposed["proposals"])
        return proposed

    def select_queries(*arguments: Any, **settings: Any) -> dict[str, Tensor]:
        selected = actual_selection(*arguments, **settings)
        found.update(selected_cells=selected["indices"].double())
        return selected

    actual_proposals, actual_selection = dino.encoder_proposals, dino.select_queries
    monkeypatch.setattr(dino, "encoder_proposals", encoder_proposals)
    monkeypatch.setattr(dino, "select_queries", select_queries)
    with torch.no_grad():
        predictions = model.eval()(*published.images())
    monkeypatch.undo()
    return found | predictions


def fix_the_noise(monkeypatch: pytest.MonkeyPatch, counts: Sequence[int], groups: int, num_classes: int) -> None:
    """Let torch's random numbers be those that the published code was given for its denoising queries.

    It draws for a list: all boxes of the batch as positives, all as negatives, and again for each group. The reference
    draws for slots, (image, group, positive or negative, slot), of which the empty ones need no number.
    """
    total, slots = sum(counts), max(counts)
    place = torch.zeros(len(counts), groups, 2, slots, dtype=torch.int64)
    for image, count in enumerate(counts):
        for slot in range(count):
            repetition = torch.arange(2 * groups).view(groups, 2)
            place[image, :, :, slot] = repetition * total + sum(counts[:image]) + slot

    def noise(name: str, *axes: int) -> Tensor:
        return published.uniform(f"denoising {name}", (2 * groups * total, *axes))[place]

    monkeypatch.setattr(torch, "rand", lambda *_a, **_k: noise("label chances"))
    monkeypatch.setattr(torch, "randint", lambda *_a, **_k: (noise("labels") * num_classes).long())
    monkeypatch.setattr(torch, "rand_like", lambda *_a, **_k: noise("box distances", 4))
    monkeypatch.setattr(torch, "randint_like", lambda *_a, **_k: (noise("box signs", 4) * 2).floor())
