"""Cases of the whole models: small ones in which every parameter is random and every image is padded differently.

Where a model selects queries, the scores of the selected cells keep a distance from each other and from the next one,
so that no rounding exchanges two of them; seeds are tried until they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.block_case import (
    block_case,
    call_with,
    config_of,
    inputs_of,
    reference_callable,
)
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.topics.every_block.cases.other_numbers import other_numbers, other_parameters

# (height, width): what all images of a batch are padded to, images of whole cells of stride 32, and of parts of cells.
# DETR sees one map, of stride 32; the others also see maps of stride 8 and 16.
LARGE, SMALL = (128, 160), (64, 96)
SIZES = {"detr": LARGE, "deformable_detr": SMALL, "dino": SMALL}
EXTENTS = {LARGE: ((128, 96), (96, 160)), SMALL: ((64, 64), (32, 96))}
UNEVEN = {LARGE: ((101, 160), (128, 77)), SMALL: ((43, 96), (64, 53))}
TINY = {
    "num_classes": 4,
    "num_queries": 5,
    "embed_dim": 16,
    "num_heads": 2,
    "feedforward_dim": 12,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "backbone_blocks": (1, 2, 1, 1),
    "backbone_width": 4,
}
DEFORMABLE = {"num_levels": 4, "num_points": 2, "neck_groups": 4, "dropout": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "detr": {**TINY, "dropout": 0.0},
    "deformable_detr": {**TINY, **DEFORMABLE},
    "dino": {**TINY, **DEFORMABLE, "denoising_number": 4},
}
MARGIN = 1e-3  # between the scores of neighbours in the order of selection
ATTEMPTS = 60

_made: dict[tuple[Any, ...], Case] = {}  # many tests share a case, and a margin takes a while to find


def model_case(
    subject: Subject,
    note: str,
    *seed: Any,
    extents: tuple[tuple[int, int], ...] | None = None,
    size: tuple[int, int] | None = None,
    again: bool = True,
    **settings: Any,
) -> Case:
    """A call of a random model with random images.

    Args:
        again: it can also be called with the numbers that chapter 3 makes of these.
    """
    size = size or SIZES[subject.operation]
    extents = extents or EXTENTS[size]
    chosen = {**SETTINGS[subject.operation], **settings}
    key = (
        subject.operation,
        subject.dtype,
        subject.settings.seed,
        note,
        repr(sorted(chosen.items())),
        extents,
        size,
        again,
        seed,
    )
    if key not in _made:
        _made[key] = _found_case(subject, note, chosen, extents, size, again, *seed)
    return _made[key]


def _found_case(
    subject: Subject,
    note: str,
    chosen: dict[str, Any],
    extents: tuple[tuple[int, int], ...],
    size: tuple[int, int],
    again: bool,
    *seed: Any,
) -> Case:
    for attempt in range(ATTEMPTS):
        fill = Filler(subject.dtype, subject.settings.seed, subject.operation, note, sorted(chosen), *seed, attempt)
        parameters = model_parameters(subject.operation, chosen, fill)
        images, mask = padded_images(fill, size, extents)
        case = block_case(subject, {"images": images, "mask": mask}, parameters, chosen, note)
        calls = _called_in_chapter_3(subject, case) if again else [case]
        if all(selection_margin(subject.operation, each) > MARGIN for each in calls):
            return case
    require(False, f"{ATTEMPTS} seeds without a margin between the scores of selected queries")
    raise AssertionError


def padded_images(fill: Filler, size: tuple[int, int], extents: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
    """Images in the upper left corner, zeros around them, and the mask that says so."""
    images = fill.normal(len(extents), 3, *size)
    mask = torch.ones(len(extents), *size, dtype=torch.bool)
    for number, (height, width) in enumerate(extents):
        mask[number, :height, :width] = False
    return images * ~mask[:, None], mask


def model_parameters(operation: str, settings: Mapping[str, Any], fill: Filler) -> dict[str, Tensor]:
    """Parameters and statistics under the reference's names; no layer makes its input much larger or smaller."""
    entry = OPERATIONS[operation]
    assert entry.config is not None
    with torch.random.fork_rng(devices=[]):
        module: nn.Module = resolve(entry.reference)(resolve(entry.config)(**settings))
    return {name: _drawn(name, tuple(tensor.shape), fill) for name, tensor in module.state_dict().items()}


def _drawn(name: str, shape: tuple[int, ...], fill: Filler) -> Tensor:
    last = name.rpartition(".")[2]
    if last == "running_var":
        return fill.uniform(0.6, 1.5, *shape)
    if len(shape) == 4:
        return (2 / (shape[1] * shape[2] * shape[3])) ** 0.5 * fill.normal(*shape)
    if "embed.weight" in name or "embedding" in name or name.endswith(("level_embeds", "label_enc.weight")):
        return fill.normal(*shape)
    if len(shape) == 2:
        return 1.2 * shape[1] ** -0.5 * fill.normal(*shape)
    if last == "weight":
        return fill.uniform(0.5, 1.5, *shape)
    return (1.0 if "sampling_offsets" in name else 0.3) * fill.normal(*shape)


# -- margins of the selection -----------------------------------------------------------------------------------


def selection_margin(operation: str, case: Case) -> float:
    """The smallest distance between the scores of neighbours among the selected cells and the next one."""
    config = config_of(operation, case)
    if not getattr(config, "two_stage", False):
        return torch.inf
    made = reference_callable(operation, case, torch.float64)
    seen: list[Tensor] = []
    hook = made.class_embed[-1].register_forward_hook(lambda *call: seen.append(call[2]))  # type: ignore[attr-defined]
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in inputs_of(operation, case).items()}
    with torch.no_grad():
        call_with(operation, made, inputs)
    hook.remove()
    logits = seen[0]
    scores = logits[..., 0] if operation == "deformable_detr" else logits.amax(-1)
    best = scores.topk(min(config.num_queries + 1, scores.shape[-1]), dim=-1).values
    return float((best[:, :-1] - best[:, 1:]).min()) if best.shape[-1] > 1 else torch.inf


def _called_in_chapter_3(subject: Subject, case: Case) -> Iterator[Case]:
    """The case, and what chapter 3 makes of it: other images in the same storage, other parameters in the module."""
    yield case
    yield other_numbers(subject.operation, case)
    yield other_parameters(subject.operation, case)


# -- the usual cases --------------------------------------------------------------------------------------------


def forms(subject: Subject) -> dict[str, dict[str, Any]]:
    """The settings of the forms in which a model comes, those that the target has.

    Raises:
        NotProvided: it has none of them.
    """
    every: dict[str, dict[str, dict[str, Any]]] = {
        "detr": {"plain": {}},
        "deformable_detr": {
            "plain": {},
            "refined": {"box_refinement": True},
            "two-stage": {"box_refinement": True, "two_stage": True},
        },
        "dino": {"separate heads": {}, "shared heads": {"shared_heads": True, "label_embedding_size": 5}},
    }
    found = every[subject.operation]
    heads = subject.variant("heads") if subject.operation == "dino" else "any"
    found = {name: form for name, form in found.items() if heads in ("any", name.partition(" ")[0])}
    if not found:
        raise NotProvided(f"none of {', '.join(every[subject.operation])}")
    return found


def each_form(subject: Subject) -> Iterator[Case]:
    for name, settings in forms(subject).items():
        yield model_case(subject, name, **settings)


def uneven(subject: Subject) -> Iterator[Case]:
    """Each form, on images that end within a cell."""
    for name, settings in forms(subject).items():
        extents = UNEVEN[SIZES[subject.operation]]
        yield model_case(subject, f"{name}, uneven images", extents=extents, again=False, **settings)


def layer_counts(subject: Subject) -> Iterator[Case]:
    """Other numbers of encoder and decoder layers than the usual."""
    for name, settings in forms(subject).items():
        for encoder, decoder in ((1, 1), (3, 2)):
            sizes: dict[str, Any] = {"num_encoder_layers": encoder, "num_decoder_layers": decoder}
            note = f"{name}, {encoder} and {decoder} layers"
            yield model_case(subject, note, again=False, **settings, **sizes)


def with_targets(subject: Subject, case: Case, *counts: int) -> Case:
    """The case with so many boxes in each image."""
    total = sum(counts)
    fill = Filler(subject.dtype, subject.settings.seed, "targets", counts)
    return case.having(
        target_labels=fill.integers(0, 3, total).long(),
        target_boxes=torch.cat((fill.uniform(0.3, 0.7, total, 2), fill.uniform(0.1, 0.5, total, 2)), -1).to(fill.dtype),
        target_counts=torch.tensor(counts),
    )


def representative_detr(subject: Subject) -> list[Case]:
    return list(each_form(subject))


def representative_deformable_detr(subject: Subject) -> list[Case]:
    """The two forms that differ most; the one between them has tests of its own."""
    cases = list(each_form(subject))
    return [*cases[:1], *cases[2:]]


def representative_dino(subject: Subject) -> list[Case]:
    return list(each_form(subject))[:1]
