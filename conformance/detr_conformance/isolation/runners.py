"""Any program that speaks the protocol, as a target."""

from __future__ import annotations

from collections.abc import Sequence

from detr_conformance.isolation.client import Client
from detr_conformance.isolation.greeting import greeting
from detr_conformance.isolation.plain import Plain
from detr_conformance.isolation.plain_calls import plain_target
from detr_conformance.isolation.process import Limits, Process, runner_command
from detr_conformance.isolation.remote import served
from detr_conformance.target import Target


def started(command: Sequence[str], limits: Limits) -> Target:
    """What the runner provides that this command starts.

    Raises:
        TargetError: it does not start, or does not say what it provides.
    """
    process = Process(runner_command(command, limits), limits)
    said = greeting(process.start)
    return served(Client(process), said) if said["holds"] else plain_target(Plain(process), said)
