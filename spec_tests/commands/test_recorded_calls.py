"""A user's own calls: which are saved, what is refused, and that `check --cases` judges them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detr_conformance import TargetError
from detr_conformance.harness.case import Case
from detr_conformance.harness.case_files import CaseFileError, read_case, write_case
from detr_conformance.recording.calls import read_calls
from detr_conformance.recording.recorder import record
from detr_reference import FeedForward, FeedForwardConfig, ms_deform_attn
from helpers.commands import run

LEVELS = ((5, 7), (3, 4))
TARGETS = """
import torch
from detr_conformance import Target
from detr_reference import FeedForward, ms_deform_attn

def late(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
    output = ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    return torch.cat((output[:, :30], output[:, 30:] * 1.01), 1)

def feed_forward(config, state_dict):
    module = FeedForward(config)
    module.load_state_dict(state_dict)
    return module

right = Target("right", {"ms_deform_attn": ms_deform_attn, "feed_forward": feed_forward})
wrong = Target("wrong", {"ms_deform_attn": late})
"""


def arguments(queries: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Of a call of the sampling core."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.tensor(LEVELS)
    sizes = shapes.prod(-1)
    value = torch.randn(2, int(sizes.sum()), 2, 4, generator=generator)
    locations = torch.rand(2, queries, 2, 2, 3, 2, generator=generator)
    weights = torch.rand(2, queries, 2, 2, 3, generator=generator)
    return value, shapes, sizes.cumsum(0) - sizes, locations, weights


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TARGETS)
    return tmp_path


# -- which are saved ------------------------------------------------------------------------------------------


def test_the_first_the_largest_and_every_nth(tmp_path: Path) -> None:
    recorded = record(ms_deform_attn, tmp_path, every=4)
    for number, queries in enumerate((5, 4, 9, 3, 2, 1, 1, 1)):
        assert torch.equal(recorded(*arguments(queries, number)), ms_deform_attn(*arguments(queries, number)))
    assert recorded.calls == 8
    queries = [case["attention_weights"].shape[1] for _, _, case in read_calls(tmp_path)]
    assert sorted(queries) == [1, 3, 5, 9]
    assert {path.name for path in recorded.saved} == {path.name for path in tmp_path.iterdir()}


def test_what_goes_wrong_is_saved(tmp_path: Path) -> None:
    def core(
        value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
    ) -> Tensor:
        if value.shape[1] == 0:
            raise RuntimeError("no cells")
        return ms_deform_attn(value, spatial_shapes, level_start_index, locations, weights)

    names = {"locations": "sampling_locations", "weights": "attention_weights"}
    recorded = record(core, tmp_path, operation="ms_deform_attn", names=names)
    recorded(*arguments(9))
    value, *rest = arguments(3)
    value[0] = torch.nan
    recorded(value, *rest)
    with pytest.raises(RuntimeError, match="no cells"):
        recorded(value[:, :0], *rest)
    assert len(recorded.saved) == 3
    with pytest.raises(CaseFileError, match="the reference refuses this call"):
        read_calls(tmp_path)


def test_never_more_than_so_many(tmp_path: Path) -> None:
    recorded = record(ms_deform_attn, tmp_path, every=1, most=3)
    for seed in range(5):
        recorded(*arguments(3, seed))
    assert len(recorded.saved) == len(list(tmp_path.iterdir())) == 3


class Core(nn.Module):
    """As libraries write it: other names, sizes as a list, an argument more."""

    def forward(self, v: Tensor, sizes: list[tuple[int, int]], places: Tensor, shares: Tensor, step: int) -> Tensor:
        shapes = torch.tensor(sizes)
        cells = shapes.prod(-1)
        return ms_deform_attn(v, shapes, cells.cumsum(0) - cells, places, shares)


NAMES = {"v": "value", "sizes": "spatial_shapes", "places": "sampling_locations", "shares": "attention_weights"}


def test_a_module_is_watched_until_it_is_removed(tmp_path: Path) -> None:
    core = Core()
    value, _, _, locations, weights = arguments(4)
    with record(core, tmp_path, operation="ms_deform_attn", names=NAMES) as recorded:
        core(value, list(LEVELS), locations, weights, 64)
    core(value, list(LEVELS), locations, weights, 64)
    assert recorded.calls == 1
    ((_, dtype, case),) = read_calls(tmp_path)
    assert dtype == "float32"
    assert case["spatial_shapes"].tolist() == [list(level) for level in LEVELS]
    assert case["level_start_index"].tolist() == [0, 35]  # which the call need not say


def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="is no operation"):
        record(torch.add, tmp_path)
    with pytest.raises(TargetError, match="say config="):
        record(nn.Linear(2, 2), tmp_path, operation="feed_forward")
    with pytest.raises(TargetError, match=r"described by detr_reference\.FeedForwardConfig"):
        record(nn.Linear(2, 2), tmp_path, operation="feed_forward", config={"embed_dim": 2}, state_dict={})
    with pytest.raises(TargetError, match="did you mean 'feed_forward'"):
        record(nn.Linear(2, 2), tmp_path, operation="feed_foward")
    value, _, _, locations, weights = arguments(4)
    names = {**NAMES, "places": "positions"}
    recorded = record(Core(), tmp_path, operation="ms_deform_attn", names=names)
    with pytest.raises(TargetError, match=r"no sampling_locations; its arguments are v, sizes, places, .*names="):
        recorded(value, list(LEVELS), locations, weights, 64)


def test_parameters_are_those_of_the_call(tmp_path: Path) -> None:
    config = FeedForwardConfig(embed_dim=4, feedforward_dim=6)
    module = FeedForward(config)
    for state in (module.state_dict(), module.state_dict):
        with record(module, tmp_path, operation="feed_forward", config=config, state_dict=state, every=1) as recorded:
            module(torch.ones(1, 1, 4))
            with torch.no_grad():
                next(module.parameters()).add_(1)
            module(torch.ones(1, 1, 4))
        name = "parameter:" + next(name for name, _ in module.named_parameters())
        before, after = (read_case(path)[0][name] for path in recorded.saved)
        assert torch.allclose(after, before + 1)


# -- how they are judged --------------------------------------------------------------------------------------


def test_recorded_calls_are_judged(here: Path) -> None:
    recorded = record(ms_deform_attn, "calls")
    recorded(*arguments(5))
    recorded(*arguments(64))
    result = run("check", "mine.py:right", "--cases", "calls", "--json", "report.json")
    assert result.exit_code == 0, result.output
    clauses = json.loads(Path("report.json").read_text())["clauses"]
    passed = {name for name, clause in clauses.items() if clause["verdict"] == "pass"}
    assert {"MSDA-21", "MSDA-33", "MSDA-45", "MSDA-46", "MSDA-53"} <= passed
    result = run("check", "mine.py:wrong", "--cases", "calls", "--json", "report.json")
    assert result.exit_code == 1, result.output
    failed = json.loads(Path("report.json").read_text())["clauses"]["MSDA-21"]
    assert "(1, 32, 2, 2, 3)" in failed["failure"]["detail"]  # one image, and the half of the queries that goes wrong
    replayed = run("check", "mine.py:wrong", "--replay", failed["case_file"])
    assert replayed.exit_code == 1


def test_recorded_modules_are_judged(here: Path) -> None:
    config = FeedForwardConfig(embed_dim=8, feedforward_dim=12)
    module = FeedForward(config).eval()
    with record(module, "calls", operation="feed_forward", config=config, state_dict=module.state_dict()):
        module(torch.randn(2, 5, 8))
    result = run("check", "mine.py:right", "--cases", "calls", "--json", "report.json")
    assert result.exit_code == 0, result.output
    clauses = json.loads(Path("report.json").read_text())["clauses"]
    assert clauses["BLK-9"]["verdict"] == "pass"
    assert clauses["MSDA-21"]["verdict"] != "pass"


@pytest.mark.parametrize(
    ("content", "said"),
    [("nothing", "no recorded calls"), ("no case", "cannot be read"), ("a failing case", "no recorded call")],
)
def test_folders_that_hold_no_calls(here: Path, content: str, said: str) -> None:
    Path("calls").mkdir()
    if content == "no case":
        Path("calls/one.safetensors").write_bytes(b"x" * 100)
    if content == "a failing case":
        write_case(Path("calls"), Case({"value": torch.ones(2)}), clause="MSDA-1", test="test_x")
    result = run("check", "mine.py:right", "--cases", "calls")
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
