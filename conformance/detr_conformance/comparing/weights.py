"""The parameters that are asked for: from a file of any format that the project reads, or random ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.comparing.configuration import MOST_PARAMETERS, settings_of_config
from detr_conformance.harness.fill import Filler
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.topics.detectors.cases.models import model_parameters
from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.checkpoints.loading import converted
from detr_reference.checkpoints.reading import read_file
from detr_reference.checkpoints.unwrapping import unwrapped
from detr_reference.cli import CannotDo
from detr_reference.training.detection.trained import open_trained
from detr_reference.training.learning.models import MODELS

FIRST_STAGE, LOW = "transformer.enc_output", 4.0  # below the bias of the head
OF_A_RUN = {"model", "recipe", "categories"}


@dataclass(frozen=True)
class Weights:
    """Parameters under the reference's names, and where they are from."""

    tensors: Mapping[str, Tensor]
    source: str
    config: Any


def random_weights(operation: str, config: Any, seed: int) -> Weights:
    """Such as make no layer's input much larger or smaller, and no cell without a proposal a query."""
    _empty(operation, config)
    fill = Filler("float64", seed, "compare", operation)
    tensors = model_parameters(operation, settings_of_config(config), fill)
    return Weights(proposals_first(tensors), f"random, seed {seed}", config)


def proposals_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters with a first stage that scores cells without a proposal low, as training teaches it.

    They all hold the same, the norm of a bias; by chance that scores best, and all queries would be one.
    """
    if f"{FIRST_STAGE}.bias" not in tensors:
        return dict(tensors)
    bias = tensors[f"{FIRST_STAGE}.bias"]
    scale, shift = tensors[f"{FIRST_STAGE}_norm.weight"], tensors[f"{FIRST_STAGE}_norm.bias"]
    held = nn.functional.layer_norm(bias, bias.shape, scale, shift)
    heads = [name for name in tensors if re.fullmatch(r"class_embed\.\d+\.weight", name)]
    name = max(heads, key=lambda each: int(each.split(".")[1]))
    weight = tensors[name]
    return dict(tensors) | {name: weight - torch.outer(weight @ held + LOW, held) / held.square().sum()}


def read_weights(operation: str, config: Any, path: str, *, config_given: bool) -> Weights:
    """Those of a run of `detr-spec train`, of a published file, or under the reference's own names.

    Raises:
        CannotDo: they cannot be read, or do not fit the configuration.
    """
    try:
        if Path(path).is_dir() or _is_of_a_run(path):
            return _of_a_run(operation, config, path, config_given)
        state_dict = unwrapped(read_file(path))
        model = _empty(operation, config)
        fitting = state_dict if _own_names(state_dict, model) else converted(state_dict, model)
        return Weights(_checked(fitting, model), path, config)
    except CheckpointError as error:
        hint = "" if config_given else "; the sizes of other weights than the default's are given by --config"
        raise CannotDo(f"{error}{hint}") from error


def _is_of_a_run(path: str) -> bool:
    if Path(path).with_name("model.json").is_file():
        return True
    if Path(path).suffix != ".pt":
        return False
    content = read_file(path)
    return isinstance(content, Mapping) and content.keys() >= OF_A_RUN


def _of_a_run(operation: str, config: Any, path: str, config_given: bool) -> Weights:
    trained = open_trained(path)
    if trained.recipe.model.name != operation:
        raise CannotDo(f"{path} holds a {trained.recipe.model.name}; give --operation {trained.recipe.model.name}")
    own = trained.model.config
    if config_given and own != config:
        raise CannotDo(f"{path} knows its sizes, and they are not those of --config; leave --config out")
    return Weights(dict(trained.model.state_dict()), path, own)


def _own_names(state_dict: Mapping[str, Tensor], model: nn.Module) -> bool:
    """Whether they are the reference's; what is no whole model has no other names that are known."""
    names = model.state_dict().keys()
    if not isinstance(model, tuple(each.model for each in MODELS.values() if isinstance(each.model, type))):
        return True
    return 2 * len(names & state_dict.keys()) > len(names)


def _checked(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    expected = model.state_dict()
    faults = [f"missing: {name}" for name in expected if name not in tensors]
    faults += [f"unknown: {name}" for name in tensors if name not in expected]
    both = [name for name in expected if name in tensors]
    faults += [
        f"shape: {name} is {tuple(tensors[name].shape)} and should be {tuple(expected[name].shape)}"
        for name in both
        if tensors[name].shape != expected[name].shape
    ]
    faults += [f"not finite: {name}" for name in both if not tensors[name].isfinite().all()]
    if faults:
        raise CheckpointError.of("the file does not fit the model", faults)
    return {name: tensors[name] for name in expected}


def _empty(operation: str, config: Any) -> nn.Module:
    """The reference without memory for its parameters.

    Raises:
        CannotDo: it has too many.
    """
    with torch.device("meta"):
        module: nn.Module = resolve(OPERATIONS[operation].reference)(config)
    count = sum(parameter.numel() for parameter in module.parameters())
    if count > MOST_PARAMETERS:
        raise CannotDo(f"this configuration has {count:,} parameters, more than the {MOST_PARAMETERS:,} that are tried")
    return module
