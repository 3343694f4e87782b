"""Right implementations that the suite once refused, or blamed for something else: each passes now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import detr_reference
from detr_conformance import Target
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.running.trial import trials
from detr_reference import MSDeformAttnConfig, MultiScaleDeformableAttention, detection_losses
from detr_reference.losses import detection_losses as losses_module

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def failures(operation: str, implementation: Callable[..., Any], *clauses: str, **about: Any) -> list[str]:
    """What fails of these clauses, of all if none is named."""
    target = Target(name="right", provides={operation: implementation}, dtypes=("float32",), **about)
    found = trials(target, set(clauses) or None)
    return [f"{', '.join(test.clauses)} {test.name}: {failure}" for test, _, failure in found if failure is not None]


@pytest.mark.parametrize(
    ("operation", "clause"),
    [
        ("postprocess", "PP-15"),
        ("detection_losses", "LOSS-29"),
        ("hungarian_matching", "HM-20"),
        ("generalized_box_iou", "GIOU-12"),
    ],
)
def test_an_exception_needs_no_text(operation: str, clause: str) -> None:
    """`assert` in DETR and DINO says nothing."""

    def silent(*arguments: Any, **settings: Any) -> Any:
        try:
            return getattr(detr_reference, operation)(*arguments, **settings)
        except (ValueError, TypeError) as error:
            raise AssertionError from error

    assert failures(operation, silent, clause) == []


def gathered_as_object(number: Tensor) -> Tensor:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, float(number))
    return torch.tensor(sum(found))


def gathered_as_tensor(number: Tensor) -> Tensor:
    found = number.new_zeros(dist.get_world_size())
    dist.all_gather_into_tensor(found, number[None])
    return found.sum()


@pytest.mark.parametrize("gathered", [gathered_as_object, gathered_as_tensor])
def test_the_number_of_boxes_may_be_gathered(
    gathered: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mean_boxes(counts: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        number = counts.sum().to(dtype)
        if dist.is_initialized():
            number = gathered(number).to(number) / dist.get_world_size()
        return number.clamp(min=1)

    monkeypatch.setattr(losses_module, "mean_boxes", mean_boxes)
    assert failures("detection_losses", detection_losses, "LOSS-13", "LOSS-14") == []


class PlainCallable:
    """A module that is no nn.Module, as one around a compiled program is."""

    def __init__(self, made: nn.Module) -> None:
        self._made = (made.eval(),)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._made[0](*arguments, **named)


class WithNamesOfItsOwn(nn.Module):
    """A port whose parameters have other names."""

    def __init__(self, made: nn.Module) -> None:
        super().__init__()
        self.own = [made]  # hidden from named_parameters
        self.numbers = nn.ParameterList(made.parameters())

    def forward(self, *arguments: Any, **named: Any) -> Any:
        self.own[0].train(self.training)
        return self.own[0](*arguments, **named)


@pytest.mark.parametrize("form", [PlainCallable, WithNamesOfItsOwn])
@pytest.mark.parametrize("operation", ["mlp", "self_attention", "ms_deform_attn_module"])
def test_a_forward_only_module_needs_no_names(operation: str, form: Callable[[nn.Module], Any]) -> None:
    def build(config: Any, state_dict: Mapping[str, Tensor] | None) -> Any:
        return form(resolve(OPERATIONS[operation].reference)(config, state_dict))

    assert failures(operation, build, features=()) == []


class WithoutPadding(MultiScaleDeformableAttention):
    """RT-DETR's and its successors' module has no argument for a mask."""

    def forward(self, query: Tensor, value: Tensor | None = None, **named: Any) -> Tensor:
        if "key_padding_mask" in named:
            raise TypeError("forward() got an unexpected keyword argument 'key_padding_mask'")
        return super().forward(query, value, **named)


def test_a_module_may_have_no_padding_mask() -> None:
    def build(config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        module = WithoutPadding(config)
        if state_dict is not None:
            module.load_state_dict(state_dict)
        return module

    assert failures("ms_deform_attn_module", build, variants={"padding": "none"}) == []
    assert failures("ms_deform_attn_module", build, "MSDM-8") != []  # who claims it has to have it


def test_who_multiplies_by_zero_is_told_so() -> None:
    """NaN in untouched cells leaks: a question of MSDA-17, and of no level's start."""

    def clamped_times_zero(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        right = detr_reference.ms_deform_attn(value, shapes, starts, locations, weights)
        leak = (value * 0).sum(1)[:, None].expand(-1, right.shape[1], -1, -1).flatten(2)
        return right + leak

    assert failures("ms_deform_attn", clamped_times_zero, "MSDA-5") == []
    assert failures("ms_deform_attn", clamped_times_zero, "MSDA-17") != []
