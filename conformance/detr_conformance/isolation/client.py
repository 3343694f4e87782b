"""The judge's end of the wire: one run at a time is put together, sent, and its answer taken over."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from detr_conformance.isolation import ambient, two_ranks_group
from detr_conformance.isolation.mirrors import Mirror, Mirrors
from detr_conformance.isolation.process import Died, Process
from detr_conformance.isolation.values import encode
from detr_conformance.isolation.wire import Described, WireError

Step = dict[str, Any]
ANSWER = {"id", "results", "storages", "tensors", "asking", "ambient", "disturbed", "contributions", "changed"}
CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


class RaisedThere(Exception):
    """The target raised an exception in its own process."""

    def __init__(self, reply: Mapping[str, Any]) -> None:
        self.kind, self.text, self.where, self.trace = (str(reply[key]) for key in ("kind", "text", "where", "trace"))
        self.ambient: ambient.Ambient = reply["ambient"]
        super().__init__(self.text)


@dataclass
class Returned:
    """What a step came to: JSON in which tensors are names, and the tensors by name."""

    coded: Any
    tensors: dict[str, tuple[Tensor, Mirror, Described]]
    ambient: ambient.Ambient


class Client:
    """One target in its process.

    Attributes:
        lost: names of what was made there and is no longer needed here.
        changed: names of modules whose parameters or buffers are others than when they were last described.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.mirrors = Mirrors()
        self.lock = Lock()
        self.lost: list[str] = []
        self.changed: set[str] = set()
        self.lanes: dict[int, int] = {}
        CLIENTS.add(self)
        weakref.finalize(self, process.end)  # at the end of this process at the latest

    def hello(self) -> dict[str, Any]:
        """Starts the process anew."""
        said = self.process.start()
        self.mirrors, self.lost = Mirrors(), []
        return said

    def ready(self) -> int:
        """The number of the process that is running, a new one where the last has ended."""
        if not self.process.running:
            self.hello()
        return self.process.generation

    def tensors_alive(self) -> int:
        """How many tensors there are in its process beside those that are held for this one."""
        return int(self.run(lambda: {"do": "alive"}).coded)

    def name_of(self, tensor: Tensor) -> str:
        return self.mirrors.name_of(tensor)

    def coded(self, value: Any) -> Any:
        return encode(value, self.name_of)

    def run(self, step: Callable[[], Step], state: ambient.Ambient | None = None) -> Returned:
        """Has one step done in the target's process, under the modes of this one.

        Args:
            step: makes the step, once the process is there; names tensors by `coded`.
            state: the modes to take there; None for those of now.

        Raises:
            RaisedThere: the target raised.
            Died: its process ended.
        """
        self.ready()
        folder, modes = Path(self.process.folder.name), state or ambient.read()
        with self.lock, torch.no_grad():
            number = next(self.process.numbers)
            made = step()
            dropped = self.lost[:]
            del self.lost[: len(dropped)]
            message = {
                "message": "run",
                "id": number,
                "folder": str(folder),
                "lane": self._lane(),
                "steps": [made],
                "drop": dropped,
                "inference": torch.is_inference_mode_enabled(),
                "ambient": modes,
                "group": two_ranks_group.to_hand_over(),
                "saved_elsewhere": ambient.saved_elsewhere(),
                **self.mirrors.hand_over(folder, number),
            }
        reply = self._checked(self.process.ask(message, made.get("times", 1)))
        with self.lock, torch.no_grad():
            found = self._taken_over(folder, reply)
            two_ranks_group.take_contributions(reply["contributions"])
        for name in (f"{number}.in", f"{number}.out"):
            (folder / name).unlink(missing_ok=True)
        if state is None:
            ambient.take(reply["ambient"])
        ambient.disturb(reply["disturbed"])
        if reply["message"] == "raised":
            raise RaisedThere(reply)
        return Returned(reply["results"][0], found, reply["ambient"])

    def _checked(self, reply: dict[str, Any]) -> dict[str, Any]:
        """The answer with all that belongs to one."""
        if reply.get("message") not in ("done", "raised") or not reply.keys() >= ANSWER:
            self.process.end()
            raise Died(f"the target's process answered with what is none: {str(reply)[:200]}", "no answer")
        return reply

    def _taken_over(self, folder: Path, reply: Mapping[str, Any]) -> dict[str, tuple[Tensor, Mirror, Described]]:
        try:
            found = self.mirrors.take_over(folder, dict(reply))
            self.mirrors.ask_as_there(reply["asking"])
            self.changed |= set(map(str, reply["changed"]))
            return found
        except (WireError, KeyError, TypeError, ValueError, RuntimeError) as error:
            self.process.end()
            raise Died(f"the target's process answered with what is none: {error}", "no answer") from error

    def _lane(self) -> int:
        """Each thread of the judge has one of its own in the target's process."""
        main = threading.current_thread() is threading.main_thread()
        return 0 if main else self.lanes.setdefault(threading.get_ident(), len(self.lanes) + 1)


def tensors_alive_elsewhere() -> int:
    """How many tensors the targets in processes of their own keep to themselves."""
    return sum(client.tensors_alive() for client in CLIENTS if client.process.running)
