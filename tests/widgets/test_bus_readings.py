from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

import hftlab as hl
from hftlab.bus import BusStatistics, LaneStatistics
from hftlab.widgets.bus_rates import BusRates
from hftlab.widgets.bus_readings import (
    MOST_HANDLERS,
    NOTHING,
    ORDERS,
    TERMS,
    books,
    handlers,
    lanes,
    latest_errors,
    mark,
    share_text,
    short_name,
    span,
    status,
)
from tests.widgets.loaded import handler, lane, quotes, small_bus, told

MS = 1_000_000


def badges(**values: Any) -> list[tuple[str, str]]:
    shown = status(told(**values), BusRates(), "Bus", has_breaker=True)
    return [(kind, text) for kind, text, _ in shown["badges"]]


@pytest.mark.parametrize(
    ("state", "share", "badge"),
    [
        ("closed", 1.0, ("good", "Overload: closed")),
        ("open", 0.0, ("bad", "Overload: open")),
        ("half-open", 0.5, ("warn", "Overload: half-open, 50% let in")),
    ],
)
def test_the_breakers_state_is_a_badge(state: str, share: float, badge: tuple[str, str]) -> None:
    assert badges(overload=state, overload_share=share) == [badge]


def test_a_bus_without_a_breaker_says_so_rather_than_that_all_is_well() -> None:
    shown = status(told(), BusRates(), "Bus", has_breaker=False)
    assert [badge[:2] for badge in shown["badges"]] == [["plain", "No overload breaker"]]


@pytest.mark.parametrize(("level", "kind"), [(0.3, "good"), (0.8, "warn"), (0.95, "bad")])
def test_memory_pressure_is_a_badge_where_anything_watches_it(level: float, kind: str) -> None:
    assert badges(memory=level)[1] == (kind, f"Memory {level:.0%}")
    assert len(badges()) == 1


def test_paused_sources_a_run_and_rates_are_told() -> None:
    assert badges(paused=True)[-1] == ("warn", "Sources paused")
    rates = BusRates(handled={"HIGH": 345.6, "LOW": 12_000.0}, failures=2.0)
    shown = status(told(run="replay of s"), rates, "Bus", has_breaker=True)
    assert (shown["label"], shown["state"]) == ("Run replay of s, busy", "running")
    assert (shown["throughput"], shown["failures"], shown["failing"]) == ("12.3 k/s", "2/s", True)


def test_a_bus_in_which_events_wait_or_give_way_is_busy_though_none_is_handled() -> None:
    for statistics, rates in [(told(waiting=1), BusRates()), (told(), BusRates(gave_way={("LOW", "x"): 1.0}))]:
        assert status(statistics, rates, "Bus", has_breaker=True)["label"] == "Live, busy"
    quiet = status(told(), BusRates(), "Bus", has_breaker=True)
    assert (quiet["label"], quiet["throughput"], quiet["failures"]) == ("Live, idle", NOTHING, NOTHING)


# -- lanes ------------------------------------------------------------------------------------------------------------


def shown_lane(one: LaneStatistics, rates: BusRates | None = None, peak: int = 0) -> dict[str, Any]:
    shown = lanes(told(one), rates or BusRates(), {one.lane: peak}, (0.8, 0.5))
    assert [line["lane"] for line in shown] == ["CRITICAL", "HIGH", "NORMAL", "LOW"]
    return next(line for line in shown if line["lane"] == one.lane)


def test_a_lane_tells_its_depth_its_peak_and_its_watermarks() -> None:
    shown = shown_lane(lane(waiting=560, capacity=1_000), peak=900)
    assert (shown["depth"], shown["peak"], shown["marks"]) == (0.56, 0.9, [0.8, 0.5])
    assert (shown["waiting"], shown["share"], shown["peak_text"]) == ("560 of 1,000", "56 %", "peak 900")


def test_a_lane_that_is_fuller_than_ever_is_its_own_peak_and_never_beyond_its_bar() -> None:
    shown = shown_lane(lane(waiting=1_500, capacity=1_000), peak=900)
    assert (shown["depth"], shown["peak"], shown["peak_text"]) == (1.0, 1.0, "peak 1,500")


def test_a_lanes_throughput_is_unknown_before_there_are_two_looks() -> None:
    assert shown_lane(lane())["rate"] == NOTHING
    shown = shown_lane(lane(handled=7), BusRates(handled={"NORMAL": 1_500.0}))
    assert (shown["rate"], shown["busy"], shown["handled"]) == ("1.50 k/s", True, "7")


def test_what_gave_way_is_told_by_reason_as_count_and_rate() -> None:
    rates = BusRates(handled={"NORMAL": 0.0}, gave_way={("NORMAL", "conflate"): 250.0, ("NORMAL", "shed: old"): 0.0})
    shown = shown_lane(lane(gave_way={"conflate": 12_000, "shed: old": 5}), rates)
    assert shown["reasons"] == [["conflate", "12,000", "250/s"], ["shed: old", "5", ""]]
    assert (shown["gave_way"], shown["giving_way"]) == ("12,005", True)


def test_waits_preemptions_and_inversion_are_told_and_nothing_where_there_was_none() -> None:
    quiet = {name: text for name, text, _ in shown_lane(lane())["facts"]}
    assert quiet == dict.fromkeys(("oldest", "p50", "p99", "max", "inversion"), NOTHING) | {"preempted": "0"}
    one = lane(
        waiting=1, oldest_ns=3 * MS, wait_p50_ns=1_500.0, wait_p99_ns=2.5e6, wait_max_ns=40 * MS, preempted=12,
        inversion_ns=7 * MS,
    )  # fmt: skip
    facts = {name: text for name, text, _ in shown_lane(one)["facts"]}
    assert facts == {
        "oldest": "3 ms", "p50": "1.5 µs", "p99": "2.5 ms", "max": "40 ms", "preempted": "12", "inversion": "7 ms",
    }  # fmt: skip


def test_pauses_and_what_a_lane_waits_for_are_badges() -> None:
    shown = shown_lane(lane("LOW", paused=True, pauses=1, paused_ns=20 * MS, waits_for="HIGH"))
    assert [badge[:2] for badge in shown["badges"]] == [
        ["warn", "paused"], ["warn", "waits for HIGH"], ["plain", "1 pause, 20 ms"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.0001, "under 1 %"), (0.56, "56 %"), (0.9999, "99 %"), (1.0, "100 %")]
)
def test_full_and_empty_are_only_said_of_what_is(share: float, text: str) -> None:
    assert share_text(share) == text


@pytest.mark.parametrize(("ns", "text"), [(0, NOTHING), (0.4, NOTHING), (850, "850 ns"), (1.25e6, "1.25 ms")])
def test_durations_have_three_digits(ns: float, text: str) -> None:
    assert span(ns) == text


# -- the books --------------------------------------------------------------------------------------------------------


def test_the_books_have_every_term_and_balance() -> None:
    shown = books(told(published=100, handled=60, waiting=25, shed=10, dead_lettered=5))
    terms = {name: (figure, kind) for name, figure, kind, _ in shown["terms"]}
    assert len(terms) == len(TERMS)
    assert (terms["handled"], terms["dead-lettered"], terms["held"]) == (("60", ""), ("5", "bad"), ("0", "zero"))
    assert (shown["published"], shown["off"]) == ("100", "")


def test_books_that_do_not_balance_say_by_how_much() -> None:
    assert books(told(published=100, handled=60))["off"] == "+40"
    assert books(told(published=100, handled=1_200))["off"] == "-1,100"


def test_the_terms_are_those_that_the_statistics_state() -> None:
    stated = " ".join((BusStatistics.__doc__ or "").split("published = ")[1].split(",")[0].split())
    assert stated.replace(" + ", " ").split() == list(TERMS)
    assert set(TERMS) <= {field.name for field in fields(BusStatistics)}


def test_the_books_of_a_real_bus_balance_under_load() -> None:
    bus = small_bus()
    bus.subscribe(lambda price: 1 / 0, hl.MarketDataEvent, name="broken")
    batch = quotes(700)
    seen = set()
    for _ in range(3):
        bus.offer(batch)
        while bus.do_work(20).handled == 0:  # a slice may go by while kernels are loaded
            pass
        shown = books(bus.statistics())
        assert shown["off"] == ""
        seen |= {name for name, figure, _, _ in shown["terms"] if figure != "0"}
    while not bus.do_work().idle:
        pass
    shown = books(bus.statistics())
    assert shown["off"] == ""
    seen |= {name for name, figure, _, _ in shown["terms"] if figure != "0"}
    assert seen >= {"dead-lettered", "waiting", "dropped"}


# -- handlers ---------------------------------------------------------------------------------------------------------


def table(*rows: Any, order: str = "called", rates: BusRates | None = None, **errors: str) -> dict[str, Any]:
    return handlers(told(*rows), rates or BusRates(), order, 0.05, errors)


def names(shown: dict[str, Any]) -> list[str]:
    return [row[len(ORDERS)] for row in shown["rows"]]


def test_a_handlers_counts_are_told_and_zeros_are_left_out() -> None:
    (row,) = table(
        handler("__main__.f:market.*", mode="jit", priority=7, calls=1_234, delivered=1_234, queued=3),
        rates=BusRates(delivered={"__main__.f:market.*": 999.6}),
    )["rows"]
    assert dict(zip(ORDERS, row, strict=False)) == {
        "called": "f:market.*", "mode": "jit", "priority": "7", "calls": "1,234", "rate": "1,000/s", "failed": "",
        "rejected": "", "dead": "", "queued": "3", "timed out": "", "held": "", "breaker": "",
    }  # fmt: skip
    assert row[len(ORDERS) :] == ["__main__.f:market.*", "", ""]


@pytest.mark.parametrize(
    ("name", "short"),
    [("__main__.f:market.*", "f:market.*"), ("strategies.mm.main.<locals>.quote", "quote"), ("<b>x</b>", "<b>x</b>")],
)
def test_names_are_shortened_by_what_a_notebooks_reader_knows(name: str, short: str) -> None:
    assert short_name(name) == short


def test_handlers_stand_in_the_order_of_calls_unless_another_is_asked_for() -> None:
    rows = [handler("a", failed=1, held_ns_max=5), handler("b", failed=9), handler("c", breaker="open", held_ns_max=9)]
    assert names(table(*rows)) == ["a", "b", "c"]
    assert names(table(*rows, order="failed")) == ["b", "a", "c"]
    assert names(table(*rows, order="held")) == ["c", "a", "b"]
    assert names(table(*rows, order="breaker")) == ["c", "a", "b"]


@pytest.mark.parametrize("order", ORDERS)
def test_every_column_can_order(order: str) -> None:
    shown = table(handler("a", breaker="closed"), handler("b", mode="batch", priority=3), order=order)
    assert sorted(names(shown)) == ["a", "b"]
    assert shown["order"] == order
    json.dumps(shown)


def test_an_open_circuit_and_a_failing_handler_are_marked_with_the_latest_error() -> None:
    errors = {"h": "ValueError: no price"}
    kind, note = mark(handler(breaker="open", failed=9), BusRates(), 0.05, 0, errors)
    assert kind == "bad"
    assert note == "its breaker rejects what it would be called for; last: ValueError: no price"
    assert mark(handler(breaker="half-open"), BusRates(), 0.05, 0, {})[0] == "bad"
    assert mark(handler(failed=9), BusRates(failed={"h": 4.0}), 0.05, 0, errors) == (
        "bad",
        "fails 4/s: ValueError: no price",
    )
    assert mark(handler(failed=9), BusRates(failed={"h": 0.0}), 0.05, 0, errors) == (
        "", "last failed with ValueError: no price",
    )  # fmt: skip
    assert mark(handler(breaker="closed"), BusRates(), 0.05, 0, {}) == ("", "")


def test_handlers_that_held_the_loop_are_marked_and_the_slowest_is_named() -> None:
    shown = table(
        handler("quick", held_ns_max=MS // 2),
        handler("slow", held_ns_max=60 * MS),
        handler("slowest", held_ns_max=80 * MS),
    )
    assert [row[-2:] for row in shown["rows"]] == [
        ["", ""], ["slow", "held the loop for 60 ms"], ["slow", "held the loop for 80 ms, the longest of all"],
    ]  # fmt: skip
    within = table(handler("quick", held_ns_max=MS // 2), handler("slowest", held_ns_max=2 * MS))
    assert [row[-2] for row in within["rows"]] == ["", "slow"]
    assert [row[-2] for row in table(handler("alone", held_ns_max=2 * MS))["rows"]] == [""]


def test_of_many_handlers_the_marked_and_the_busiest_are_shown_and_the_others_counted() -> None:
    rows = [handler(f"h{i}", calls=i) for i in range(MOST_HANDLERS + 20)]
    rows[3] = handler("h3", breaker="open")
    shown = table(*rows)
    assert len(shown["rows"]) == MOST_HANDLERS
    assert names(shown)[0] == "h3"
    assert names(shown)[1:] == [f"h{i}" for i in range(21, MOST_HANDLERS + 20)]
    assert shown["more"].startswith("20 more")


def test_the_latest_error_of_each_handler_is_kept_short() -> None:
    bus = small_bus()

    def fail(price: float) -> None:
        raise ValueError("x" * 1_000)

    bus.subscribe(fail, hl.MarketDataEvent, name="long")
    bus.subscribe(lambda bid: [][0], hl.MarketDataEvent, name="short")
    bus.offer(quotes(2))
    while not bus.do_work().idle:
        pass
    errors = latest_errors(bus.failures)
    assert errors["short"] == "IndexError: list index out of range"
    assert errors["long"].startswith("ValueError: xxx")
    assert len(errors["long"]) == 200
