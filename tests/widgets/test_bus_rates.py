from __future__ import annotations

from hftlab.widgets.bus_rates import SPAN_NS, STALE_NS, BusRates, RecentStatistics
from tests.widgets.loaded import SECOND, handler, lane, told


def recent(*looks: tuple[float, dict[str, int]]) -> RecentStatistics:
    """Looks at these seconds, at one lane's ``handled`` and gave-way counts by reason."""
    statistics = RecentStatistics()
    for second, counts in looks:
        reasons = {reason: rows for reason, rows in counts.items() if reason != "handled"}
        statistics.add(int(second * SECOND), told(lane(handled=counts.get("handled", 0), gave_way=reasons)))
    return statistics


def test_a_first_look_knows_no_rates() -> None:
    rates = recent((5.0, {"handled": 100})).rates()
    assert rates == BusRates()
    assert rates.gave_way_of("NORMAL") is None


def test_rates_are_the_differences_of_the_last_second() -> None:
    looks = [(tenth / 10, {"handled": tenth * 50, "shed: x": tenth}) for tenth in range(30)]
    rates = recent(*looks).rates()
    assert rates.handled["NORMAL"] == 500.0
    assert rates.handled["CRITICAL"] == 0.0
    assert rates.gave_way == {("NORMAL", "shed: x"): 10.0}
    assert rates.gave_way_of("NORMAL") == 10.0


def test_what_ended_a_second_ago_is_not_told_any_more() -> None:
    looks = [(0.0, {"handled": 0}), (0.1, {"handled": 1_000}), (0.2, {"handled": 1_000})]
    assert recent(*looks).rates().handled["NORMAL"] == 5_000.0
    assert recent(*looks, (1.1, {"handled": 1_000}), (1.2, {"handled": 1_000})).rates().handled["NORMAL"] == 0.0


def test_after_a_long_silence_rates_are_unknown_again_rather_than_a_mean_over_it() -> None:
    silence_s = (STALE_NS + SPAN_NS) / SECOND
    rates = recent((0.0, {"handled": 0}), (silence_s, {"handled": 1_000_000}))
    assert rates.rates() == BusRates()


def test_a_clock_that_stands_gives_no_rates() -> None:
    assert recent((1.0, {"handled": 0}), (1.0, {"handled": 10})).rates() == BusRates()


def test_a_handler_that_is_new_or_was_replaced_counts_from_nothing() -> None:
    statistics = RecentStatistics()
    statistics.add(0, told(handler("a", delivered=500, failed=5), failures=5))
    statistics.add(SECOND // 2, told(handler("a", delivered=3), handler("b", delivered=9, failed=1), failures=6))
    rates = statistics.rates()
    assert rates.delivered == {"a": 6.0, "b": 18.0}
    assert rates.failed == {"a": 0.0, "b": 2.0}
    assert rates.failures == 2.0
