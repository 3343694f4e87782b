"""Processes that do not import torch again: they are forked from one that has imported all and computed nothing."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext


def fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # The first optimiser of a process imports torch._dynamo, which takes longer than torch itself.
    context.set_forkserver_preload(["torch._dynamo", "detr_reference.training.loop"])
    return context
