"""Durability: read back from the server, set, and said in plain words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hftlab.errors import ValidationError
from hftlab.streams import Durability, EmbeddedServer, RedisStreamManager
from tests.streams.batches import trades
from tests.streams.fakes import fake_server
from tests.streams.servers import BINARIES, binary_of, managed


@pytest.fixture(params=BINARIES)
async def own(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RedisStreamManager]:
    """A manager on a server whose configuration the test may change."""
    async with (
        EmbeddedServer(tmp_path / ".hftlab", binary=binary_of(request.param)) as server,
        managed(server) as manager,
    ):
        yield manager


async def test_the_embedded_server_logs_every_write_and_syncs_once_a_second(own: RedisStreamManager) -> None:
    found = await own.durability()
    assert (found.appendonly, found.appendfsync, found.save) == (True, "everysec", "")
    assert (found.aof_enabled, found.write_ok, found.evicts) == (True, True, False)
    assert "kill -9 yes" in found.in_words
    assert "power loss all but the last 1 to 2 s" in found.in_words
    assert found.in_words in repr(own)
    assert "everysec" in own._repr_html_()


async def test_what_is_set_is_read_back_and_shown(own: RedisStreamManager) -> None:
    found = await own.set_durability(appendfsync="always", save="3600 1 60 1000")
    assert (found.appendfsync, found.save) == ("always", "3600 1 60 1000")
    assert repr(found) == "Durability(an event that append() acknowledged survives: kill -9 yes, power loss yes)"
    assert "power loss yes" in repr(own)
    assert (await own.durability()) == found


async def test_a_log_that_is_switched_on_is_complete_when_the_call_returns(own: RedisStreamManager) -> None:
    off = await own.set_durability(appendonly=False)
    assert (off.appendonly, off.aof_enabled) == (False, False)
    assert off.in_words == "an event that append() acknowledged survives: kill -9 no, power loss no"
    await own.append(trades(20_000), session="day")
    on = await own.set_durability(appendonly=True)
    assert (on.appendonly, on.aof_enabled, on.aof_rewriting) == (True, True, False)
    assert "kill -9 yes" in on.in_words


async def test_snapshots_alone_survive_as_far_as_they_go(own: RedisStreamManager) -> None:
    found = await own.set_durability(appendonly=False, save="60 1")
    assert "kill -9 what the last snapshot has" in found.in_words


@pytest.mark.parametrize(
    "wrong", [{"appendfsync": "sometimes"}, {"save": "60"}, {"save": "a b"}, {"save": 60}, {"appendfsync": ""}]
)
async def test_settings_that_no_server_knows_are_refused(one: RedisStreamManager, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        await one.set_durability(**wrong)  # type: ignore[arg-type]


async def test_a_server_that_does_not_let_us_ask_is_unknown_and_no_error() -> None:
    forbidden = {b"CONFIG": b"-ERR unknown command 'CONFIG'\r\n", b"INFO": b"-NOPERM no permissions\r\n"}
    async with (
        fake_server(lambda command: forbidden.get(command[0], b"+OK\r\n")) as url,
        RedisStreamManager(url) as manager,
    ):
        found = await manager.durability()
        assert found == Durability()
        assert found.in_words == "an event that append() acknowledged survives: kill -9 unknown, power loss unknown"
        assert "unknown" in manager._repr_html_()


@pytest.mark.parametrize(
    ("durability", "words"),
    [
        (
            Durability(appendonly=True, appendfsync="no", aof_enabled=True),
            "power loss what the system had written by then",
        ),
        (Durability(appendonly=True, appendfsync="always", aof_enabled=True, write_ok=False), "BUT its last write"),
        (Durability(appendonly=True, appendfsync="always", evicts=True), "BUT it throws keys away"),
        (Durability(appendonly=True, appendfsync="always", aof_enabled=False, save=""), "kill -9 no"),
        (Durability(aof_enabled=True), "power loss unknown"),
    ],
)
def test_the_words_say_what_is_wrong(durability: Durability, words: str) -> None:
    assert words in durability.in_words


async def test_a_server_that_throws_keys_away_is_warned_of(own: RedisStreamManager) -> None:
    await own._connections.call("CONFIG", "SET", "maxmemory", "1gb")
    await own._connections.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert "throws keys away" in (await own.durability()).in_words
