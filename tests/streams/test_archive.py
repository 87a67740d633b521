"""Export and import: complete or not at all, the same events under the same log sequences, idempotent."""

# ruff: noqa: ASYNC240 (a test may wait for a small file)

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import AppendConflict, CodecError, SchemaError, SessionExists, StreamError, UnknownSession
from hftlab.events import EventBatch
from hftlab.events.digest import RowDigest
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.archive import ArchiveRows, check_archive
from tests.streams.batches import content, log_sequences, mixed, trades
from tests.streams.servers import managed, until


@pytest.fixture
async def exported(one: RedisStreamManager, tmp_path: Path) -> Path:
    """A file of 3,000 mixed events, in frames and entries, with causes among them."""
    batch = mixed(3_000)
    batch.records["cause"][1:2_000] = (1 << 40) + batch.records["log_sequence"][:1_999]
    batch.records["cause"][1:2_000] += range(1_999)
    await one.append(batch[:2_500], session="day")
    await one.append(batch[2_500:], session="day", format="entries")
    return await one.export_session("day", tmp_path / "day.hftlab")


def digest_of(batch: EventBatch) -> str:
    digest = RowDigest()
    digest.update(batch)
    return digest.hexdigest()


async def test_an_imported_session_is_the_exported_one(
    one: RedisStreamManager, exported: Path, server: EmbeddedServer
) -> None:
    original = await one.range("day")
    async with managed(server) as manager:
        await manager.append(trades(1), session="other")
        info = await manager.import_session(exported)
        before = await one.session("day")
        assert (info.name, info.number, info.events, info.counts) == ("day", 2, 3_000, before.counts)
        assert (info.start_ns, info.end_ns, info.created_ns) == (before.start_ns, before.end_ns, before.created_ns)
        back = await manager.range("day")
        assert log_sequences(back) == log_sequences(original)
        assert digest_of(back) == digest_of(original)


async def test_causes_within_the_session_name_the_imported_events(one: RedisStreamManager, exported: Path) -> None:
    info = await one.import_session(exported, "copy")
    back = await one.range("copy")
    assert info.number == 2
    assert back.records["cause"][5] == (2 << 40) + 4
    assert back.records["cause"][2_500] == 0


async def test_importing_again_does_nothing(one: RedisStreamManager, exported: Path) -> None:
    first = await one.import_session(exported, "copy")
    assert await one.import_session(exported, "copy") == first
    assert await one.import_session(await one.export_session("copy", exported.with_name("again")), "copy") == first


async def test_an_import_does_not_touch_a_session_of_other_events(one: RedisStreamManager, exported: Path) -> None:
    with pytest.raises(SessionExists, match="has other events"):
        await one.import_session(exported)
    assert (await one.session("day")).events == 3_000


async def test_an_interrupted_import_goes_on(server: EmbeddedServer, exported: Path) -> None:
    async with managed(server, frame_rows=20, in_flight=1) as slow:
        task = asyncio.create_task(slow.import_session(exported))
        await until(lambda: slow.statistics().events_appended >= 200)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        written = (await slow.session("day")).events
        assert 200 <= written < 3_000
        async with managed(server, namespace=slow._keys.namespace) as other:
            info = await other.import_session(exported)
            assert info.events == 3_000
            assert other.statistics().events_appended == 3_000 - written
            assert log_sequences(await other.range("day")) == list(range(3_000))


async def test_an_import_that_somebody_writes_into_is_not_passed_off_as_the_original(
    one: RedisStreamManager, exported: Path
) -> None:
    async with managed_twin(one) as slow:
        task = asyncio.create_task(slow.import_session(exported, "copy"))
        await until(lambda: slow.statistics().events_appended >= 200)
        await one.publish(trades(1), session="copy")
        with pytest.raises(AppendConflict, match="somebody else wrote into"):
            await task


def managed_twin(manager: RedisStreamManager) -> RedisStreamManager:
    return RedisStreamManager(
        manager.address, namespace=manager._keys.namespace, frame_rows=20, in_flight=1, progress=False
    )


async def test_an_empty_session_can_be_exported(one: RedisStreamManager, tmp_path: Path) -> None:
    await one.append(EventBatch.empty(), session="empty")
    path = await one.export_session("empty", tmp_path / "empty")
    assert (await one.import_session(path, "copy")).events == 0


async def test_an_export_replaces_an_older_file_and_leaves_no_other(one: RedisStreamManager, exported: Path) -> None:
    before = exported.read_bytes()
    exported.write_bytes(b"old")
    await one.export_session("day", exported)
    assert exported.read_bytes() == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


async def test_a_session_with_lost_events_is_not_exported_as_if_it_were_whole(
    one: RedisStreamManager, tmp_path: Path
) -> None:
    await one.append(trades(5_000), session="day")
    stream = next(iter(one._keys.session(1).streams.values()))
    entries = await one._connections.call("XRANGE", stream, "-", "+")
    for index, words in ((2, "a hole between the log sequences 2048"), (4, "4,096 were found|hole")):
        await one._connections.call("XDEL", stream, entries[index][0])
        with pytest.raises(StreamError, match=words):
            await one.export_session("day", tmp_path / "day")
    assert list(tmp_path.iterdir()) == []


async def test_nowhere_to_write_and_nothing_to_read_are_the_systems_own_errors(
    one: RedisStreamManager, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await one.export_session("day", tmp_path / "missing" / "day")
    with pytest.raises(FileNotFoundError):
        await one.import_session(tmp_path / "missing")
    with pytest.raises(UnknownSession):
        await one.export_session("night", tmp_path / "night")


async def test_a_file_of_a_newer_hftlab_is_refused(one: RedisStreamManager, exported: Path) -> None:
    data = bytearray(exported.read_bytes())
    data[4:6] = (9).to_bytes(2, "little")
    exported.write_bytes(data)
    with pytest.raises(SchemaError, match="schema 9"):
        await one.import_session(exported, "copy")


async def test_a_header_that_is_no_text_is_refused(one: RedisStreamManager, exported: Path) -> None:
    data = exported.read_bytes()
    exported.write_bytes(data.replace(b"\xa3day", b"\xa3d\xffy", 1))
    with pytest.raises(CodecError, match="its header can't be read"):
        await one.import_session(exported, "copy")


async def test_damage_anywhere_is_found_before_anything_is_imported(one: RedisStreamManager, exported: Path) -> None:
    data = exported.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 60)):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        exported.write_bytes(damaged)
        with pytest.raises(CodecError):
            await one.import_session(exported, "copy")
    for end in range(0, len(data), max(1, len(data) // 40)):
        exported.write_bytes(data[:end])
        with pytest.raises(CodecError):
            await one.import_session(exported, "copy")
    exported.write_bytes(data + b"x")
    with pytest.raises(CodecError, match="bytes after its end"):
        await one.import_session(exported, "copy")
    assert [info.name for info in await one.sessions()] == ["day"]


@given(start=st.integers(0, 3_000), frame_rows=st.integers(1, 5_000))
def test_an_archive_can_be_read_from_any_row_on(archive_file: Path, start: int, frame_rows: int) -> None:
    rows = ArchiveRows(check_archive(archive_file), 1)
    found = list(rows.slices(start, frame_rows))
    assert all(0 < len(part) <= frame_rows for _, part in found)
    assert [log for first, part in found for log in range(first, first + len(part))] == list(range(start, 1_500))
    if found:
        assert log_sequences(EventBatch.concat(part for _, part in found)) == list(range(start, 1_500))


@pytest.fixture(scope="module")
def archive_file(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.streams.servers import in_a_loop

    async def make() -> Path:
        async with managed(embedded, frame_rows=100) as manager:
            await manager.append(mixed(1_500), session="day")
            return await manager.export_session("day", tmp_path_factory.mktemp("archive") / "day")

    return in_a_loop(make())


async def test_exported_events_are_those_of_the_session(archive_file: Path) -> None:
    rows = ArchiveRows(check_archive(archive_file), 1)
    whole = EventBatch.concat(part for _, part in rows.slices(0, 1_024))
    assert content(whole) == content(mixed(1_500))
