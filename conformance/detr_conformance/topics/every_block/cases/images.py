"""The images of a batch one by one, and what an output says of each."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from detr_conformance import operations
from detr_conformance.harness.block_case import inputs_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.packing import of_image, shapes_of_image
from detr_conformance.harness.subject import Subject

SHARED = ("spatial_shapes", "level_start_index", "level_embed")  # of all images


def axis_of(subject: Subject) -> int:
    return operations.OPERATIONS[subject.operation].image_axis


def images_of(subject: Subject, case: Case) -> int:
    if not case.shapes:
        return case["grad_output"].shape[0]
    return next(iter(case.shapes.values()))[axis_of(subject)]


def of_image_alone(subject: Subject, case: Case, output: Tensor, image: int) -> Tensor:
    """What an output, or its limits, say of one image."""
    if not case.shapes:
        return output[image : image + 1]
    return of_image(output, case.shapes, image, axis_of(subject))


def batches(subject: Subject, case: Case) -> list[Case]:
    """Each image of the case by itself."""
    size = images_of(subject, case)
    inputs = {name: t for name, t in inputs_of(subject.operation, case).items() if name not in SHARED}
    found = []
    for image in range(size):
        own = {name: _of_image(name, tensor, image, size) for name, tensor in inputs.items()}
        one = case.having(**own, grad_output=of_image_alone(subject, case, case["grad_output"], image))
        found.append(replace(one, shapes=shapes_of_image(case.shapes, axis_of(subject)) if case.shapes else None))
    return found


def _of_image(name: str, tensor: Tensor, image: int, size: int) -> Tensor:
    """Attention masks are (query, key) for all images, or (image * head, query, key)."""
    if name.endswith("attn_mask"):
        return tensor if tensor.ndim == 2 else tensor.unflatten(0, (size, -1))[image]
    return tensor[image : image + 1]
