"""The dead letters as a user sees them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hftlab.errors import CodecError, ValidationError
from hftlab.events.group_ports import Letter
from hftlab.pipeline.dead_letters import DeadLetterList
from hftlab.pipeline.letterbox import Letterbox
from tests.pipeline.samples import START_NS, Failed, letter, trades


def letters() -> DeadLetterList:
    box = Letterbox(lambda: START_NS)
    box.put(Failed("totals", trades([4, 5]), KeyError("BTC"), attempts=2))
    box.put(Failed("spread", trades([9]), ValueError("<b>no</b>")))
    return DeadLetterList(box.take())


def test_it_is_a_sequence_of_letters() -> None:
    listed = letters()
    assert (len(listed), listed[0].handler, [one.handler for one in listed]) == (2, "totals", ["totals", "spread"])
    assert listed[1:] == listed.only(handler="spread")
    assert isinstance(listed[1:], DeadLetterList)
    assert listed == letters()
    assert len({listed, letters()}) == 1
    assert listed.handlers == {"totals": 1, "spread": 1}


def test_the_table_has_a_row_a_letter() -> None:
    frame = letters().to_frame()
    assert list(frame.columns) == [
        "letter_id", "at", "first", "due", "handler", "type", "symbol", "session", "log_sequence", "events", "attempts",
        "error",
    ]  # fmt: skip
    first = frame.iloc[0]
    assert first["at"] == first["first"] == pd.Timestamp(START_NS, tz="UTC")
    assert first["due"] is pd.NaT
    assert (first["handler"], first["type"], first["symbol"], first["session"]) == ("totals", "market", "BTC", 3)
    assert (first["log_sequence"], first["events"], first["attempts"], first["error"]) == (4, 2, 2, "KeyError: 'BTC'")


def test_a_letter_without_a_place_in_the_log_has_none_in_the_table() -> None:
    frame = DeadLetterList([letter()]).to_frame()
    assert frame["log_sequence"].isna().all()


def test_an_empty_table_has_the_same_columns_of_the_same_types() -> None:
    empty, full = DeadLetterList().to_frame(), letters().to_frame()
    assert list(empty.columns) == list(full.columns)
    assert [str(empty[name].dtype) for name in ("at", "due", "log_sequence", "events")] == [
        str(full[name].dtype) for name in ("at", "due", "log_sequence", "events")
    ]
    assert len(DeadLetterList().events()) == 0


def test_the_events_are_one_batch() -> None:
    batch = letters().events()
    assert batch.column("price") == [4.0, 5.0, 9.0]
    assert np.array_equal(batch.event_ids, trades([4, 5, 9]).event_ids)


def test_entries_that_could_not_be_read_hold_no_events() -> None:
    unreadable = Letter(handler="", error="CodecError: cut", attempts=0, first_ns=0, at_ns=0, frame=b"junk")
    listed = DeadLetterList([*letters(), unreadable])
    assert len(listed.events()) == 3
    assert len(listed.only(handler="")) == 1
    with pytest.raises(CodecError):
        DeadLetterList([letter(frame=b"junk")]).events()


def test_a_handlers_name_is_a_text() -> None:
    with pytest.raises(ValidationError, match="handler= is the name of a subscription; got 5"):
        letters().only(handler=5)  # type: ignore[arg-type]


def test_its_repr_is_short_and_stable() -> None:
    assert repr(letters()) == "DeadLetterList(2 letters, 3 events: totals 1, spread 1)"
    assert repr(DeadLetterList()) == "DeadLetterList(none)"
    many = DeadLetterList([letter(handler=name) for name in ("a", "b", "c", "d", "")])
    assert repr(many) == "DeadLetterList(5 letters, 5 events: a 1, b 1, c 1, and 2 more)"


def test_what_a_notebook_shows_is_escaped_and_bounded() -> None:
    shown = letters()._repr_html_()
    assert "<b>no</b>" not in shown
    assert "&lt;b&gt;no&lt;/b&gt;" in shown
    assert "and 80 more" in DeadLetterList([letter(number) for number in range(100)])._repr_html_()
    assert DeadLetterList()._repr_html_() == "<div><b>DeadLetterList(none)</b></div>"
