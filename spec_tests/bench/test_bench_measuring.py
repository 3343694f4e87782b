"""What is measured is what is meant: calls, directions, memory, and the clocks of devices that are not here."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_bench import devices
from detr_bench.agreement import Disagrees
from detr_bench.calls import Call, joined, make_call, make_scene, reference_of
from detr_bench.devices import Instant, cache_filler, clock_of, cuda_peak_bytes, is_present, measure_ceilings, timed
from detr_bench.gate import Unit
from detr_bench.peak_memory import can_measure, peak_bytes, peaks_in_a_process
from detr_bench.plan import Asked, growth_rows, speed_rows, units
from detr_bench.race import Judge, Runner, race
from detr_bench.session import comparable
from detr_bench.workloads import WORKLOADS, Images, Inside, Sizes, Tokens, Workload
from detr_conformance import Target, TargetError
from detr_conformance.operations import OPERATIONS
from detr_reference.deformable_attention.core import ms_deform_attn

LEVELS = ((8, 10), (4, 5), (2, 3), (1, 2))
DECODER, ENCODER = Workload(LEVELS, queries=9), Workload(LEVELS, queries=108)
SMALL: list[tuple[str, Sizes]] = [
    ("ms_deform_attn", DECODER),
    ("ms_deform_attn", ENCODER),
    ("ms_deform_attn", Inside("encoder-layer", ENCODER)),
    ("ms_deform_attn_module", DECODER),
    ("multihead_attention", Tokens(9, 7)),
    ("encoder_layer", Tokens(9, 9)),
    ("decoder_layer", Tokens(9, 7)),
    ("dino_decoder", DECODER),
]


def scene(operation: str = "ms_deform_attn", sizes: Sizes = DECODER) -> Any:
    return make_scene(operation, sizes, "cpu", torch.float32)


# -- calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "sizes"), SMALL)
def test_the_reference_agrees_with_itself_and_every_input_and_parameter_gets_its_gradient(
    operation: str, sizes: Sizes
) -> None:
    made = scene(operation, sizes)
    own, reference = (make_call(made, reference_of(operation)) for _ in range(2))
    assert difference(own, reference) == 0
    gradients = own.gradients(own.outputs())
    assert set(gradients) == {f"grad_{name}" for name in (*own.leaves(), *made.trained)}
    found = joined(gradients).values()
    assert all(each.isfinite().all() for each in found)
    assert any(each.abs().sum() > 0 for each in found)


def difference(own: Call, reference: Call) -> float:
    """By norm, of one turn."""
    judge = Judge(Runner(own, "both"), Runner(reference, "both"))
    judge.measure_limits()
    judge.turn()
    return judge.worst


@pytest.mark.parametrize("host", ["deformable_detr", "dino"])
def test_a_core_is_called_inside_a_whole_model(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def core(*tensors: Tensor) -> Tensor:
        calls.append(tensors[3].shape)
        return ms_deform_attn(*tensors)

    small = {"num_queries": 5, "num_encoder_layers": 1, "num_decoder_layers": 2, "backbone_blocks": (1, 1, 1, 1)}
    config = type(make_scene(host, Images(32, 32), "cpu", torch.float32).given.config)
    made = make_scene("ms_deform_attn", Inside(host, Images(64, 64)), "cpu", torch.float32)
    made.given = type(made.given)(made.given.inputs, config(**small))
    made.parameters = reference_of(host)(made.given.config).state_dict()
    made.trained = ()
    outputs = make_call(made, core).outputs()
    assert {"pred_boxes", "pred_logits"} <= set(outputs)
    assert len(calls) == 3


def zeros(*tensors: Tensor) -> Tensor:
    return 0 * ms_deform_attn(*tensors)


def nan(*tensors: Tensor) -> Tensor:
    return torch.nan * ms_deform_attn(*tensors)


def too_short(*tensors: Tensor) -> Tensor:
    return ms_deform_attn(*tensors)[:, 1:]


def no_location_gradient(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return ms_deform_attn(value, shapes, starts, locations.detach(), weights)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (zeros, "output differs from the reference by 100%"),
        (nan, "output differs from the reference by nan%"),
        (too_short, r"output is \(1, 8, 256\), not \(1, 9, 256\)"),
        (no_location_gradient, "grad_sampling_locations is nothing"),
    ],
)
def test_an_implementation_that_is_wrong_at_the_measured_size_has_no_speed(
    wrong: Callable[..., Tensor], message: str
) -> None:
    made = scene()
    with pytest.raises(Disagrees, match=message):
        difference(make_call(made, wrong), make_call(made, ms_deform_attn))


def test_only_what_may_be_compared_is() -> None:
    half = Target("half", {"ms_deform_attn": zeros}, variants={"coordinates": "half"})
    usual = Target("usual", {"ms_deform_attn": zeros})
    core = WORKLOADS["dino-decoder"]

    def unit(operation: str, dtype: str = "float32") -> Unit:
        return Unit("t", operation, "cpu", dtype)

    assert comparable(unit("ms_deform_attn"), core, half)
    assert comparable(unit("ms_deform_attn", "bfloat16"), core, usual)
    assert not comparable(unit("ms_deform_attn", "bfloat16"), core, half)
    assert comparable(unit("detr"), Images(64, 64), usual)
    assert not comparable(unit("dino"), Images(64, 64), usual)
    assert not comparable(unit("ms_deform_attn"), Inside("dino", Images(64, 64)), usual)
    assert comparable(unit("ms_deform_attn"), Inside("encoder-layer", core), usual)


# -- rows -----------------------------------------------------------------------------------------------------


def provided(*operations: str, **claims: Any) -> Target:
    return Target("t", dict.fromkeys(operations, zeros), **claims)


def test_without_an_operation_the_first_that_has_the_workload_is_measured() -> None:
    target = provided("dino_decoder", "ms_deform_attn", "mlp")
    assert [unit.operation for unit in units("t", target, Asked())] == ["ms_deform_attn"]
    target = provided("dino_decoder", "multihead_attention")
    assert [u.operation for u in units("t", target, Asked(workloads=("dino-decoder",)))] == ["dino_decoder"]
    assert units("t", target, Asked(operations=("detr",))) == []
    assert units("t", provided("mlp"), Asked()) == []


def test_a_row_for_each_workload_and_direction_that_the_target_can_run() -> None:
    asked = Asked(workloads=("dino-decoder", "encoder-layer-1066"), dtypes=("float32", "float16"))
    forward = provided("ms_deform_attn", features=())
    full, half = units("t", forward, asked)
    assert [(row.workload, row.direction) for row in speed_rows(full, forward, asked)] == [
        ("dino-decoder", "forward"),
        ("encoder-layer-1066", "forward"),
    ]
    assert [row.workload for row in speed_rows(half, forward, asked)] == ["dino-decoder"]
    assert len(list(growth_rows(full, provided("ms_deform_attn"), Asked()))) == 6 * 4 * 2


def test_a_device_is_the_first_claimed_one_that_is_present() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    assert not is_present(absent)
    assert units("t", provided("detr", devices=(absent, "cpu")), Asked())[0].device == "cpu"
    with pytest.raises(TargetError, match="absent on this machine"):
        units("t", provided("detr", devices=(absent,)), Asked())


# -- time -----------------------------------------------------------------------------------------------------


class FakeBenchmark:
    """What `race` uses of pytest-benchmark."""

    def __init__(self) -> None:
        self.rounds = 0

    def pedantic(
        self, target: Callable[[], None], setup: Callable[[], None], teardown: Callable[[], None], rounds: int
    ) -> None:
        for _ in range(rounds):
            setup()
            target()
            teardown()
            self.rounds += 1


class Recorded(Call):
    """A call that writes down what is asked of it."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(scene(), ms_deform_attn)
        self.name, self.log = name, log

    def outputs(self) -> dict[str, Tensor]:
        self.log.append(f"{self.name} forward" + ("" if torch.is_grad_enabled() else " without gradients"))
        return {}

    def gradients(self, outputs: Mapping[str, Tensor]) -> dict[str, tuple[Tensor | None, ...]]:
        self.log.append(f"{self.name} backward")
        return {}


@pytest.mark.parametrize(
    ("direction", "timed_part"),
    [
        ("forward", ["forward without gradients"]),
        ("backward", ["backward"]),
        ("both", ["forward", "backward"]),
    ],
)
def test_a_direction_times_its_own_part(direction: str, timed_part: list[str]) -> None:
    log: list[str] = []
    runner = Runner(Recorded("own", log), direction)
    runner.prepare()
    before = len(log)
    runner.go()
    assert log[before:] == [f"own {part}" for part in timed_part]
    assert log[:before] == (["own forward"] if direction == "backward" else [])


def test_target_and_reference_take_turns_and_the_target_goes_first() -> None:
    log: list[str] = []
    own, reference = (Runner(Recorded(name, log), "forward") for name in ("own", "reference"))
    reference.call.scene = own.call.scene
    benchmark: Any = FakeBenchmark()
    beside = race(benchmark, Judge(own, reference), clock_of("cpu"), "cpu", seconds=1e-9)
    turns = [line.split()[0] for line in log][-2 * benchmark.rounds :]
    assert turns == ["own", "reference"] * benchmark.rounds
    assert len(beside) == benchmark.rounds
    assert all(seconds > 0 for seconds in beside)


class FakeEvent:
    """A CUDA event; the stream takes 2 ms between any two."""

    made = 0
    log: list[str] = []  # noqa: RUF012

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.made += 1
        self.at = 2.0 * FakeEvent.made
        self.log.append("record")

    def synchronize(self) -> None:
        self.log.append("wait")

    def elapsed_time(self, later: FakeEvent) -> float:
        return later.at - self.at


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A GPU as far as clocks and memory go; what happens is written down."""
    log: list[str] = []
    monkeypatch.setattr(FakeEvent, "log", log)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: log.append(f"device {device}"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("wait"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: log.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1500)
    return log


def test_on_cuda_events_tell_the_time_and_nothing_waits_before_the_end(cuda: list[str]) -> None:
    clock = clock_of("cuda:1")
    assert clock is Instant
    assert timed(lambda: cuda.append("launch"), clock) == pytest.approx(0.002)
    assert cuda == ["device cuda:1", "record", "launch", "record", "wait"]


def test_on_cuda_memory_is_the_allocators_peak_of_this_call(cuda: list[str]) -> None:
    assert cuda_peak_bytes(lambda: cuda.append("launch"), "cuda") == 500
    assert cuda == ["wait", "reset", "launch", "wait"]


def test_on_cuda_the_cache_is_filled_with_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def empty(size: int, dtype: torch.dtype, device: str) -> Tensor:
        sizes.append(size)
        return torch.ones(4)

    monkeypatch.setattr(devices.torch, "empty", empty)
    filled = cache_filler("cuda")()
    assert isinstance(filled, Tensor)
    assert sizes == [devices.CACHE_BYTES]
    assert filled.sum() == 0
    assert cache_filler("cpu")() is None


def test_another_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(1))
    assert timed(lambda: None, clock_of("mps")) >= 0
    assert len(waited) == 2


def test_ceilings_are_what_copies_and_products_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "best_seconds", lambda function, clock: 0.5)
    found = measure_ceilings("cpu", "bfloat16")
    assert found.bytes_per_second == 2 * (1 << 27) / 0.5
    assert found.flops_per_second == 2 * 768**3 / 0.5


# -- memory ---------------------------------------------------------------------------------------------------

needs_proc = pytest.mark.skipif(not can_measure(), reason="the high-water mark of a process cannot be reset here")


@needs_proc
def test_the_peak_of_a_call_is_what_it_needed_at_once_though_it_kept_nothing() -> None:
    size = 64 << 20

    def call() -> None:
        for _ in range(3):
            with mmap.mmap(-1, size) as pages:
                pages[:: mmap.PAGESIZE] = b"x" * (size // mmap.PAGESIZE)

    assert peak_bytes(call) == pytest.approx(size, rel=0.05)
    assert peak_bytes(lambda: None) < size / 20


@needs_proc
def test_the_peak_of_an_implementation_is_measured_in_a_process_of_its_own() -> None:
    peaks = peaks_in_a_process("reference", "ms_deform_attn", "rt-detr-decoder-640", ["forward", "both"], "float32", 1)
    table = WORKLOADS["rt-detr-decoder-640"].cells * 256 * 4
    assert peaks["both"] > peaks["forward"] > 0.8 * table  # a copy of the value, with a row of zeros
    assert peaks["both"] > 1.5 * table


@needs_proc
def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"while its memory was measured: .*no module 'no_such'"):
        peaks_in_a_process("no_such:target", "ms_deform_attn", "dino-decoder", ["forward"], "float32", 1)


def test_where_nothing_can_be_measured_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detr_bench.peak_memory.can_measure", lambda: False)
    assert peaks_in_a_process("reference", "ms_deform_attn", "dino-decoder", ["forward"], "float32", 1) == {}


def test_the_operations_of_this_file_are_all_that_are_measured_but_whole_models() -> None:
    from detr_bench.workloads import MODELS, TABLE

    assert {operation for operation, _ in SMALL} | set(MODELS) == set(TABLE) <= set(OPERATIONS)
