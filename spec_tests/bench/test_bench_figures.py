"""From rounds to figures: medians, quartiles, exponents; and how a table and a picture show them."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from detr_bench.growth import FACTORS, exponents, fit
from detr_bench.picture import draw_growth, draw_speeds
from detr_bench.race import LEAST_ROUNDS, MOST_ROUNDS, rounds_in, times
from detr_bench.spread import spread
from detr_bench.table import print_growth, print_speeds, seconds_text, speed_text
from helpers.bench_infos import info


def test_median_and_quartiles() -> None:
    found = spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (found.least, found.q1, found.median, found.q3, found.iqr) == (1.0, 2.0, 3.0, 4.0, 2.0)
    assert found.unsteady
    assert not spread([1.0, 1.01, 1.02]).unsteady
    assert spread([2.0]).iqr == 0


def test_speed_is_the_ratio_round_by_round_so_that_a_drift_of_the_machine_cancels() -> None:
    own = [0.1 * drift for drift in (1, 2, 4, 8, 16)]
    found = times(own, [3 * each for each in own])
    assert found["speed"]["median"] == pytest.approx(3)
    assert found["speed"]["iqr"] == pytest.approx(0)
    assert not found["speed"]["unsteady"]
    assert found["own_seconds"]["unsteady"]


def test_as_many_rounds_as_fit_within_bounds() -> None:
    assert rounds_in(3.0, 0.1) == 30
    assert rounds_in(3.0, 10.0) == LEAST_ROUNDS
    assert rounds_in(3.0, 1e-6) == rounds_in(3.0, 0.0) == MOST_ROUNDS


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_a_power_law_is_fitted_exactly_and_has_no_error(exponent: float) -> None:
    found = fit(FACTORS, [0.02 * factor**exponent for factor in FACTORS])
    assert found.value == pytest.approx(exponent)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_the_error_of_an_exponent_is_that_of_least_squares() -> None:
    """y = x + residuals (1, -1, -1, 1) / 10, which are orthogonal to 1 and x: slope 1, variance 0.04 / 2 / 5."""
    x, residuals = (0, 1, 2, 3), (0.1, -0.1, -0.1, 0.1)
    found = fit([math.exp(each) for each in x], [math.exp(a + b) for a, b in zip(x, residuals, strict=True)])
    assert found.value == pytest.approx(1)
    assert found.error == pytest.approx(math.sqrt(0.04 / 2 / 5))
    with pytest.raises(ValueError, match="three sizes"):
        fit([1, 2], [1, 2])


def growing(missing: int | None = None) -> list[dict]:
    return [info([0.01 * k], [0.04 * k**2], growth={"axis": "queries", "factor": k}) for k in FACTORS if k != missing]


def test_exponents_are_fitted_to_axes_that_were_measured_in_full() -> None:
    (found,) = exponents([*growing(), info([1.0], [1.0])])
    assert found["own"]["exponent"] == pytest.approx(1)
    assert found["reference"]["exponent"] == pytest.approx(2)
    assert (found["axis"], found["expected"], found["name"]) == ("queries", 1.0, "mine")
    assert exponents(growing(missing=4)) == []


def test_words_for_a_speed_and_a_time() -> None:
    assert [speed_text(ratio) for ratio in (3.1, 1.0, 0.999, 0.5)] == [
        "3.10x faster",
        "as fast",
        "as fast",
        "2.00x slower",
    ]
    assert [seconds_text(each) for each in (1.224, 0.0123, 0.412, 0.0000123)] == [
        "1.22 s",
        "12.3 ms",
        "412 ms",
        "12.3 µs",
    ]


def shown(*infos: dict, width: int = 100) -> str:
    stream = io.StringIO()
    ceiling = {"device": "cpu", "dtype": "float32", "bytes_per_second": 1e10, "flops_per_second": 2e11}
    print_speeds(Console(file=stream, width=width), infos, [ceiling])
    return stream.getvalue()


def test_the_table_tells_speed_memory_and_check_and_marks_what_is_unsteady() -> None:
    traffic = {"share_of_copy": 0.25, "share_of_product": 0.01}
    text = shown(
        info([0.1, 0.1], [0.4, 0.4], traffic=traffic, check="pass, 2 known deviations"),
        info([0.1, 0.2, 0.4], [0.1, 0.1, 0.1], direction="both", own_peak_bytes=None, reference_peak_bytes=None),
    )
    steady, unsteady = (next(line for line in text.splitlines() if name in line) for name in ("4.00x", "~"))
    for told in ("dino-decoder", "forward", "4.00x faster", "100 ms", "400 ms", "50 MB, 0.50x", "25.0%", "pass"):
        assert told in steady
    assert "~2.00x slower" in unsteady
    assert "not measured" in unsteady
    assert "check: pass, 2 known deviations" in text
    assert "copy 10.0 GB/s" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_table_of_exponents() -> None:
    stream = io.StringIO()
    print_growth(Console(file=stream, width=100), exponents(growing()))
    line = next(line for line in stream.getvalue().splitlines() if "queries" in line)
    assert line.split() == ["mine", "queries", "forward", "float32", "1.00", "±", "0.00", "2.00", "±", "0.00", "1"]


def colours(path: Path) -> set:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}


def test_pictures_show_every_target(tmp_path: Path) -> None:
    blue, red = (0x3B, 0x78, 0xB5), (0xC0, 0x39, 0x2B)
    both = [info([0.1], [0.4]), info([0.1], [0.02], name="another")]
    draw_speeds(both, tmp_path / "speeds.png")
    assert {blue, red} <= colours(tmp_path / "speeds.png")
    draw_speeds(both[:1], tmp_path / "one.png")
    assert red not in colours(tmp_path / "one.png")
    draw_growth(exponents(growing()), tmp_path / "growth.png")
    assert blue in colours(tmp_path / "growth.png")
