"""Stages judged on the reference's input: whatever a stage of the target computed, the reference's numbers go on.

A stage that is wrong by itself is then wrong still, and one that inherits an error is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import explained
from detr_conformance.isolation.stage_values import StageCalls, by_stage, stage_calls
from detr_conformance.stages import pattern_of
from detr_conformance.staging.expectations import Expected
from detr_conformance.staging.judging import Stage, judged, worst_of_each


def on_the_references_input(
    module: Any, paths: Mapping[str, str], expected: Expected, own: StageCalls, call: Callable[[], Any]
) -> dict[str, Stage]:
    """Every named stage and part in a call in which each is given what the reference gives it, as far as it is named.

    Empty where nothing can be handed over: to what is no nn.Module of this process, or to a model that then raises.

    Args:
        own: what the stages computed in a call without help, in their order.
    """
    given = _in_their_place(expected, paths, own)
    if not isinstance(module, nn.Module) or not given:
        return {}
    try:
        with explained("the call"):
            got = by_stage(stage_calls(module, paths, call, given))
    except Mismatch:
        return {}
    return worst_of_each(judged(expected, paths, got))


def _in_their_place(expected: Expected, paths: Mapping[str, str], own: StageCalls) -> dict[str, Sequence[Tensor]]:
    """The reference's numbers of the stages that the target calls as the reference does.

    One that is called several times is so only where the whole order of calls is the same.
    """
    right: dict[str, list[Tensor]] = {}
    for name, whole, part in expected:
        if pattern_of(name) in paths:
            right.setdefault(name, []).append(whole.expected[part])
    sizes = {name: [each.numel() for each in calls] for name, calls in by_stage(own).items()}
    same_order = [name for name, _ in own] == [name for name, *_ in expected if pattern_of(name) in paths]
    return {
        name: calls
        for name, calls in right.items()
        if sizes.get(name) == [each.numel() for each in calls] and (len(calls) == 1 or same_order)
    }
