"""How sources number: the rules that are there, and one of a user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hftlab.errors import ValidationError
from hftlab.events import Flags, NumberRule, Source
from hftlab.events.records import Rows
from hftlab.sequence import Ordering, Sequencer, rules
from hftlab.sequence.stage import OrderStage
from tests.sequence.messages import stream_of
from tests.sequence.playing import Player


@pytest.fixture(autouse=True)
def forgotten_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(rules, "_RULES", dict(rules._RULES))


def played(rule: str, numbers: list[int], **fields: Any) -> Player:
    """Messages of one source with these numbers, all the way through; ``fields`` are the same for all."""
    source = Source("nyx", "trades", "A", rule)
    stream = stream_of([{"source": 1, "sequence": number, **fields} for number in numbers], (source,))
    player = Player(stream, Ordering())
    player.play()
    return player


def kinds(player: Player) -> list[tuple[str, int, int]]:
    return player.outcome.kinds


def test_there_is_a_rule_for_every_name_that_readers_give() -> None:
    assert rules.names() == sorted(rule.value for rule in NumberRule)
    for rule in NumberRule:
        assert rules.find(Source("nyx", "ticks", "", rule.value)).name == rule.value


def test_by_plus_one_a_jump_is_a_loss() -> None:
    player = played("plus-one", [1, 2, 4])
    assert kinds(player) == [("open", 3, 3), ("lost", 3, 3)]


def test_by_range_a_message_covers_its_span() -> None:
    whole = played("range", [3, 6, 9], span=3)
    assert kinds(whole) == []
    broken = played("range", [3, 9], span=3)
    assert kinds(broken) == [("open", 4, 6), ("lost", 4, 6)]


def test_by_plus_one_a_span_means_nothing() -> None:
    player = played("plus-one", [1, 2, 3], span=3)
    assert (player.outcome.rows, kinds(player)) == ([0, 1, 2], [])


def test_a_shared_counter_may_jump_but_not_fall() -> None:
    player = played("shared", [5, 9, 7, 40])
    assert (player.outcome.rows, kinds(player)) == ([0, 1, 3], [])
    assert player.outcome.set_aside == [(2, "late")]


def test_what_has_no_numbers_is_numbered_on_arrival() -> None:
    player = played("none", [-1, -1, -1])
    assert [delivery.sequence for delivery in player.outcome.deliveries] == [0, 1, 2]


def test_built_in_rules_say_what_rows_cover() -> None:
    records = np.zeros(3, [("sequence", "i8"), ("span", "u4")])
    records["sequence"], records["span"] = [3, 5, 9], [1, 2, 4]
    covered = {}
    for name in ("plus-one", "range", "shared"):
        first, last = rules.find(Source("nyx", "x", "", name)).cover(records)
        covered[name] = (first.tolist(), last.tolist())
    assert covered == {
        "plus-one": ([3, 5, 9], [3, 5, 9]),
        "range": ([3, 4, 6], [3, 5, 9]),
        "shared": ([3, 5, 9], [3, 5, 9]),
    }


# -- one of a user's own ----------------------------------------------------------------------------------------------


def tens(records: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """10, 20, 30 …"""
    return records["sequence"] // 10, records["sequence"] // 10


def test_a_rule_of_the_users_says_which_numbers_are_missing() -> None:
    assert rules.register("tens", dense=True)(tens) is tens
    assert "tens" in rules.names()
    player = played("tens", [10, 30, 20, 40, 70])
    assert player.outcome.rows == [0, 2, 1, 3, 4]
    # Gaps are told in what the rule says that messages cover.
    assert kinds(player) == [("open", 2, 2), ("filled", 2, 2), ("open", 5, 6), ("lost", 5, 6)]


def test_a_rule_that_is_not_dense_allows_jumps() -> None:
    rules.register("tens", dense=False)(tens)
    player = played("tens", [10, 30, 20, 40])
    assert (player.outcome.rows, kinds(player)) == ([0, 1, 3], [])
    assert player.outcome.set_aside == [(2, "late")]


def test_a_rule_of_the_users_stands_beside_others_in_one_batch() -> None:
    rules.register("tens", dense=True)(tens)
    sources = (Source("nyx", "a", "", "tens"), Source("nyx", "b", "", "range"), Source("nyx", "c", "", "plus-one"))
    messages = [
        {"source": 1, "sequence": 10},
        {"source": 2, "sequence": 4, "span": 4},
        {"source": 3, "sequence": 1},
        {"source": 1, "sequence": 30},
        {"source": 2, "sequence": 8, "span": 4},
        {"source": 3, "sequence": 2},
        {"source": 1, "sequence": 20},
    ]
    player = Player(stream_of(messages, sources), Ordering())
    player.play()
    assert player.outcome.rows == [0, 1, 2, 4, 5, 6, 3]
    assert kinds(player) == [("open", 2, 2), ("filled", 2, 2)]


def test_a_rule_is_given_the_records_of_its_source_alone() -> None:
    given: list[Rows] = []

    def rule(records: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        given.append(records.copy())
        return records["sequence"], records["sequence"]

    rules.register("noting", dense=True)(rule)
    sources = (Source("nyx", "a", "", "noting"), Source("nyx", "b", "", "plus-one"))
    messages = [{"source": 1 + at % 2, "sequence": 1 + at // 2} for at in range(6)]
    Player(stream_of(messages, sources), Ordering()).play()
    assert [records["source"].tolist() for records in given] == [[1, 1, 1]]
    assert given[0]["sequence"].tolist() == [1, 2, 3]


def test_registering_a_name_again_replaces_its_rule_for_sequencers_made_from_then_on() -> None:
    rules.register("mine", dense=True)(tens)
    assert kinds(played("mine", [10, 20])) == []

    @rules.register("mine", dense=True)
    def ones(records: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return records["sequence"], records["sequence"]

    assert kinds(played("mine", [10, 20])) == [("open", 11, 19), ("lost", 11, 19)]


@pytest.mark.parametrize(
    "returned",
    [
        None,
        7,
        (np.zeros(2, np.int64),),
        (np.zeros(1, np.int64), np.zeros(2, np.int64)),
        (np.zeros(2), np.zeros(2, np.int64)),
        (np.zeros((2, 1), np.int64), np.zeros(2, np.int64)),
    ],
)
def test_a_rule_that_returns_something_else_is_told_what_it_should(returned: Any) -> None:
    rules.register("wrong", dense=True)(lambda records: returned)
    with pytest.raises(ValidationError, match="returns two integer arrays of the length of its"):
        played("wrong", [1, 2])


@pytest.mark.parametrize("name", [rule.value for rule in NumberRule])
def test_built_in_rules_cant_be_replaced(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"rule '{name}' is built in; give yours another name"):
        rules.register(name, dense=True)


def test_a_rule_that_nobody_registered_is_refused_with_what_to_do() -> None:
    stream = stream_of([{"source": 1, "sequence": 1}], (Source("nyx", "trades", "A", "primes"),))
    told = r"nyx/trades/A numbers by the rule 'primes', which nobody registered; .*plus-one.*rules\.register"
    for made in (Sequencer, OrderStage):
        tables = stream.tables()
        with pytest.raises(ValidationError, match=told):
            made(Ordering(), *tables).process(stream.batch(tables))
    # It is refused when it appears, and taken when it was registered meanwhile.
    symbols, sources = stream_of([], ()).tables()
    sequencer = Sequencer(Ordering(), symbols, sources)
    with pytest.raises(ValidationError, match=told):
        sequencer.process(stream.batch())
    rules.register("primes", dense=True)(tens)
    assert len(sequencer.process(stream.batch()).batch) == 1


def test_heartbeats_under_a_users_rule_reveal_what_is_missing() -> None:
    rules.register("tens", dense=True)(tens)
    source = Source("nyx", "trades", "A", "tens")
    messages: list[dict[str, Any]] = [
        {"source": 1, "sequence": 10},
        {"source": 1, "sequence": 30, "span": 0, "flags": int(Flags.HEARTBEAT)},
    ]
    player = Player(stream_of(messages, (source,)), Ordering())
    player.play()
    assert kinds(player) == [("open", 2, 3), ("lost", 2, 3)]


@pytest.mark.parametrize("rule", ["plus-one", "range"])
def test_heartbeats_mean_the_same_beside_a_users_rule(rule: str) -> None:
    rules.register("tens", dense=True)(tens)
    messages: list[dict[str, Any]] = [
        {"source": 1, "sequence": 10},
        {"source": 2, "sequence": 1},
        {"source": 2, "sequence": 3, "span": 0, "flags": int(Flags.HEARTBEAT)},
        {"source": 2, "sequence": 2},
        {"source": 2, "sequence": 3},
    ]
    sources = (Source("nyx", "a", "", "tens"), Source("nyx", "b", "", rule))
    player = Player(stream_of(messages, sources), Ordering())
    player.play()
    assert kinds(player) == [("open", 2, 3), ("filled", 2, 2), ("filled", 3, 3)]
    assert player.outcome.rows == [0, 1, 2, 3, 4]
