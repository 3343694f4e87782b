"""Cases of DINO's training in which the noise of its denoising queries can be read off its predictions.

With box heads of zeros a query predicts the box it starts at. With a decoder whose sublayers add nothing it predicts,
beside that, a function of its own content alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.harness.block_case import parameters_of, settings_of, with_parameters, with_settings
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.denoising.cases import APART, roomy_boxes
from detr_conformance.topics.detectors.cases.models import forms, model_case

SILENT = ("attentions.0.out_proj.", "attentions.1.output_proj.", "ffns.0.layers.1.")


def readable(subject: Subject, note: str, counts: Sequence[int], **settings: Any) -> Case:
    """A training call whose predictions show boxes and labels of the denoising queries; roomy boxes."""
    case = denoised(subject, note, counts, **settings)
    names = [name for name in parameters_of(case) if name.startswith("bbox_embed.") or _adds(name)]
    zeros = {name.replace(".", "__"): torch.zeros_like(parameters_of(case)[name]) for name in names}
    return with_parameters(case, **zeros)


def _adds(name: str) -> bool:
    """Whether a parameter belongs to what a sublayer of the decoder adds."""
    return name.startswith("transformer.decoder.layers.") and any(part in name for part in SILENT)


def denoised(subject: Subject, note: str, counts: Sequence[int], **settings: Any) -> Case:
    """The first form of the model that the target has, with two images again and again, and so many boxes in each."""
    name, form = next(iter(forms(subject).items()))
    classes = settings.pop("num_classes")
    sizes = {"num_classes": classes} | ({"label_embedding_size": classes + 1} if "label_embedding_size" in form else {})
    case = model_case(subject, f"{name}, {classes} classes", **form | sizes)
    fill = Filler(subject.dtype, subject.settings.seed, "denoised", note, tuple(counts))
    total, turns = sum(counts), -(-len(counts) // len(case["images"]))
    turned = case.having(
        images=case["images"].repeat(turns, 1, 1, 1)[: len(counts)],
        mask=case["mask"].repeat(turns, 1, 1)[: len(counts)],
        target_labels=fill.integers(0, classes - 1, total).long(),
        target_boxes=roomy_boxes(fill, total).to(fill.dtype),
        target_counts=torch.tensor(counts),
    )
    return replace(with_settings(subject, turned, **settings), note=f"denoising, {note}")


def logits_of_labels(case: Case) -> Tensor:
    """(K, K): what a query of each label predicts in the first layer of a readable model."""
    parameters = {name: tensor.double() for name, tensor in parameters_of(case).items()}
    content = parameters["label_enc.weight"][: settings_of(case)["num_classes"]]
    norms = [f"transformer.decoder.layers.0.norms.{number}" for number in range(3)]
    for norm in (*norms, "transformer.decoder.norm"):
        content = F.layer_norm(content, content.shape[-1:], parameters[f"{norm}.weight"], parameters[f"{norm}.bias"])
    return content @ parameters["class_embed.0.weight"].T + parameters["class_embed.0.bias"]


# -- which cases ----------------------------------------------------------------------------------------------


def several_noises(subject: Subject) -> Iterator[Case]:
    """Three groups and more; usual noise and more of it, and none."""
    settings = {"num_classes": 5, "box_noise_scale": APART}
    yield readable(subject, "usual noise", (3, 1, 0, 2), denoising_number=14, **settings)
    yield readable(subject, "much noise", (2, 4), denoising_number=75, label_noise_ratio=1.0, **settings)
    quiet = {"num_classes": 5, "box_noise_scale": 0.0, "label_noise_ratio": 0.0, "denoising_number": 12}
    yield readable(subject, "no noise", (4, 1, 2), **quiet)


def a_sample(subject: Subject) -> Iterator[Case]:
    """Six images of 12 boxes in 20 groups."""
    yield readable(subject, "a sample", (12,) * 6, denoising_number=240, num_classes=5, box_noise_scale=APART)


def many_labels(subject: Subject) -> Iterator[Case]:
    """So many classes that groups hardly have a label in common, and groups of few queries."""
    settings: dict[str, Any] = {"num_classes": 41, "label_noise_ratio": 1.0}
    yield denoised(subject, "five groups", (2, 1), denoising_number=11, **settings)
    yield denoised(subject, "many groups", (1, 1), denoising_number=67, **settings)
