"""A second look inside the layer that diverges: the part that is wrong is named, and what inherits is told from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_conformance import PARTS, STAGES
from detr_conformance.harness.block import calling, make
from detr_conformance.harness.random_rounding import PooledRounding, RandomRounding, spread
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.isolation.process import Limits
from detr_conformance.isolation.remote import isolated
from detr_conformance.isolation.stage_values import by_stage, stage_calls
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.stages import LAYERS
from detr_conformance.staging.divergence import Look, divergence_details, first_divergence, look
from detr_conformance.staging.expectations import every_expectation, told_of
from detr_conformance.staging.judging import judged
from detr_conformance.topics.detectors.cases.models import forms, model_case
from detr_conformance.topics.queries.cases.decoder import PLAIN, decoder_case
from detr_reference.detectors import dino
from helpers.planted_defects import Build, case_of, planted, scaled, subject_of, swapped, without_a_channel

FINER = STAGES["dino"] | PARTS["dino"]
INNER = [(part.replace("{i}", "1"), path.replace("{i}", "1")) for part, path in PARTS["dino"].items()]


def looked(*builds: Build, **settings: Any) -> Look:
    subject = subject_of(builds[0], **{"stages": FINER, **settings})
    return look(subject, case_of(subject))


def other_numbers(tensor: Tensor) -> Tensor:
    return tensor * torch.linspace(0.9, 1.1, tensor.shape[-1])


def test_every_kind_of_part_has_a_name() -> None:
    asked = {"self_attention", "cross_attention", "sampling_locations", "attention_weights", "norm_0", "ffn"}
    for operation in ("deformable_detr", "dino", "dino_decoder"):
        assert asked <= {name.rpartition(".")[2] for name in PARTS[operation]}
    assert asked - {"sampling_locations", "attention_weights"} <= {n.rpartition(".")[2] for n in PARTS["detr"]}


@pytest.mark.parametrize(("part", "path"), INNER)
def test_a_defect_of_each_part(part: str, path: str) -> None:
    found = looked(planted(path, other_numbers))
    stage = part.rpartition(".")[0]
    assert (found.stages[-1].name, found.parts[-1].name) == (stage, part)
    assert all(each.agrees for each in (*found.stages[:-1], *found.parts[:-1]))
    assert {name for name, each in found.handed.items() if not each.agrees} <= {part, stage}
    assert not found.handed[part].agrees


def test_what_inherits_is_told_from_a_second_mistake() -> None:
    """Both layers diverge in a call without help, whether the second is wrong or not."""
    first, second = (
        swapped("transformer.decoder.layers.0"),
        planted("transformer.decoder.layers.2.ffns.0", other_numbers),
    )

    def both(config: Any, state_dict: Any) -> nn.Module:
        model = first(config, state_dict)
        donor = second(config, state_dict)
        model.transformer.decoder.layers[2] = donor.transformer.decoder.layers[2]
        return model

    told = looked(both).told()
    assert "inside it: norm_0, off by" in told
    assert "given the reference's input, decoder.0 still differs, in norm_0, norm_1; and so does decoder.2.ffn" in told
    assert "decoder.0 still differs, in norm_0, norm_1; what comes behind it inherits" in looked(first).told()


def test_what_lies_behind_the_parts() -> None:
    told = looked(planted("transformer.encoder.layers.1", scaled)).told()
    assert "inside it no part diverges (" in told
    assert "given the reference's input, encoder.1 still differs; what comes behind it inherits" in told


def test_parts_may_differ_where_the_layer_agrees() -> None:
    """What a norm is given may be larger by any factor."""
    assert all(stage.agrees for stage in looked(planted("transformer.decoder.layers.1.ffns.0", lambda x: 2 * x)).stages)


def test_parts_that_are_not_named_are_not_looked_at() -> None:
    some = STAGES["dino"] | {"decoder.{i}.ffn": PARTS["dino"]["decoder.{i}.ffn"]}
    found = looked(swapped("transformer.decoder.layers.1"), stages=some)
    assert [part.name for part in found.parts] == ["decoder.1.ffn"]
    assert looked(swapped("transformer.decoder.layers.1"), stages=STAGES["dino"]).parts == []


def test_a_function_is_looked_at_and_left_as_it_was() -> None:
    """One that a module was given, and a method of its class."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core: Callable[[Tensor], Tensor] = scaled

        def half(self, x: Tensor) -> Tensor:
            return x / 2

        def forward(self, x: Tensor) -> Tensor:
            return self.half(self.core(x))

    module, ones = Attention(), torch.ones(3, dtype=torch.float64)
    paths = {"in": "core>tensor", "out": "core", "half": "half>x"}
    found = dict(stage_calls(module, paths, lambda: module(ones), {"out": [2 * ones]}))
    assert {name: float(numbers[0]) for name, numbers in found.items()} == {"in": 1.0, "out": 1.01, "half": 2.0}
    assert module.core is scaled
    assert "half" not in vars(module)
    assert float(module(ones)[0]) == 0.505


def test_detr_has_parts_too() -> None:
    build = planted_in("detr", "transformer.decoder.layers.1.attentions.1", other_numbers)
    subject = Subject("detr", build, "float32", "cpu", stages=STAGES["detr"] | PARTS["detr"], settings=Settings())
    found = look(subject, model_case(subject, "plain"))
    assert (found.stages[-1].name, found.parts[-1].name) == ("decoder.1", "decoder.1.cross_attention")


def test_a_decoder_alone() -> None:
    stages = LAYERS["dino_decoder"] | PARTS["dino_decoder"]
    build = planted_in("dino_decoder", "layers.1.norms.1", other_numbers)
    subject = Subject("dino_decoder", build, "float32", "cpu", stages=stages, settings=Settings())
    found = look(subject, decoder_case(subject, PLAIN))
    assert (found.stages[-1].name, found.parts[-1].name) == ("layer.1", "layer.1.norm_1")


def test_what_is_not_named_is_not_told_of_a_decoder() -> None:
    subject = Subject("dino_decoder", planted_in("dino_decoder", "norm", without_a_channel), settings=Settings())
    assert first_divergence(subject, decoder_case(subject, PLAIN)) is None


def test_a_case_that_the_reference_refuses_has_no_stages() -> None:
    """A layer that takes what it should not fails its clause, and that is all that can be said."""

    class Takes(nn.Module):
        def forward(self, query: Tensor, **rest: Tensor) -> dict[str, Tensor]:
            return shaped

    stages = LAYERS["dino_decoder"]
    subject = Subject("dino_decoder", lambda config, state_dict: Takes(), stages=stages, settings=Settings())
    case = decoder_case(subject, PLAIN)
    shaped = {name: torch.zeros(shape) for name, shape in (case.shapes or {}).items()}
    assert divergence_details(subject, case)[0].startswith("first divergence: stage layer_position.0, which never ran")
    assert divergence_details(subject, case.having(valid_ratios=case["valid_ratios"][:1])) == []


def planted_in(operation: str, path: str, change: Callable[[Tensor], Tensor]) -> Callable[..., nn.Module]:
    def build(config: Any, state_dict: Any) -> nn.Module:
        model: nn.Module = resolve(OPERATIONS[operation].reference)(config, state_dict)
        model.get_submodule(path).register_forward_hook(lambda _, __, output: change(output))
        return model

    return build


def test_the_reference_agrees_in_its_parts() -> None:
    subject = subject_of(dino.build, stages=FINER)
    said = first_divergence(subject, case_of(subject))
    assert said is not None
    assert said.startswith("first divergence: behind all stages")


@pytest.mark.parametrize("family", ["detr", "deformable_detr"])
def test_transformers_has_every_part(family: str) -> None:
    pytest.importorskip("transformers")
    from detr_conformance.targets.transformers import detectors

    stages = detectors.stages(family)
    subject = Subject(family, getattr(detectors, family), "float32", "cpu", stages=stages, settings=Settings())
    form = list(forms(subject).items())[-1]
    case = model_case(subject, form[0], **form[1])
    module = make(subject, case)
    bound, inputs = calling(subject, module, case)
    paths = {name: path for name, path in stages.items() if name in told_of(family)}
    assert paths.keys() == told_of(family).keys()
    got = by_stage(stage_calls(module, paths, lambda: bound.forward(inputs)))
    assert [str(each) for each in judged(every_expectation(subject, case), paths, got) if not each.agrees] == []


def test_what_is_handed_over_goes_to_all_who_share_it() -> None:
    """Positions are given to every layer, and named in the first."""

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Adds() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            position = torch.zeros(3, dtype=torch.float64)
            for layer in self.layers:
                x = layer(x, position=position)
            return x

    class Adds(nn.Module):
        def forward(self, x: Tensor, **rest: Tensor) -> Tensor:
            return x + rest["position"]

    ones, module = torch.ones(3, dtype=torch.float64), Layers()
    paths = {"position": "layers.0>position", "out.{i}": "layers.{i}"}
    found = dict(stage_calls(module, paths, lambda: module(ones), {"position": [2 * ones]}))
    assert [float(found[name][0]) for name in ("position", "out.0", "out.1")] == [0.0, 3.0, 5.0]


def test_a_process_of_its_own_is_looked_into_without_handing(tmp_path: Path) -> None:
    (tmp_path / "port.py").write_text(
        "from detr_conformance import PARTS, STAGES, Target\n"
        "def build(config, state_dict=None):\n"
        "    from detr_reference.detectors.dino import build\n"
        "    model = build(config, state_dict)\n"
        "    norms = model.transformer.decoder.layers[1].norms\n"
        "    norms[0], norms[1] = norms[1], norms[0]\n"
        "    return model\n"
        "target = Target('port', {'dino': build}, stages=STAGES['dino'] | PARTS['dino'])\n"
    )
    target = isolated(f"{tmp_path / 'port.py'}:target", Limits())
    found = looked(target.provides["dino"])
    assert (found.stages[-1].name, found.parts[-1].name, found.handed) == ("decoder.1", "decoder.1.norm_0", {})


def test_pooled_roundings_spread_as_drawn_ones() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3000, 64, generator=torch.Generator().manual_seed(1))

    def run(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        hidden = torch.nn.functional.layer_norm(x.to(dtype) @ weight.to(dtype), (64,)).relu()
        return {"y": hidden @ weight.to(dtype)}

    right = run(torch.float64)
    drawn, pooled = (
        spread(run, right, runs=8, seed=0, coarsest=torch.float32, kind=kind)["y"]
        for kind in (RandomRounding, PooledRounding)
    )
    assert float(pooled.mean() / drawn.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(pooled.std() / drawn.std()) == pytest.approx(1.0, abs=0.15)
