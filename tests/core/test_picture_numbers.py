"""The numbers behind the charts, against what they are by definition."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ftk.pictures import numbers
from ftk.pictures.charts import Line, lines
from ftk.pictures.gallery import charts_of
from ftk.pictures.paint import DARK, LEVELS, LIGHT, contrast
from ftk.pictures.reading import StageStory, read_story
from ftk.report.scores import Scores
from tests.core.pictured import weights, write_run


def scores_of(matrix: list[list[float | None]], start: list[float | None], higher: bool = True) -> Scores:
    tasks = [f"t{number}" for number in range(len(start))]
    report = {"tasks": tasks, "higher_is_better": {"m": higher}, "matrix": {"m": matrix}, "start": {"m": start}}
    return Scores.from_json(report)


@pytest.mark.parametrize("higher", [True, False])
def test_what_is_kept_ends_in_the_retention_of_the_report(higher: bool) -> None:
    matrix: list[list[float | None]] = [[0.8, 0.1, 0.3], [0.9, 0.7, 0.2], [0.45, None, 0.6]]
    scores = scores_of(matrix, [0.2, 0.1, 0.1], higher)
    for task, retention in enumerate(scores.retention("m")):
        kept = numbers.kept(scores, "m", task)
        assert [after for after, _ in kept] == list(range(task + 1, 4))
        assert kept[0][1] == 1.0
        if task < 2:
            assert kept[-1][1] == retention
    assert numbers.kept(scores, "m", 0)[1][1] == pytest.approx(0.9 / 0.8 if higher else 0.8 / 0.9)


def test_a_share_of_nothing_is_none() -> None:
    assert [share for _, share in numbers.kept(scores_of([[0.0, 0.0], [0.5, 1.0]], [0.0, 0.0]), "m", 0)] == [None, None]


def test_a_course_has_the_start_and_what_was_measured() -> None:
    scores = scores_of([[0.8, None], [0.9, 0.7]], [0.2, 0.1])
    assert numbers.course(scores, "m", 0) == [(0, 0.2), (1, 0.8), (2, 0.9)]
    assert numbers.course(scores, "m", 1) == [(0, 0.1), (2, 0.7)]


def test_steps_of_stages_are_counted_on_and_numbers_that_are_none_left_out(tmp_path: Path) -> None:
    story = read_story(write_run(tmp_path / "run"))
    [(first, losses), (second, _)] = numbers.curve(story.stages, "loss")
    assert first == list(range(1, 21))
    assert second == list(range(21, 41))
    assert losses[0] == 2.0
    story.stages[0].steps[1]["loss"] = math.nan
    story.stages[0].steps[2]["loss"] = "high"
    assert numbers.curve(story.stages, "loss")[0][0] == list(range(3, 21))


def test_many_points_are_averaged_and_keep_their_mean() -> None:
    values = np.random.default_rng(0).normal(size=6000).tolist()
    stage = StageStory("s", steps={step: {"loss": value} for step, value in enumerate(values, start=1)})
    [(steps, drawn)] = numbers.curve([stage], "loss")
    assert len(steps) == numbers.MOST_POINTS
    assert steps[-1] == 6000
    assert drawn == pytest.approx(np.reshape(values, (600, 10)).mean(1))


def test_a_running_mean_is_a_convolution_where_it_is_whole() -> None:
    values = np.random.default_rng(0).normal(size=200)
    smooth = numbers.smoothed(values.tolist())
    assert smooth[5:-5] == pytest.approx(np.convolve(values, np.ones(11) / 11, "valid"))
    assert numbers.smoothed([1.0, 5.0]) == [1.0, 5.0]


def test_the_layer_and_the_kind_stand_in_a_weights_name() -> None:
    assert numbers.place_of("model.layers.3.mlp.up_proj.weight") == (3, "mlp.up_proj")
    assert numbers.place_of("bert.encoder.layer.11.output.dense.bias") == (11, "output.dense.bias")
    assert numbers.place_of("model.layers.0.mlp.experts.7.w1.weight") == (0, "mlp.experts.*.w1")
    assert numbers.place_of("model.embed_tokens.weight") == (None, "model.embed_tokens")
    assert numbers.place_of("net.0.weight") == (0, "net")


def test_a_grid_has_matrices_by_layer_and_kind_and_those_outside_below() -> None:
    found = numbers.weights_of(weights())
    drift = numbers.grid(found, "drift")
    assert drift.rows == ["0", "1", "2", "model.embed_tokens"]
    assert drift.columns == ["self_attn.q_proj", "mlp.up_proj", "outside layers"]
    expected = [[0.15, 0.25, None], [0.35, 0.45, None], [0.55, 0.65, None], [None, None, None]]
    assert [[cell and pytest.approx(cell) for cell in row] for row in drift.cells] == expected
    share = numbers.grid(found, "share", "ewc")
    assert share.cells[2][:2] == pytest.approx([4 / 15, 5 / 15])
    assert math.fsum(cell or 0 for row in share.cells for cell in row) == pytest.approx(1)
    assert numbers.grid(found, "importance", "ewc").cells[1][0] == pytest.approx(1e-2)


def test_layers_of_a_deep_model_are_taken_together_by_their_norms() -> None:
    table = {"drift": {f"l.{layer}.w": {"shape": [2, 3], "norm": 3.0, "relative": 0.5} for layer in range(79)}}
    table["drift"]["l.79.w"] = {"shape": [2, 3], "norm": 4.0, "relative": 0.25}
    deep = numbers.grid(numbers.weights_of(table), "drift")
    assert (len(deep.rows), deep.rows[0], deep.rows[-1]) == (40, "0–1", "78–79")
    assert deep.cells[-1][0] == pytest.approx(math.hypot(3, 4) / math.hypot(6, 16))


def test_the_front_is_what_no_other_point_beats() -> None:
    random = np.random.default_rng(3)
    points = [(float(x), float(y)) for x, y in random.integers(0, 12, (40, 2))]
    for up, right in ((1, 1), (1, -1), (-1, -1)):

        def beaten(at: int, up: int = up, right: int = right) -> bool:
            x, y = points[at]
            better = [((ox - x) * right, (oy - y) * up) for ox, oy in points]
            return any(min(pair) >= 0 and max(pair) > 0 for pair in better)

        front = numbers.front(points, right > 0, up > 0)
        assert set(front) == {at for at in range(40) if not beaten(at)}
        assert [points[at][0] for at in front] == sorted(points[at][0] for at in front)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"), (0.5, "", "0.50"), (0.0123, "", "0.012"), (12.34, "", "12.3"), (964.2, "", "964"),
        (4e-5, "", "4e-5"), (123456, "", "1e5"), (0.0371, "%", "3.71"), (0.0371, "share", "0.04"), (-0.25, "", "-0.25"),
    ],
)  # fmt: skip
def test_numbers_fit_a_cell(value: float, unit: str, text: str) -> None:
    assert numbers.brief(value, unit) == text


def test_numbers_can_be_read_on_every_shade_and_lines_on_their_ground() -> None:
    for theme in (LIGHT, DARK):
        assert all(contrast(theme[f"on{level}"], theme[f"heat{level}"]) >= 4.5 for level in range(LEVELS))
        assert contrast(theme["ink"], theme["ground"]) >= 7
        assert contrast(theme["soft"], theme["ground"]) >= 4.5
        assert all(contrast(theme[name], theme["ground"]) >= 3 for name in theme if name.startswith("series"))


def test_of_many_stages_the_weights_of_the_last_are_drawn(tmp_path: Path) -> None:
    story = read_story(write_run(tmp_path / "run"))
    many = replace(story, stages=story.stages * 4, scores=None)
    keys = [chart.key for chart in charts_of(many) if chart.key.endswith("-drift")]
    assert keys == [f"stage-{number}-drift" for number in range(3, 9)]


def test_stages_are_named_where_there_is_room(tmp_path: Path) -> None:
    def named(count: int) -> list[str]:
        points = [Line("task", list(range(count)), [0.5] * count)]
        figure = lines(LIGHT, points, "score", [(at, f"stage {at:03d}") for at in range(count)], end=count)
        return [text.get_text() for text in figure.axes[0].texts]

    assert named(3) == ["stage 000", "stage 001", "stage 002"]
    few = named(60)
    assert 3 <= len(few) <= 7
    assert few[0] == "stage 000"


def test_every_task_is_in_the_legend() -> None:
    drawn = [Line(name, [0, 1], [0.1, 0.2]) for name in ("capitals", "_hidden", "x" * 60)]
    figure = lines(LIGHT, drawn, "score", [])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["capitals", " _hidden", "x" * 27 + "…"]
