"""A survey of a recording finds what a replay finds, and never waits for a decision."""

from __future__ import annotations

import hftlab as hl
from hftlab.sequence.listing import survey_lines
from hftlab.sequence.survey import Survey

ORDERS = hl.Source("me", "orders", rule=hl.NumberRule.PLUS_ONE)


def orders(*numbers: int) -> hl.EventBatch:
    return hl.EventBatch.from_events(
        [
            hl.OrderEvent(
                timestamp=1_723_161_255_000_000_000 + at * 1_000_000,
                received=1_723_161_255_000_000_000 + at * 1_000_000,
                symbol="BTCUSDT", order_id=str(number), direction=hl.Side.BUY, quantity=1,
                source=ORDERS, sequence=number,
            )
            for at, number in enumerate(numbers)
        ]
    )  # fmt: skip


def test_batches_may_be_cut_anywhere() -> None:
    market = hl.sim.market(["A", "B"], seconds=2, seed=3)
    faulty = hl.sim.faults(market, seed=5, loss=0.01, duplicates=0.01, disorder=0.02)
    whole, pieces = Survey(hl.Ordering()), Survey(hl.Ordering())
    whole.observe(faulty)
    for begin in range(0, len(faulty), 97):
        pieces.observe(faulty[begin : begin + 97])
    for survey in (whole, pieces):
        survey.finish()
    assert whole.rows == pieces.rows == len(faulty)
    assert whole.gaps.counts["lost"]
    assert whole.gaps.to_frame().equals(pieces.gaps.to_frame())
    assert whole.gaps.by_source().equals(pieces.gaps.by_source())


def test_a_full_window_of_a_strict_type_is_given_up_counted_and_told() -> None:
    survey = Survey(hl.Ordering(window=4))
    survey.observe(orders(1, *range(3, 20), 30, 31))
    assert survey.given_up == 1
    assert [(gap.first, gap.last, gap.reason.name) for gap in survey.gaps if gap.state is hl.GapState.LOST] == [
        (2, 2, "DECIDED")
    ]
    survey.finish()
    (_, last) = survey.gaps
    assert (last.first, last.last, last.reason.name) == (20, 29, "END")
    assert int(survey.gaps.by_source()["delivered"].iloc[0]) == 20
    assert "strict type was full 1 time:" in survey_lines(survey, "x")[-1]


def test_nothing_read_is_nothing_told() -> None:
    survey = Survey(hl.Ordering())
    survey.finish()
    assert survey_lines(survey, "nothing") == ["gaps in nothing: none"]
