"""What a handler's parameters and a user's topics mean."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from hftlab.bus.signatures import default_name, make_subscription, read_topics
from hftlab.errors import ValidationError
from hftlab.events import EventType, FillEvent, MarketDataEvent, OrderEvent

ALL = frozenset(EventType)
MARKET = frozenset({EventType.MARKET_DATA})


# -- topics -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "symbol", "types", "pattern"),
    [
        ((), None, ALL, None),
        ((MarketDataEvent,), None, MARKET, None),
        ((EventType.MARKET_DATA,), "BTC", MARKET, "BTC"),
        ((OrderEvent, FillEvent), "BTC*", frozenset({EventType.ORDER, EventType.FILL}), "BTC*"),
        (("market", "order"), None, frozenset({EventType.MARKET_DATA, EventType.ORDER}), None),
        (("market",), None, MARKET, None),
        (("market",), "BTC", MARKET, "BTC"),
        (("market.BTC*",), None, MARKET, "BTC*"),
        (("market.*",), None, MARKET, None),
        (("market.",), None, MARKET, None),
        (("market.BTC.P?RP",), None, MARKET, "BTC.P?RP"),
        (("*",), None, ALL, None),
        (("*.ETH",), None, ALL, "ETH"),
        (("?i*",), None, frozenset({EventType.FILL, EventType.SIGNAL}), None),
        ((), "*", ALL, None),
    ],
)
def test_a_topic_names_types_and_symbols(
    what: tuple[Any, ...], symbol: str | None, types: frozenset[EventType], pattern: str | None
) -> None:
    assert read_topics(what, symbol) == (types, pattern)


@pytest.mark.parametrize("topic", ["trades.BTC", "BTC*", "", ".BTC", "MARKET", "mark", "[m]arket"])
def test_a_topic_of_no_type_lists_those_that_there_are(topic: str) -> None:
    with pytest.raises(ValidationError, match=r"its type one of market, order, fill, signal.*got '"):
        read_topics((topic,), None)


@pytest.mark.parametrize("what", [(int,), (5,), ("market", "BTC"), (MarketDataEvent, "market.BTC")])
def test_what_is_no_type_lists_the_types(what: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError, match="an event type is one of MarketDataEvent, OrderEvent"):
        read_topics(what, None)


@pytest.mark.parametrize("symbol", ["", ["BTC"], 5, ("BTC",)])
def test_symbol_is_one_text(symbol: Any) -> None:
    with pytest.raises(ValidationError, match="symbol= is one symbol or a pattern"):
        read_topics((), symbol)


def test_symbols_are_named_in_one_place() -> None:
    with pytest.raises(ValidationError, match=r"names its symbols itself: drop symbol='ETH'"):
        read_topics(("market.BTC",), "ETH")


# -- how a handler is called ------------------------------------------------------------------------------------------


def by_event(event: object) -> None: ...
def by_other_name(quote: object) -> None: ...
def by_fields(price: float, volume: float) -> None: ...
def by_one_field(price: float) -> None: ...
def with_default(price: float, scale: float = 2.0) -> None: ...
def with_optional_keyword(price: float, *, scale: float = 2.0) -> None: ...
def all_defaults(event: object = None) -> None: ...
def anything(*args: object, **more: object) -> None: ...
def shared(symbol: str, timestamp: int) -> None: ...


class Callable1:
    def __call__(self, price: float) -> None: ...

    def method(self, bid: float, ask: float) -> None: ...

    @classmethod
    def of_class(cls, event: object) -> None: ...

    @staticmethod
    def static(volume: float) -> None: ...


@pytest.mark.parametrize(
    ("handler", "mode", "fields"),
    [
        (by_event, "event", ()),
        (by_other_name, "event", ()),
        (by_fields, "fields", ("price", "volume")),
        (by_one_field, "fields", ("price",)),
        (with_default, "fields", ("price",)),
        (with_optional_keyword, "fields", ("price",)),
        (all_defaults, "event", ()),
        (anything, "event", ()),
        (lambda price: None, "fields", ("price",)),
        (lambda x: None, "event", ()),
        (Callable1(), "fields", ("price",)),
        (Callable1().method, "fields", ("bid", "ask")),
        (Callable1.of_class, "event", ()),
        (Callable1.static, "fields", ("volume",)),
        (functools.partial(by_fields, 1.0), "fields", ("volume",)),
        (functools.partial(by_fields, volume=1.0), "fields", ("price",)),
        ([].append, "event", ()),
        (deque().append, "event", ()),
        (print, "event", ()),
        ({}.update, "event", ()),
        (functools.lru_cache(by_fields), "fields", ("price", "volume")),
    ],
)
def test_parameters_say_how_a_handler_is_called(
    handler: Callable[..., Any], mode: str, fields: tuple[str, ...]
) -> None:
    made = make_subscription(handler, MarketDataEvent)
    assert (made.mode, made.fields) == (mode, fields)


def test_fields_are_those_that_all_its_types_share() -> None:
    assert make_subscription(shared).mode == "fields"
    assert make_subscription(by_one_field, MarketDataEvent, OrderEvent).fields == ("price",)
    with pytest.raises(ValidationError, match=r"all its event types have .*topic\); got price"):
        make_subscription(by_one_field, MarketDataEvent, FillEvent, mode="fields")
    # One parameter that not all have is a name like any other.
    assert make_subscription(by_one_field, MarketDataEvent, FillEvent).mode == "event"


@pytest.mark.parametrize("mode", ["event", "batch"])
def test_a_mode_can_be_told(mode: Any) -> None:
    assert make_subscription(by_one_field, MarketDataEvent, mode=mode).mode == mode
    with pytest.raises(ValidationError, match=f"a handler of mode '{mode}' has one parameter.*got .price, volume"):
        make_subscription(by_fields, MarketDataEvent, mode=mode)


def test_the_fields_that_there_are_are_listed_in_the_order_of_the_record() -> None:
    with pytest.raises(
        ValidationError, match=r"\(timestamp, received, .*, price, volume, .*event_id, topic\); got prize"
    ):
        make_subscription(lambda prize: None, MarketDataEvent, mode="fields")
    with pytest.raises(ValidationError, match=r"got \(price, volumes\)"):
        make_subscription(lambda price, volumes: None, MarketDataEvent)


def test_a_handler_takes_something() -> None:
    with pytest.raises(ValidationError, match=r"has one parameter, the event.*got \(\)"):
        make_subscription(lambda: None, MarketDataEvent)
    with pytest.raises(ValidationError, match="got no parameter"):
        make_subscription(lambda: None, MarketDataEvent, mode="fields")


def test_keyword_only_parameters_must_have_a_default() -> None:
    def handler(price: float, *, scale: float) -> None: ...

    with pytest.raises(ValidationError, match="keyword-only ones without a default: scale"):
        make_subscription(handler, MarketDataEvent)


@pytest.mark.parametrize("handler", [None, 5, "handler", MarketDataEvent, list])
def test_a_handler_is_a_function(handler: Any) -> None:
    with pytest.raises(ValidationError, match="a handler is a function"):
        make_subscription(handler, MarketDataEvent)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "numba"}, "mode is 'event', 'fields', 'batch' or 'jit'; got 'numba'"),
        ({"batch_rows": 0}, "batch_rows is 1 to 65,536 rows; got 0"),
        ({"batch_rows": 65_537}, "got 65537"),
        ({"batch_rows": True}, "got True"),
        ({"batch_rows": 1.5}, "got 1.5"),
        ({"where": True}, "where= is a function"),
        ({"name": ""}, "name= is a text"),
        ({"name": 5}, "name= is a text"),
    ],
)
def test_options_are_checked(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make_subscription(by_event, **options)


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_tell_handlers_apart_and_stay_the_same_when_a_cell_runs_again() -> None:
    def cell() -> Callable[..., None]:
        def handler(event: object) -> None: ...

        return handler

    assert default_name(cell(), MARKET, None) == default_name(cell(), MARKET, None)
    names = {
        default_name(cell(), MARKET, None),
        default_name(cell(), MARKET, "BTC"),
        default_name(cell(), ALL, None),
        default_name(by_event, MARKET, None),
        default_name(Callable1(), MARKET, None),
        default_name(Callable1().method, MARKET, None),
        default_name([].append, MARKET, None),
    }
    assert len(names) == 7


def test_wrapped_handlers_go_by_what_they_wrap() -> None:
    plain = default_name(by_fields, MARKET, None)
    assert default_name(functools.partial(by_fields, 1.0), MARKET, None) == plain
    assert default_name(functools.partial(functools.partial(by_fields, 1.0)), MARKET, None) == plain
    assert default_name(functools.lru_cache(by_fields), MARKET, None) == plain
    assert plain == f"{__name__}.by_fields:market.*"
