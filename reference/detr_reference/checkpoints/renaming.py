"""State dicts under the reference's names and back, by a table of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from detr_reference.checkpoints import heads
from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables import neck, parts
from detr_reference.checkpoints.tensors import equal


def reference_names(table: NameTable, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor under the reference's name for it; projections of query, key and value joined.

    A file may hold a parameter under several names, as models save modules that they share: the tensors must be equal.

    Raises:
        CheckpointError: names are unknown, or copies of one parameter differ; all of them are listed.
    """
    named: dict[str, Tensor] = {}
    source: dict[str, str] = {}
    faults = []
    for theirs, tensor in state_dict.items():
        if table.is_unused(theirs):
            continue
        ours = table.ours(theirs)
        if ours is None:
            faults.append(f"unknown: {theirs}")
        elif ours not in named:
            named[ours], source[ours] = tensor, theirs
        elif not equal(named[ours], tensor):
            faults.append(f"in conflict: {source[ours]} and {theirs} are copies of {ours}, and differ")
    if faults:
        raise CheckpointError.of("the names cannot be read", faults)
    return heads.numbered_heads(neck.placed(parts.joined(named)))


def original_names(table: NameTable, state_dict: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The reference's tensors under these names of another library; projections cut into query, key and value.

    Raises:
        CheckpointError: names are unknown, or the reference's state dict lacks what they stand for.
    """
    available = neck.numbered(parts.separated(state_dict))
    found: dict[str, Tensor] = {}
    faults = []
    for theirs in names:
        if table.is_unused(theirs):
            continue
        ours = table.ours(theirs)
        if ours is None:
            faults.append(f"unknown: {theirs}")
            continue
        ours = heads.head_in_the_model(ours, state_dict)
        if ours in available:
            found[theirs] = available[ours]
        else:
            faults.append(f"missing: {ours}, for {theirs}")
    if faults:
        raise CheckpointError.of("the names cannot be given", faults)
    return found
