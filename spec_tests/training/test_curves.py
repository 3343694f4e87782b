"""Logs of runs are read as they are after a crash and a resume, and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detr_reference.training import curves
from detr_reference.training.curves import draw_curves, read_log


def trained(step: int, loss: float = 10.0) -> dict[str, Any]:
    losses = {"loss_class": loss / 10, "loss_bbox": loss / 20, "loss_giou": loss / 30, "loss_class_0": loss}
    return {"kind": "train", "step": step, "loss": loss, "losses": losses, "learning_rate": 1e-4 if step < 60 else 1e-5}


def measured(step: int, ap: float) -> dict[str, Any]:
    return {"kind": "evaluation", "step": step, "AP": ap, "AP50": ap, "AP75": -1.0}


def written(folder: Path, *lines: dict[str, Any] | str) -> Path:
    file = folder / "log.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return file


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    records = [trained(1), trained(2)]
    assert read_log(written(tmp_path, *records, '{"kind": "train", "st')) == records


def test_a_step_that_was_done_again_counts_once(tmp_path: Path) -> None:
    """And beside its evaluation."""
    log = written(tmp_path, trained(1), trained(2), measured(2, 0.1), trained(3, 99.0), trained(3, 1.0), trained(4))
    assert read_log(log) == [trained(1), trained(2), measured(2, 0.1), trained(3, 1.0), trained(4)]


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"kind": "train"}', '{"step": null}'])
def test_other_lines_are_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2 is no record with a step"):
        read_log(written(tmp_path, trained(1), line, trained(2)))


def test_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no log at"):
        read_log(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match="no record of training"):
        draw_curves({"mine": [measured(1, 0.5)]}, tmp_path / "curves.png")


def test_panels_hold_what_was_logged() -> None:
    records = [trained(step, 100.0 / step) for step in range(1, 101)]
    figures = [measured(50, 0.25), measured(100, 0.5)]
    losses, rate, ap = curves._figure({"mine": records}, {"mine": figures}).axes
    drawn = [line for line in losses.lines if line.get_color() == curves.COLOURS["loss_bbox"]]
    assert [*drawn[0].get_xdata()] == [*range(1, 101)]
    assert drawn[0].get_ydata()[9] == pytest.approx(0.5)
    assert [*rate.lines[0].get_ydata()] == [1e-4] * 59 + [1e-5] * 41
    assert [[*line.get_xdata()] for line in ap.lines] == [[50, 100], [50, 100]]  # AP75 was -1
    assert [*ap.lines[0].get_ydata()] == [0.25, 0.5]


def test_dense_losses_are_smoothed_over_what_came_before() -> None:
    records = [trained(step, 100.0 if step <= 300 else 10.0) for step in range(1, 601)]
    losses = curves._figure({"mine": records}, {"mine": []}).axes[0]
    faint, smooth = (line for line in losses.lines if line.get_color() == curves.COLOURS["loss"])
    assert faint.get_ydata()[300] == 10
    values = dict(zip(smooth.get_xdata(), smooth.get_ydata(), strict=True))
    assert values[300] == pytest.approx(100)
    assert values[305] == pytest.approx(55)
    assert values[310] == pytest.approx(10)


def test_two_runs_share_the_panels_and_are_written(tmp_path: Path) -> None:
    runs = {"reference": [trained(1), trained(2)], "target": [trained(1), trained(2)]}
    axes = curves._figure(runs, {name: [] for name in runs}).axes
    assert len(axes) == 2
    assert [line.get_linestyle() for line in axes[1].lines] == ["-", "--"]
    draw_curves(runs, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (1100, 484)
