"""Cases of the focal loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject


def focal_case(
    subject: Subject, logits: Tensor, targets: Tensor, num_boxes: float, note: str, **settings: float
) -> Case:
    tensors = {"logits": logits, "targets": targets.double(), "num_boxes": torch.tensor(num_boxes)}
    return block_case(subject, tensors, settings=settings, note=f"focal {note}")


def tokens(subject: Subject, *shape: int, seed: str = "", spread: float = 1.5) -> tuple[Tensor, Tensor]:
    """Logits, and targets with a positive among the first and among the last ones."""
    fill = Filler(subject.dtype, subject.settings.seed, "tokens", seed, shape)
    targets = fill.chance(0.25, *shape)
    if targets.numel() > 1:
        targets.view(-1)[0], targets.view(-1)[-1] = True, False
    return spread * fill.normal(*shape), targets


def ordinary(subject: Subject) -> Iterator[Case]:
    yield focal_case(subject, *tokens(subject, 2, 5, 3), 3.0, "ordinary")
    yield focal_case(subject, *tokens(subject, 3, 4, 2, seed="far", spread=3.0), 2.0, "far").laid_out("transposed")


def many_tokens(subject: Subject) -> Iterator[Case]:
    """More elements than fit into any block of a kernel, and not a multiple of it."""
    yield focal_case(subject, *tokens(subject, 2, 1501, 7), 200.0, "many tokens")


def weights(subject: Subject) -> Iterator[Case]:
    for alpha in (0.25, 0.9, 0.0, 1.0):
        yield focal_case(subject, *tokens(subject, 2, 4, 3), 2.0, f"alpha {alpha}", alpha=alpha)


def exponents(subject: Subject) -> Iterator[Case]:
    for gamma in (0.0, 0.5, 1.0, 2.0, 3.5):
        yield focal_case(subject, *tokens(subject, 2, 4, 3), 2.0, f"gamma {gamma}", gamma=gamma)


def normalisers(subject: Subject) -> Iterator[Case]:
    for num_boxes in (0.375, 1.0, 5.5, 40.0):
        yield focal_case(subject, *tokens(subject, 2, 5, 3), num_boxes, f"{num_boxes} boxes")


def any_shape(subject: Subject) -> Iterator[Case]:
    for shape in ((4,), (3, 2), (2, 1, 3), (2, 2, 3, 2), (3, 1), (0, 3), (2, 0, 3)):
        yield focal_case(subject, *tokens(subject, *shape), 2.0, f"shape {shape}")


def large(subject: Subject) -> Iterator[Case]:
    """Right and wrong answers of any certainty; the loss of the wrong ones grows like the logit."""
    sizes = torch.tensor([12.0, 30.0, 100.0, 700.0, 10000.0], dtype=torch.float64)
    logits = torch.stack((sizes, -sizes, -sizes, sizes), -1)
    targets = torch.tensor([False, True, False, True]).expand(5, 4)
    for gamma in (2.0, 0.5):
        for row, size in enumerate(sizes.tolist()):
            pair = slice(row, row + 1)
            yield focal_case(subject, logits[pair], targets[pair], 64.0, f"logits {size}", gamma=gamma)


def saturated(subject: Subject) -> Iterator[Case]:
    """Logits of +-10000, +-200 and 0 with every target, under exponents below and above 1."""
    logits = torch.tensor([1e4, -1e4, 200.0, -200.0, 0.0], dtype=torch.float64).expand(2, 5)
    targets = torch.tensor([[True], [False]]).expand(2, 5)
    for gamma in (0.0, 0.5, 1.0, 2.0):
        yield focal_case(subject, logits, targets, 64.0, "saturated", gamma=gamma)


def at_zero(subject: Subject) -> Iterator[Case]:
    """Logits of a head that is still zero."""
    targets = torch.tensor([[True, False, False], [False, False, True]])
    yield focal_case(subject, torch.zeros(2, 3), targets, 2.0, "zero logits")


def few_tokens(subject: Subject) -> Iterator[Case]:
    """A scalar of few terms, whose errors do not average out."""
    for seed in range(6):
        yield focal_case(subject, *tokens(subject, 1 + seed % 2, 2, seed=str(seed)), 1.0, f"few {seed}")


def easy(subject: Subject) -> Iterator[Case]:
    """Right answers only, as sure as those of a trained detector about its background."""
    for size in (5.0, 8.0):
        logits, targets = tokens(subject, 3, 4, seed=str(size))
        sure = size + 0.25 * logits
        yield focal_case(subject, torch.where(targets, sure, -sure), targets, 2.0**-12, f"easy {size}")


def representative_sigmoid_focal_loss(subject: Subject) -> list[Case]:
    return list(ordinary(subject))


@composite
def _drawn_tokens(draw: st.DrawFn, subject: Subject) -> Case:
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    settings: dict[str, Any] = {
        "alpha": draw(st.sampled_from((0.25, 0.5, 0.75))),
        "gamma": draw(st.sampled_from((0.0, 1.0, 2.0, 4.0))),
    }
    logits, targets = tokens(subject, *shape, seed=str(draw(SEEDS)))
    case = focal_case(subject, logits, targets, draw(st.sampled_from((1.0, 3.0, 17.0))), "drawn", **settings)
    return case.laid_out(draw(ANY_LAYOUT))


def drawn_tokens(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn_tokens(subject)
