from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from hftlab.widgets.figures import replay_figure

START_NS = 1_723_161_255_000_000_000
TIMES = START_NS + np.arange(3) * 1_000_000_000


def test_one_symbol_is_drawn_at_its_price_with_a_cursor_over_the_whole_range() -> None:
    figure = replay_figure(
        {"BTCUSDT": (TIMES, np.array([10.0, 11.0, 12.0]))}, int(TIMES[1]), (START_NS, START_NS + 60 * 10**9)
    )
    (line,) = figure.data
    assert line.name == "BTCUSDT"
    assert list(line.y) == [10.0, 11.0, 12.0]
    (cursor,) = figure.layout.shapes
    assert cursor.x0 == cursor.x1 == dt.datetime(2024, 8, 8, 23, 54, 16)  # noqa: DTZ001 - plotly's dates have no zone
    assert figure.layout.xaxis.range[1] == dt.datetime(2024, 8, 8, 23, 55, 15)  # noqa: DTZ001
    assert not figure.layout.showlegend


def test_several_symbols_are_compared_in_percent_of_their_first_price() -> None:
    figure = replay_figure(
        {"A": (TIMES, np.array([10.0, 11.0, 12.0])), "B": (TIMES, np.array([np.nan, 1_000.0, 1_010.0]))}, 0
    )
    first, second = figure.data
    assert list(first.y) == pytest.approx([100.0, 110.0, 120.0])
    assert list(second.y)[1:] == [100.0, 101.0]
    assert figure.layout.yaxis.title.text == "price, % of the first"
    assert figure.layout.shapes == ()


def test_without_a_price_the_picture_says_so() -> None:
    figure = replay_figure({}, 0, (0, 0))
    assert figure.data == ()
    assert "nothing with a price" in figure.layout.annotations[0].text


def test_names_out_of_a_stream_are_no_markup() -> None:
    figure = replay_figure({"<b>x</b>": (TIMES, np.ones(3))}, 0, title="<a href='javascript:alert(1)'>y</a>")
    assert "<" not in figure.data[0].name
    assert "<" not in figure.layout.title.text
