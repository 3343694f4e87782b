"""`python -m detr_conformance.running.serve TARGET`: a target in a process of its own, which messages come to.

The protocol has standard input and output to itself: what the target prints goes to standard error, and what it reads
is empty. Each lane of messages is answered in its turn, several lanes at the same time.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import IO, Any

from detr_conformance.isolation.limited import limit_memory
from detr_conformance.running.loaders import load_target
from detr_conformance.target import TargetError

OWN = ("detr_conformance.isolation", "detr_conformance.running")
Messages = SimpleQueue[dict[str, Any] | None]


class Wire:
    """Messages out, one JSON line each."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.lock = Lock()

    def send(self, message: dict[str, Any]) -> None:
        with self.lock:
            self.stream.write(json.dumps(message) + "\n")
            self.stream.flush()


def main(name: str, memory: int) -> None:
    faulthandler.enable()
    limit_memory(memory)
    source, wire = _take_standard_streams()
    sys.argv = [name]
    try:
        target = load_target(name)
    except TargetError as error:
        wire.send({"message": "refused", "reason": str(error)})
        return
    from detr_conformance.isolation.server import Server, hello

    server = Server(target)
    wire.send(hello(target))
    for module in [module for module in sys.modules if module.startswith(OWN)]:
        del sys.modules[module]  # a target that looks for its judge finds nobody
    first: Messages = SimpleQueue()
    Thread(target=_dispatch, args=(source, first, partial(_work, server, wire)), daemon=True).start()
    _work(server, wire, first)
    os._exit(0)  # whatever threads the target has left


def _work(server: Any, wire: Wire, messages: Messages) -> None:
    """Answers the messages of one lane, the target in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:

        def there(function: Any, /, *positional: Any, **named: Any) -> Any:
            return pool.submit(function, *positional, **named).result()

        while (message := messages.get()) is not None:
            try:
                wire.send(server.answer(message, there))
            except SystemExit as left:
                os._exit(left.code if isinstance(left.code, int) else 1)


def _dispatch(source: Iterable[str], first: Messages, work: Any) -> None:
    """Each message to its lane; no more of them, or `stop`, ends the process however busy it is."""
    lanes: dict[int, Messages] = {0: first}
    for line in source:
        message = json.loads(line)
        if message["message"] == "stop":
            break
        lane = message["lane"]
        if lane not in lanes:
            lanes[lane] = SimpleQueue()
            Thread(target=work, args=(lanes[lane],), daemon=True).start()
        lanes[lane].put(message)
    os._exit(0)


def _take_standard_streams() -> tuple[IO[str], Wire]:
    source, sink = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return source, Wire(sink)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
