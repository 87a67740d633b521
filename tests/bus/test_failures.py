"""What is kept of failures, and how they are raised."""

from __future__ import annotations

import pytest

from hftlab.bus.failures import KEPT, FailureLog
from hftlab.bus.signatures import make_subscription
from hftlab.errors import HandlerFailed
from hftlab.events import Event, SignalEvent

EVENT = SignalEvent(symbol="BTC", signal_type="s")


def handler(event: Event) -> None: ...


def raised(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_the_first_is_raised_once_and_says_how_many_followed() -> None:
    log, subscription = FailureLog(), make_subscription(handler, name="it")
    log.raise_first()
    for text in ("one", "two", "three"):
        log.record(subscription, EVENT, raised(text))
    with pytest.raises(HandlerFailed, match=r"it raised ValueError: one\n.*\(2 more failures since") as caught:
        log.raise_first()
    assert (caught.value.handler, caught.value.event, str(caught.value.__cause__)) == ("it", EVENT, "one")
    log.raise_first()
    log.record(subscription, EVENT, raised("four"))
    with pytest.raises(HandlerFailed, match=r"it raised ValueError: four\nwhile it handled .*'BTC'.*\)\. Nobody"):
        log.raise_first()
    assert (log.count, subscription.failed) == (4, 4)


def test_one_more_is_one_failure() -> None:
    log, subscription = FailureLog(), make_subscription(handler, name="it")
    log.record(subscription, EVENT, raised("one"))
    log.record(subscription, EVENT, raised("two"))
    with pytest.raises(HandlerFailed, match=r"\(1 more failure since"):
        log.raise_first()


def test_the_latest_hundred_are_kept_and_all_are_counted() -> None:
    log, subscription = FailureLog(), make_subscription(handler, name="it")
    for number in range(KEPT + 50):
        log.record(subscription, EVENT, raised(str(number)))
    assert [str(failure.error) for failure in log] == [str(number) for number in range(50, KEPT + 50)]
    assert (len(log), log.count) == (KEPT, KEPT + 50)


def test_reprs_are_short() -> None:
    log, subscription = FailureLog(), make_subscription(handler, name="it")
    assert repr(log) == "FailureLog(no failures)"
    log.record(subscription, EVENT, raised("wanted"))
    assert repr(log) == "FailureLog(1 failures)"
    assert repr(next(iter(log))) == "Failure(it: ValueError: wanted)"


def test_a_traceback_that_begins_elsewhere_is_kept_as_it_is() -> None:
    log, subscription = FailureLog(), make_subscription(handler, name="it")
    log.record(subscription, EVENT, raised("wanted"))
    assert "in raised" in next(iter(log)).traceback
    log.record(subscription, EVENT, ValueError("never raised"))
    assert "never raised" in list(log)[-1].traceback
