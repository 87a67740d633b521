"""Exchanges in, UTC out: the truth stays within the stated bound, liars are named, steps are told from outliers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.clock.estimate import Estimate
from hftlab.clock.ntp.drift import Drift
from hftlab.clock.ntp.estimator import Estimator, common_drift
from hftlab.errors import ValidationError
from tests.clock.ntp.synthetic import ORIGIN_NS, SECOND_NS, Delays, exchange, internet, is_held, lan, truth_ns

Wrong = Callable[[int], int]
"""From the round's number to what is wrong with a server's clock then, in ns."""


def always(wrong_ns: int) -> Wrong:
    return lambda _: wrong_ns


honest = always(0)


def run(
    servers: Mapping[str, Wrong], *, drift_ppb: float = 0.0, rounds: int = 40, seed: int = 1, every_s: float = 64,
    delays: Delays = internet, outliers: float = 0.0,
) -> tuple[Estimator, list[Estimate | None], list[int]]:  # fmt: skip
    """Eight rounds 2 s apart, then one every ``every_s``: the estimator, its estimates, and the truth at each."""
    chance, estimator = random.Random(seed), Estimator(list(servers))
    estimates: list[Estimate | None] = []
    truths: list[int] = []
    at_ns = 0
    for number in range(rounds):
        at_ns += round((2 if number < 8 else every_s) * SECOND_NS)
        for server, wrong in servers.items():
            lie = chance.randrange(-10 * SECOND_NS, 10 * SECOND_NS) if chance.random() < outliers else 0
            at_ns += 1_000_000
            estimator.add(
                exchange(
                    at_ns,
                    server=server,
                    truth=truth_ns(at_ns, drift_ppb),
                    delay_ns=delays(chance),
                    asymmetry=chance.uniform(-1, 1),
                    wrong_ns=wrong(number) + lie,
                    precision_ns=100,
                    root_ns=10_000,
                )
            )
        estimates.append(estimator.estimate(at_ns))
        truths.append(truth_ns(at_ns, drift_ppb))
    return estimator, estimates, truths


def all_held(estimates: list[Estimate | None], truths: list[int]) -> bool:
    return all(one is None or is_held(one, truth) for one, truth in zip(estimates, truths, strict=True))


def last(estimates: list[Estimate | None]) -> Estimate:
    assert estimates[-1] is not None
    return estimates[-1]


def test_without_an_answer_there_is_no_estimate() -> None:
    estimator = Estimator(["a", "b"])
    assert estimator.estimate(0) is None
    view = estimator.server("a")
    assert (view.verdict, view.samples, view.offset_ns) == ("unheard", 0, None)
    assert (estimator.jitter_ns, estimator.stable, estimator.resets) == (0, False, 0)
    assert repr(estimator) == "Estimator(a: unheard, b: unheard)"


def test_servers_are_named_once_and_no_others_are_asked_for() -> None:
    with pytest.raises(ValidationError, match="each server is named once"):
        Estimator(["a", "a"])
    with pytest.raises(ValidationError, match="stale_after_s is a number of seconds above 0; got 0"):
        Estimator(["a"], stale_after_s=0)
    estimator = Estimator(["a"])
    with pytest.raises(ValidationError, match=r"given at the start \(a\); got 'b'"):
        estimator.add(exchange(0, server="b"))
    with pytest.raises(ValidationError, match=r"given at the start \(a\); got 'b'"):
        estimator.forget("b")


def test_the_first_answer_alone_is_an_estimate_bounded_by_half_its_delay_and_the_root_distance() -> None:
    estimator = Estimator(["a"])
    estimator.add(exchange(SECOND_NS, delay_ns=20_000, precision_ns=100, root_ns=3_000))
    estimate = estimator.estimate(SECOND_NS)
    assert estimate is not None
    assert (estimate.offset_ns, estimate.servers, estimate.drift_ppb) == (ORIGIN_NS, ("a",), None)
    assert 10_000 + 100 + 3_000 <= estimate.bound_ns <= 10_000 + 100 + 3_000 + 3
    assert estimator.server("a").verdict == "alone"


def test_of_an_answer_that_was_not_weighed_yet_the_server_is_a_candidate() -> None:
    estimator = Estimator(["a"])
    estimator.add(exchange(SECOND_NS))
    assert (estimator.server("a").verdict, estimator.server("a").offset_ns) == ("candidate", ORIGIN_NS)


@given(
    drift_ppb=st.floats(-200_000, 200_000),
    answers=st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(1, 200 * SECOND_NS), st.integers(0, SECOND_NS), st.floats(-1, 1),
            st.floats(-1, 1),
        ),
        min_size=1, max_size=60,
    ),
    root_ns=st.integers(1, 10**8),
    later_ns=st.integers(0, 1_000 * SECOND_NS),
)  # fmt: skip
@settings(max_examples=150)
def test_the_truth_is_within_the_bound_whatever_delays_asymmetry_drift_and_pauses_honest_servers_have(
    drift_ppb: float, answers: list[tuple[str, int, int, float, float]], root_ns: int, later_ns: int
) -> None:
    estimator, at_ns = Estimator("abc"), 0
    for server, gap_ns, delay_ns, asymmetry, error in answers:
        at_ns += gap_ns
        estimator.add(
            exchange(
                at_ns,
                server=server,
                truth=truth_ns(at_ns, drift_ppb),
                delay_ns=delay_ns,
                asymmetry=asymmetry,
                wrong_ns=int(error * root_ns),
                root_ns=root_ns,
                precision_ns=1,
            )
        )
        estimate = estimator.estimate(at_ns)
        assert estimate is None or is_held(estimate, truth_ns(at_ns, drift_ppb))
        assert estimate is None or not estimate.falsetickers
    estimate = estimator.estimate(at_ns + later_ns)
    assert estimate is None or is_held(estimate, truth_ns(at_ns + later_ns, drift_ppb))
    assert estimator.resets == 0


@given(
    lies=st.lists(st.integers(-(10**12), 10**12).filter(lambda lie: abs(lie) > 10**9), min_size=1, max_size=2),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=25)
def test_a_minority_of_liars_is_named_and_moves_nothing(lies: list[int], seed: int) -> None:
    servers = {f"liar{number}": always(lie) for number, lie in enumerate(lies)}
    servers |= {f"honest{number}": honest for number in range(len(lies) + 1)}
    estimator, estimates, truths = run(servers, drift_ppb=50_000, rounds=12, seed=seed)
    assert all(estimates)
    assert all_held(estimates, truths)
    assert set(last(estimates).falsetickers) == {name for name in servers if name.startswith("liar")}
    assert {estimator.server(name).verdict for name in last(estimates).servers} == {"truechimer"}
    assert estimator.server("liar0").verdict == "falseticker"


def test_two_servers_that_contradict_each_other_give_no_estimate_and_stay_candidates() -> None:
    estimator, estimates, _ = run({"a": honest, "b": always(SECOND_NS)})
    assert not any(estimates)
    assert repr(estimator) == "Estimator(a: candidate, b: candidate)"


def test_a_majority_of_liars_that_agree_is_believed_and_nobody_can_tell() -> None:
    _, estimates, truths = run({"a": honest, "b": always(SECOND_NS), "c": always(SECOND_NS)})
    assert last(estimates).falsetickers == ("a",)
    assert not is_held(last(estimates), truths[-1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("drift_ppb", [-200_000.0, 3_000.0, 200_000.0])
def test_the_drift_is_found_within_its_bound_though_one_answer_in_five_is_far_off(drift_ppb: float, seed: int) -> None:
    servers = {"a": honest, "b": honest, "c": honest}
    estimator, estimates, truths = run(servers, drift_ppb=drift_ppb, seed=seed, outliers=0.2, rounds=80)
    estimate = last(estimates)
    assert estimate.drift_ppb is not None
    assert abs(estimate.drift_ppb - drift_ppb) <= estimate.drift_bound_ppb < 20_000
    assert all_held(estimates[12:], truths[12:])  # before, an outlier may have been all there was
    assert sum(estimator.server(name).outliers for name in servers) > 20


def test_a_single_server_with_outliers_is_never_reset_by_them() -> None:
    estimator, _, _ = run({"a": lambda number: 3 * SECOND_NS if number % 5 == 4 else 0}, drift_ppb=10_000)
    assert estimator.resets == 0
    assert estimator.server("a").outliers == 7


def test_a_step_that_stays_resets_the_history_once_and_is_followed() -> None:
    estimator, estimates, truths = run({"a": lambda number: SECOND_NS if number >= 30 else 0}, rounds=60)
    assert (estimator.resets, estimator.server("a").resets) == (1, 1)
    assert all_held(estimates[:33], truths[:33])  # three that contradict the past are not believed yet
    assert all_held(estimates[33:], [truth + SECOND_NS for truth in truths[33:]])


def test_after_a_step_the_drift_is_not_known_any_more() -> None:
    servers = {"a": lambda number: SECOND_NS if number >= 30 else 0}
    assert run(servers, rounds=33)[0].server("a").drift_ppb is not None
    estimator, _, _ = run(servers, rounds=34)
    assert (estimator.server("a").drift_ppb, estimator.server("a").samples) == (None, 4)


def test_a_server_that_stops_answering_goes_stale_and_no_longer_counts() -> None:
    estimator = Estimator(["a", "b"], stale_after_s=100)
    for second in range(10):
        estimator.add(exchange(second * SECOND_NS, server="a"))
        estimator.add(exchange(second * SECOND_NS, server="b", wrong_ns=10**9))
    assert estimator.estimate(10 * SECOND_NS) is None
    estimator.add(exchange(120 * SECOND_NS, server="b", wrong_ns=10**9))
    estimate = estimator.estimate(120 * SECOND_NS)
    assert estimate is not None
    assert estimate.servers == ("b",)
    assert (estimator.server("a").verdict, estimator.server("b").verdict) == ("stale", "alone")
    assert estimator.estimate(1_000 * SECOND_NS) is None


def test_an_answer_that_may_be_off_by_more_than_a_second_and_a_half_does_not_count() -> None:
    estimator = Estimator(["a"])
    estimator.add(exchange(0, delay_ns=3_100_000_000))
    assert estimator.estimate(0) is None
    assert estimator.server("a").verdict == "stale"


def test_the_bound_grows_with_age_by_500_ppm_and_by_the_drifts_own_bound_once_that_is_known() -> None:
    estimator = Estimator(["a"])
    estimator.add(exchange(0, delay_ns=0))
    first, later = estimator.estimate(0), estimator.estimate(100 * SECOND_NS)
    assert first is not None
    assert later is not None
    assert later.bound_ns - first.bound_ns == pytest.approx(50_000_000, abs=2)
    estimator, estimates, _ = run({"a": honest}, drift_ppb=30_000, delays=lan)
    estimate = last(estimates)
    later = estimator.estimate(estimate.at_ns + 100 * SECOND_NS)
    assert later is not None
    # The one that was best before may be another one now: no more than its delay apart.
    grown = 100 * (estimate.drift_bound_ppb + 1_000)
    assert later.bound_ns - estimate.bound_ns == pytest.approx(grown, rel=0.01, abs=30_000)
    assert is_held(later, truth_ns(later.at_ns, 30_000))


def test_forgetting_a_server_begins_anew_with_it() -> None:
    estimator, _, _ = run({"a": honest, "b": honest})
    estimator.forget("a")
    assert (estimator.server("a").verdict, estimator.server("a").samples) == ("unheard", 0)
    assert estimator.server("b").samples == 8


def test_it_is_stable_once_the_drift_is_known_and_answers_are_as_expected_and_not_before() -> None:
    calm = {"a": honest, "b": honest, "c": honest}
    assert not run(calm, rounds=4)[0].stable
    assert run(calm, rounds=60, delays=lan)[0].stable
    assert not run({"a": lambda number: 10**9 if number == 59 else 0}, rounds=60, delays=lan)[0].stable


def test_what_a_server_is_seen_as_is_in_the_views_units() -> None:
    estimator, estimates, truths = run({"a": honest, "b": honest}, drift_ppb=20_000, delays=lan)
    view = estimator.server("a")
    assert view.offset_ns is not None
    assert view.bound_ns is not None
    assert abs(view.offset_ns - truths[-1]) <= view.bound_ns
    assert view.delay_ns is not None
    assert 50_000 <= view.delay_ns < 200_000
    assert view.jitter_ns is not None
    assert 0 < view.jitter_ns < 10**6
    assert view.dispersion_ns is not None
    assert view.drift_ppb == pytest.approx(20_000, abs=view.drift_bound_ppb)
    assert estimator.jitter_ns == last(estimates).jitter_ns > 0


def test_the_common_drift_is_where_most_meet() -> None:
    assert common_drift([None, None]) is None
    assert common_drift([None, Drift(1.0, 0.0, 2.0)]) == Drift(1.0, 0.0, 2.0)
    assert common_drift([Drift(1.0, 0.0, 2.0), Drift(9.0, 8.5, 9.5)]) == Drift(9.0, 8.5, 9.5)
    met = common_drift([Drift(1.0, 0.0, 2.0), Drift(1.5, 0.5, 2.5), Drift(90.0, 80.0, 100.0)])
    assert met is not None
    assert (met.low_ppb, met.high_ppb, met.ppb) == (0.5, 2.0, 2.0)
