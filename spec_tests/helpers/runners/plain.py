"""`python plain.py OPERATION ...`: a runner that holds nothing, of the reference's blocks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detr_conformance.operations import OPERATIONS, resolve

HELLO = {
    "message": "hello",
    "protocol": 1,
    "name": "plain",
    "version": None,
    "holds": False,
    "devices": ["cpu"],
    "dtypes": ["float32", "float64"],
    "features": ["backward", "deterministic"],
    "variants": {},
}


class Unknown(Exception):
    """A step of a later version."""


class Run:
    """One message: its tensors, what its steps make, and the results."""

    def __init__(self, message: dict[str, Any]) -> None:
        folder = Path(message["folder"])
        self.file = folder / f"{message['id']}.in"
        found = load_file(self.file) if any(message["storages"].values()) else {}
        empty = torch.empty(0, dtype=torch.uint8)
        self.storages = {name: found.get(name, empty).clone() for name in message["storages"]}
        self.before = {name: content.clone() for name, content in self.storages.items()}
        self.tensors = {each["id"]: self.view(each) for each in message["tensors"]}
        self.made: dict[str, Any] = {}
        self.results: list[Any] = []
        torch.manual_seed(message["seed"])

    def view(self, about: dict[str, Any]) -> Tensor:
        storage = self.storages[about["storage"]].untyped_storage()
        dtype = getattr(torch, about["dtype"])
        tensor = torch.empty(0, dtype=dtype).set_(storage, about["offset"], about["shape"], about["stride"])
        return tensor.requires_grad_(about["requires_grad"])

    def value(self, coded: Any) -> Any:
        if not isinstance(coded, dict):
            return coded
        ((kind, content),) = coded.items()
        match kind:
            case "tensor":
                return self.tensors[content]
            case "float":
                return float(content)
            case "dtype":
                return getattr(torch, content)
            case "dict":
                return {key: self.value(each) for key, each in content}
            case "tuple":
                return tuple(map(self.value, content))
            case "list":
                return list(map(self.value, content))
        raise Unknown(f"a value of the kind {kind}")

    def do(self, step: dict[str, Any]) -> Any:
        match step["do"]:
            case "make":
                return self.make(step)
            case "mode":
                self.made[step["of"]].train(step["train"])
            case "call":
                return self.call(step)
            case "backward":
                outputs, gradients = tensors_in(self.results[step["of"]]), self.value(step["gradients"])
                pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[1] is not None]
                inputs = self.value(step["inputs"])
                outputs, gradients = zip(*pairs, strict=True)
                return list(torch.autograd.grad(outputs, inputs, gradients, allow_unused=True))
            case other:
                raise Unknown(f"a step {other!r}")
        return None

    def make(self, step: dict[str, Any]) -> list[str]:
        """What of the state is not trained."""
        about = OPERATIONS[step["operation"]]
        config = resolve(about.config or "")(**{name: self.value(each) for name, each in step["config"].items()})
        state = self.value(step["state"])
        module = resolve(about.reference)(config, {name: tensor.detach() for name, tensor in state.items()})
        trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        for name in trained:  # gradients are asked of the tensors of the message
            parent, _, last = name.rpartition(".")
            del module.get_submodule(parent)._parameters[last]
            setattr(module.get_submodule(parent), last, state[name])
        self.made[step["id"]] = module
        return [name for name in state if name not in trained]

    def call(self, step: dict[str, Any]) -> Any:
        arguments = self.value(step["arguments"])
        callee = self.made.get(step["of"]) or resolve(OPERATIONS[step["of"]].reference)
        results = [callee(**arguments) for _ in range(step.get("times", 1))]
        return results if "times" in step else results[0]

    def answer(self, number: int) -> dict[str, Any]:
        """Where results lie, and what has changed of the message's storages."""
        out = {name: now for name, now in self.storages.items() if not torch.equal(now, self.before[name])}
        described: list[dict[str, Any]] = []

        def code(value: Any) -> Any:
            if isinstance(value, Tensor):
                return {"tensor": self.describe(value, out, described)}
            if isinstance(value, dict):
                return {"dict": [[key, code(each)] for key, each in value.items()]}
            if isinstance(value, list | tuple):
                return {"list": [code(each) for each in value]}
            return value

        results = [code(result) for result in self.results]
        save_file({name: each for name, each in out.items() if each.numel()}, self.file.with_suffix(".out"))
        sizes = {name: each.numel() for name, each in out.items()}
        return {"id": number, "results": results, "tensors": described, "storages": sizes}

    def describe(self, tensor: Tensor, out: dict[str, Tensor], described: list[dict[str, Any]]) -> str:
        own = {each.untyped_storage().data_ptr(): name for name, each in self.storages.items() if each.numel()}
        storage = own.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
        if storage is None:
            storage = f"r{len(described)}"
            tensor = tensor.detach().clone().requires_grad_(tensor.requires_grad)
            out[storage] = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
        name = f"result-{len(described)}"
        described.append(
            {
                "id": name,
                "storage": storage,
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": list(tensor.shape),
                "stride": list(tensor.stride()),
                "offset": tensor.storage_offset(),
                "requires_grad": tensor.requires_grad,
            }
        )
        return name


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for each in inner for tensor in tensors_in(each)]


def answered(message: dict[str, Any]) -> dict[str, Any]:
    run = Run(message)
    try:
        for step in message["steps"]:
            run.results.append(run.do(step))
    except Unknown as unknown:
        return {"message": "refused", "id": message["id"], "reason": f"unknown here: {unknown}"}
    except Exception as error:
        return {"message": "raised", "id": message["id"], "kind": type(error).__name__, "text": str(error)}
    return {"message": "done", **run.answer(message["id"])}


def say(message: Any) -> None:
    print(json.dumps(message), flush=True)


def main(*operations: str) -> None:
    say({**HELLO, "operations": dict.fromkeys(operations)})
    for line in sys.stdin:
        message = json.loads(line)
        if message["message"] == "stop":
            return
        say(answered(message))


if __name__ == "__main__":
    main(*sys.argv[1:])
