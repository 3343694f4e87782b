"""Projections of query, key and value that a file keeps apart, as thirds of the one matrix of the reference.

A table writes the third of `in_proj_weight` that a name stands for as `in_proj_weight:q`, `:k` or `:v`. All three have
one size: that they are in the right order shows in equal outputs alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

THIRDS = ("q", "k", "v")


def joined(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The thirds laid one upon another where all three are there in one shape; others are left, to be reported."""
    whole = dict(named)
    for name in named:
        stem, _, third = name.partition(":")
        thirds = [f"{stem}:{each}" for each in THIRDS]
        if third == THIRDS[0] and [named[each].shape for each in thirds if each in named] == [named[name].shape] * 3:
            whole[stem] = torch.cat([whole.pop(each) for each in thirds])
    return whole


def separated(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `joined`: also the thirds of every joined projection."""
    named = dict(state_dict)
    for name, tensor in state_dict.items():
        if name.endswith((".in_proj_weight", ".in_proj_bias")):
            named.update({f"{name}:{third}": part for third, part in zip(THIRDS, tensor.chunk(3), strict=True)})
    return named
