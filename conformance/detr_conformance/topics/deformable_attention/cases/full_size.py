"""Cases of published sizes, made image by image, as float64 copies of all of it would not fit into memory."""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, everywhere
from detr_conformance.topics.deformable_attention.cases.module import ModuleStructure
from detr_conformance.topics.deformable_attention.cases.module_sizes import ModuleRow
from detr_conformance.topics.deformable_attention.cases.workloads import WORKLOADS

IMAGES = 2  # of a workload at most: six cameras are three times two, and need three times the memory
OF_MODELS = ("dino-decoder-denoising", "rt-detr-decoder-640", "mask2former-encoder-1024")  # as modules, which cost more


def workloads_of(kind: str) -> list[tuple[str, Structure]]:
    """Those whose name has this word, by name."""
    return [
        (name, Structure(w.levels, min(w.batch, IMAGES), w.queries, w.heads, w.channels, w.points))
        for name, w in WORKLOADS.items()
        if kind in name
    ]


def modules_of_workloads() -> list[tuple[str, ModuleRow]]:
    """The module in calls of the same sizes: an encoder's with padding, a decoder's in boxes."""
    found = []
    for name in OF_MODELS:
        w = WORKLOADS[name]
        encoder = w.queries == w.cells
        s = ModuleStructure(w.levels, 1, w.queries, w.heads, w.channels, w.points, 2 if encoder else 4, masked=encoder)
        found.append((name, ModuleRow(s, identity=not encoder, encoder=encoder)))
    return found


def whole_call(subject: Subject, s: Structure, note: str) -> Case:
    """A call of random numbers, its samples everywhere."""
    images = [case_at(subject, replace(s, batch=1), everywhere, image, note=note) for image in range(s.batch)]
    shared = ("spatial_shapes", "level_start_index")
    batched = {name: torch.cat([each[name] for each in images]) for name in images[0].tensors if name not in shared}
    return images[0].having(**batched)
