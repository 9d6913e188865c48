"""Curves in a line of text: their shape, and that they fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftk.pictures.reading import StageStory, read_story
from ftk.pictures.sparklines import BARS, MOST, spark, spark_lines
from tests.core.pictured import write_run


def test_bars_go_from_the_lowest_to_the_highest() -> None:
    assert spark([0, 1, 2, 3, 4, 5, 6, 7], 32) == BARS
    assert spark([7, 0], 32) == "█▁"
    assert spark([3.0, 3.0, 3.0], 32) == "▁▁▁"
    assert spark([], 32) == ""


def test_more_values_than_columns_are_averaged() -> None:
    assert spark([0, 0, 0, 10, 10, 10, 100, 0, 50], 3) == "▁▂█"  # means 0, 10, 50
    assert len(spark(range(1000), 32)) == 32


@pytest.mark.parametrize("width", [200, 80, 60, 45])
def test_lines_fit_and_say_where_curves_begin_and_end(tmp_path: Path, width: int) -> None:
    tasks = ("capitals", "a task with a name that is longer than others")
    stages = read_story(write_run(tmp_path / "run", tasks)).stages
    lines = spark_lines(stages, width)
    assert len(lines) == 2 + 4
    assert all(line.cell_len <= width for line in lines)
    assert lines[0].plain.startswith("capitals")
    assert lines[0].plain.split()[-1] == "0.190"  # 4 / 21
    assert "2.00 █" in lines[0].plain


def test_where_there_is_no_room_and_nothing_to_show_there_are_none(tmp_path: Path) -> None:
    assert spark_lines(read_story(write_run(tmp_path / "run")).stages, 35) == []
    assert spark_lines([], 80) == []
    many = [StageStory(str(n), steps={1: {"loss": 1.0}, 2: {"loss": 2.0}}) for n in range(40)]
    assert len(spark_lines(many, 80)) == MOST
