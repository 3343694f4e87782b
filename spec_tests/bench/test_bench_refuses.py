"""A race is won by computing: what is remembered, put off, left out or rounded away has no speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_bench import process
from detr_bench import session as sessions
from detr_bench.agreement import Disagrees
from detr_bench.calls import make_call, make_scene, reference_of
from detr_bench.devices import Ceilings, clock_of
from detr_bench.gate import Unit, Verdict
from detr_bench.inputs import POOL, Unforeseen
from detr_bench.plan import Asked, Row
from detr_bench.race import Judge, Runner, race
from detr_bench.session import Session, Unattainable
from detr_bench.workloads import Sizes, Tokens, Workload
from detr_conformance import Target
from detr_reference import ms_deform_attn
from helpers.bench_cheats import BACKWARD, CHEATS, right_gradients, with_backward

SIZES = Workload(((12, 15), (6, 8), (3, 4)), queries=70)
UNIT = Unit("mine", "ms_deform_attn", "cpu", "float32")


def judge(function: Callable[..., Any], direction: str, by_norm: bool = True) -> Judge:
    scene = make_scene("ms_deform_attn", SIZES, "cpu", torch.float32)
    own, reference = (Runner(make_call(scene, each), direction) for each in (function, ms_deform_attn))
    return Judge(own, reference, by_norm)


class FakeBenchmark:
    """What `race` uses of pytest-benchmark."""

    def pedantic(
        self, target: Callable[[], None], setup: Callable[[], None], teardown: Callable[[], None], rounds: int
    ) -> None:
        for _ in range(rounds):
            setup()
            target()
            teardown()


def raced(function: Callable[..., Any], direction: str, by_norm: bool = True) -> list[float]:
    benchmark: Any = FakeBenchmark()
    return race(benchmark, judge(function, direction, by_norm), clock_of("cpu"), "cpu", seconds=1e-9)


@pytest.mark.parametrize("name", CHEATS)
def test_a_forward_that_is_not_computed_in_time_has_no_speed(name: str) -> None:
    with pytest.raises(Disagrees):
        raced(CHEATS[name](), "forward")


@pytest.mark.parametrize("name", sorted(set(CHEATS) - {"in-bfloat16"}))
def test_nor_has_it_where_right_implementations_select_other_queries(name: str) -> None:
    """There norms say nothing, and a coarser precision is not told from another choice."""
    with pytest.raises(Disagrees):
        raced(CHEATS[name](), "forward", by_norm=False)


@pytest.mark.parametrize("direction", ["backward", "both"])
@pytest.mark.parametrize("name", BACKWARD)
def test_a_backward_that_is_not_computed_in_time_has_no_speed(name: str, direction: str) -> None:
    with pytest.raises(Disagrees):
        raced(BACKWARD[name](), direction)


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_what_is_computed_another_way_has_one(direction: str) -> None:
    written_by_hand = with_backward(right_gradients)
    assert len(raced(written_by_hand, direction)) >= 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("computed-when-it-is-read", "output is a Lazy, no plain tensor"),
        ("a-view-of-an-argument", "the call changed its argument value"),
        ("in-bfloat16", "50% of the elements of output differ from the reference"),
    ],
)
def test_the_reason_is_told(name: str, told: str) -> None:
    with pytest.raises(Disagrees, match=told):
        raced(CHEATS[name](), "forward")


def test_what_was_not_there_when_the_clock_stopped_comes_too_late() -> None:
    mine = judge(ms_deform_attn, "forward")
    mine.measure_limits()
    mine.renew()
    mine.own.go()
    assert mine.own.outputs is not None
    right = mine.own.outputs["output"].clone()
    mine.own.outputs["output"].zero_()
    mine.glance()
    mine.own.outputs["output"].copy_(right)
    mine.reference.round()
    with pytest.raises(Disagrees, match="output went on changing after the call had returned"):
        mine.compare()


def test_every_round_has_other_numbers_in_other_tensors_and_sizes_stay() -> None:
    mine = judge(ms_deform_attn, "both")
    seen: list[dict[str, Tensor]] = []
    for _ in range(3):
        mine.renew()
        seen.append(dict(mine.own.call.inputs))
        assert not set(map(id, seen[-1].values())) & set(map(id, mine.reference.call.inputs.values()))
    for name in ("value", "sampling_locations", "attention_weights"):
        for before, after in ((0, 1), (1, 2), (0, 2)):
            assert seen[before][name] is not seen[after][name]
            assert (seen[before][name] != seen[after][name]).double().mean() > 0.9
    assert all(each["spatial_shapes"].equal(seen[0]["spatial_shapes"]) for each in seen)


def test_gradients_of_the_outputs_are_other_ones_in_every_round() -> None:
    mine = judge(ms_deform_attn, "both")
    mine.measure_limits()
    before = dict(mine.own.call.scene.cotangents)
    mine.renew()
    after = mine.own.call.scene.cotangents
    assert (before["output"] != after["output"]).double().mean() > 0.9


def test_the_pool_is_drawn_from_entropy_and_outlasts_its_length() -> None:
    first, second = Unforeseen("cpu"), Unforeseen("cpu")
    assert not first.normals.equal(second.normals)
    long = first.normal(2 * POOL + 5)
    assert long.mean() == pytest.approx(0, abs=0.01)
    assert long.std() == pytest.approx(1, abs=0.02)
    assert long[:POOL].equal(long[POOL : 2 * POOL])
    uniform = first.uniform(1000, 50)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)


MODULES: list[tuple[str, Sizes]] = [("multihead_attention", Tokens(9, 7)), ("encoder_layer", Tokens(9, 9))]


@pytest.mark.parametrize(("operation", "sizes"), MODULES)
def test_the_gradients_of_parameters_are_compared_too(operation: str, sizes: Sizes) -> None:
    def factory(config: Any, state: dict[str, Tensor]) -> Any:
        module = reference_of(operation)(config)
        module.load_state_dict(state)
        weight = next(p for name, p in module.named_parameters() if name.endswith("weight"))
        weight.register_hook(torch.zeros_like)
        return module

    scene = make_scene(operation, sizes, "cpu", torch.float32)
    wrong, right, reference = (make_call(scene, each) for each in (factory, *[reference_of(operation)] * 2))
    for own, refused in ((right, False), (wrong, True)):
        judging = Judge(Runner(own, "both"), Runner(reference, "both"))
        judging.measure_limits()
        if refused:
            with pytest.raises(Disagrees, match=r"grad_.*weight differs from the reference by 100%"):
                judging.turn()
        else:
            judging.turn()


# -- what a machine can do ------------------------------------------------------------------------------------


class TimedBenchmark(FakeBenchmark):
    """Tells the seconds that it was made with, whatever the rounds took."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.has_error = seconds, False
        self.extra_info: dict[str, Any] = {}
        self.stats: Any = self  # .stats.stats.data

    @property
    def data(self) -> list[float]:
        return [self.seconds] * 5


@pytest.mark.parametrize(
    ("bytes_per_second", "flops_per_second", "told"),
    [(1e9, 1e15, "copying"), (1e15, 1e9, "multiplying"), (1e15, 1e15, None)],
)
def test_no_figure_is_above_what_the_machine_can_do(
    bytes_per_second: float, flops_per_second: float, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceiling = Ceilings("cpu", "float32", bytes_per_second, flops_per_second)
    monkeypatch.setattr(sessions, "measure_ceilings", lambda device, dtype: ceiling)
    monkeypatch.setattr(sessions.Session, "_memory", lambda *_: {})
    target = Target("mine", {"ms_deform_attn": ms_deform_attn})
    session = Session({"mine": target}, Asked(seconds=1e-9), {UNIT: Verdict(UNIT, "smoke", "pass", "pass")})
    benchmark: Any = TimedBenchmark(seconds=1e-4)
    row = Row(UNIT, "w", "forward")
    if told is None:
        session.measure(benchmark, row, SIZES)
        assert session.infos[0]["traffic"]["share_of_copy"] < 1
        return
    benchmark = TimedBenchmark(seconds=1e-6)
    with pytest.raises(Unattainable, match=rf"no speed: 1e-06 s are too short for this work: .*% .* in {told}"):
        session.measure(benchmark, row, SIZES)
    assert benchmark.has_error  # so that its rounds are not saved
    assert session.infos == []


# -- the whole process ----------------------------------------------------------------------------------------

REMEMBERS = """
from detr_conformance import Target
from detr_reference import ms_deform_attn

known = {}

def remembered(value, *rest):
    if value.shape not in known:
        known[value.shape] = ms_deform_attn(value, *rest)
    return known[value.shape]

target = Target(name="remembers", provides={"ms_deform_attn": remembered}, features=())
"""


def test_of_a_target_that_is_refused_no_round_is_saved_and_it_is_to_blame(tmp_path: Path) -> None:
    """Whatever its check said: here it is taken to have passed."""
    (tmp_path / "remembers.py").write_text(REMEMBERS)
    unit = Unit(f"{tmp_path / 'remembers.py'}:target", "ms_deform_attn", "cpu", "float32")
    asked = Asked(workloads=("rt-detr-decoder-640",), directions=("forward",), seconds=0.01)
    found = process.measure(Verdict(unit, "smoke", "pass", "pass"), asked, "test_speed.py", lambda event: None)
    assert [event["wrong"] for event in found.refused] == [True]
    assert "output differs from the reference" in found.refused[0]["message"]
    assert found.problem is None
    assert not found.document or not found.document["benchmarks"]
