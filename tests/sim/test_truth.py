"""``FaultTruth`` and ``FaultyBatch``: what a notebook and a test read of what was done."""

from __future__ import annotations

import pandas as pd

import hftlab.sim as sim
from hftlab.events import EventBatch
from hftlab.sim import FaultyBatch
from tests.sim.lines import LINE, MS, START_NS, line


def test_the_frame_has_a_row_a_fault_in_the_order_of_the_batch() -> None:
    truth = sim.faults(line(60), seed=4, loss=0.05, duplicates=0.05, resets=0.03, clock_steps=0.04).truth
    frame = truth.to_frame()
    assert list(frame.columns) == [
        "kind", "source", "symbol", "epoch", "first", "last", "messages", "rows", "position", "received", "detail",
    ]  # fmt: skip
    assert len(frame) == len(truth)
    assert frame.groupby("kind")["messages"].sum().to_dict() == {k: n for k, n in truth.counts.items() if n}
    steps = frame[frame["kind"] == "clock step"]
    assert set(steps["detail"]) == {"the recorder's clock is set by -0.5 s"}
    assert set(steps["source"]) == set(steps["symbol"]) == {""}
    rest = frame[frame["kind"] != "clock step"]
    assert (set(rest["source"]), set(rest["symbol"])) == ({LINE}, {"A"})
    assert set(frame[frame["kind"] == "loss"]["position"]) == {-1}
    assert set(frame[frame["kind"] == "reset"]["detail"]) == {"a new epoch, numbered from 1"}


def test_a_lost_message_has_the_time_at_which_it_would_have_arrived() -> None:
    frame = sim.faults(line(60), seed=4, loss=0.05).truth.to_frame()
    expected = [pd.Timestamp(START_NS + number * MS, unit="ns", tz="UTC") for number in frame["first"]]
    assert frame["received"].tolist() == expected


def test_the_frame_of_no_fault_has_the_same_columns() -> None:
    none = sim.faults(line(5), seed=1).truth.to_frame()
    assert list(none.columns) == list(sim.faults(line(50), seed=1, loss=0.5).truth.to_frame().columns)
    assert len(none) == 0


def test_reprs_are_short_and_count_the_faults() -> None:
    faulty = sim.faults(line(10), seed=1, tail=2)
    assert repr(faulty) == "FaultyBatch(8 market; A; 2 tail loss)"
    assert repr(faulty.truth) == "FaultTruth(2 tail loss; 10 messages in, 8 out)"
    assert repr(sim.faults(line(10), seed=1)) == "FaultyBatch(10 market; A; no faults)"
    assert faulty.truth._repr_html_() == (
        "<div><b>FaultTruth</b> 10 messages in, 8 out, seed 1<table><tr><th>fault</th><th>faults</th>"
        "<th>messages</th></tr><tr><td>tail loss</td><td>1</td><td>2</td></tr></table></div>"
    )
    assert "no faults" in sim.faults(line(10), seed=1).truth._repr_html_()
    assert faulty.truth._repr_html_() in faulty._repr_html_()


def test_slices_are_plain_and_concatenations_say_that_nothing_was_done() -> None:
    faulty = sim.faults(line(10), seed=1, tail=2)
    assert type(faulty[2:4]) is EventBatch
    joined = FaultyBatch.concat([faulty, faulty])
    assert isinstance(joined, FaultyBatch)
    assert (len(joined), len(joined.truth)) == (16, 0)


def test_touching_losses_are_one_range() -> None:
    faulty = sim.faults(line(8), seed=1, loss=1.0, tail=1)
    assert faulty.truth.lost == {(LINE, 0): [(2, 6)]}
    assert faulty.truth.lost_unseen == {(LINE, 0): [(8, 8)]}
    assert len(faulty.truth) == 6
