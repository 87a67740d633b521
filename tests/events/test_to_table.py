"""A batch's table and picture show what is there, in the reader's words, and nothing that a browser would run."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pandas as pd
from hypothesis import given

from hftlab.events import (
    Event,
    EventBatch,
    FillEvent,
    Kind,
    MarketDataEvent,
    OrderEvent,
    Priority,
    Side,
    SignalEvent,
    Source,
)
from tests.events.strategies import event_lists

TRADE = MarketDataEvent(
    symbol="BTCUSDT", timestamp=1723161255088176367, received=1723161255088176368, price=61800.2, volume=0.006,
    kind=Kind.TRADE, side=Side.BUY,
)  # fmt: skip


def test_a_table_has_utc_times_names_for_numbers_and_only_what_somebody_filled() -> None:
    frame = EventBatch.from_events([TRADE]).to_frame()
    assert list(frame) == [
        "timestamp", "received", "event_type", "symbol", "source", "price", "volume", "kind", "side",
        "sequence", "span", "part", "epoch", "cause", "flags", "event_id",
    ]  # fmt: skip
    assert frame["timestamp"].dtype == pd.DatetimeTZDtype("ns", "UTC")
    assert frame["timestamp"][0] == pd.Timestamp(1723161255088176367, tz="UTC")
    shown = [frame[name][0] for name in ("event_type", "symbol", "source", "kind", "side", "price")]
    assert shown == ["market", "BTCUSDT", "unknown", "TRADE", "BUY", 61800.2]
    urgent = EventBatch.from_events([MarketDataEvent(symbol="A", priority=Priority.HIGH, clock="KERNEL")])  # type: ignore[arg-type]
    assert [urgent.to_frame()[name][0] for name in ("priority", "clock")] == ["HIGH", "KERNEL"]


def test_rows_of_several_types_share_a_table_in_their_order() -> None:
    batch = EventBatch.from_events(
        [
            SignalEvent(symbol="B", signal_type="W"),
            TRADE,
            OrderEvent(symbol="A", order_id="1", direction=Side.SELL, quantity=3, price=5),
            FillEvent(symbol="A", order_id="2", executed_qty=1, executed_price=2),
        ]
    )
    frame = batch.to_frame()
    assert frame["event_type"].tolist() == ["signal", "market", "order", "fill"]
    assert frame["price"].tolist()[1:3] == [61800.2, 5.0]
    assert frame["price"].isna().tolist() == [True, False, False, True]
    assert frame["order_id"].tolist()[2:] == ["1", "2"]
    assert frame["order_id"].isna().tolist() == [True, True, False, False]
    assert frame["direction"].isna().tolist() == [True, True, False, True]
    assert frame.index.tolist() == [0, 1, 2, 3]


@given(event_lists())
def test_every_batch_has_a_table_and_a_picture(listed: list[Event]) -> None:
    batch = EventBatch.from_events(listed)
    frame = batch.to_frame()
    assert len(frame) == len(listed)
    assert frame["symbol"].tolist() == [event.symbol for event in listed]
    assert frame["received"].astype("int64").tolist() == [event.received for event in listed]
    assert frame["event_id"].tolist() == [event.event_id for event in listed]
    assert batch._repr_html_() == batch._repr_html_()


def test_a_table_is_a_copy() -> None:
    batch = EventBatch.from_events([TRADE])
    frame = batch.to_frame()
    frame["price"] = 0.0
    frame["sequence"] = 5
    assert batch[0] == TRADE


class Tags(HTMLParser):
    """Collects the tags and the text of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_text_from_streams_is_shown_as_text() -> None:
    evil = "<img src=x onerror=alert(1)>"
    batch = EventBatch.from_events(
        [
            SignalEvent(
                symbol=evil, signal_type="<script>a</script>", strategy_id="<b>&amp;", source=Source(evil, "'\"")
            ),
            OrderEvent(symbol=evil, order_id="<i>", direction=Side.BUY, quantity=1),
        ]
    )
    found = Tags(batch._repr_html_())
    assert found.tags == {"div", "b", "table", "thead", "tbody", "tr", "th", "td"}
    for text in (evil, "<script>a</script>", "<b>&amp;", "<i>"):
        assert text in found.text
    assert any(evil in text for text in found.text if text.startswith("(1 order, 1 signal;"))


def test_a_picture_shows_the_first_rows_and_says_how_many_more_there_are() -> None:
    found = Tags(EventBatch.from_events([TRADE] * 1_234)._repr_html_())
    assert "1,224 rows more" in found.text
    assert found.text.count("61800.2") == 10
    assert "(1,234 market; BTCUSDT)" in found.text
    assert Tags(EventBatch.empty()._repr_html_()).text == ["EventBatch", "(empty; no symbol)"]


def test_a_picture_leaves_out_columns_that_say_nothing() -> None:
    found = Tags(EventBatch.from_events([TRADE])._repr_html_())
    assert {"timestamp", "received", "symbol", "price", "volume", "kind", "side"} <= set(found.text)
    assert not {"sequence", "epoch", "event_type", "source", "flags", "event_id"} & set(found.text)
    numbered = MarketDataEvent(symbol="A", sequence=5, source=Source("x"))
    assert {"sequence", "source"} <= set(Tags(EventBatch.from_events([numbered])._repr_html_()).text)


def test_a_picture_of_many_rows_is_as_long_as_that_of_ten() -> None:
    batch = EventBatch.from_events([TRADE] * 20)
    assert batch.where(np.arange(20) < 10)._repr_html_().count("<tr") == batch._repr_html_().count("<tr")
