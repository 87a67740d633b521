"""A frame gives back the rows that it was made of, anywhere, and nothing else passes for one."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from hftlab.errors import CodecError, SchemaError, ValidationError
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    Flags,
    Kind,
    MarketDataEvent,
    Side,
    Source,
    SourceTable,
    SymbolTable,
)
from hftlab.events.frames import MAX_ROWS, FrameInfo, decode_frame, encode_frame, peek_frame, verify_frame
from hftlab.events.records import MAX_LOG_SEQUENCE, blank
from tests.events.forgery import looked_at, opened, sealed, with_names, with_words, words_of
from tests.events.strategies import events, identical, one_type_batches


def trades(count: int = 5, symbols: int = 2) -> EventBatch:
    """Trades with a number of their own each, in a frame's order."""
    made = [
        MarketDataEvent(
            symbol=f"S{index % symbols}", price=1.5 + index, volume=2.0, kind=Kind.TRADE, side=Side.BUY,
            received=10**18 + 7 * index, timestamp=10**18, sequence=index,
            source=Source("venue", "trade", f"S{index % 2}"),
        )
        for index in range(count)
    ]  # fmt: skip
    batch = EventBatch.from_events(made)
    batch.records["log_sequence"] = np.arange(count)
    return batch


FRAME = encode_frame(trades())


@given(one_type_batches(), st.integers(0, MAX_LOG_SEQUENCE - MAX_ROWS), st.integers(0, 1000))
def test_rows_come_back_to_the_bit_with_the_base_added(batch: EventBatch, base: int, session: int) -> None:
    back = decode_frame(encode_frame(batch), base=base, session_number=session)
    assert back.session_number == session
    assert back.records["log_sequence"].tolist() == [base + log for log in batch.records["log_sequence"].tolist()]
    assert back.records.flags.writeable
    back.records["log_sequence"] -= base
    assert EventBatch(back.records, back.symbols, back.sources) == batch


@given(one_type_batches())
def test_events_come_back_as_they_were(batch: EventBatch) -> None:
    assert all(map(identical, batch, decode_frame(encode_frame(batch))))


@given(one_type_batches())
def test_the_header_tells_type_count_and_the_bounds_of_arrival(batch: EventBatch) -> None:
    received = batch.records["received"].tolist()
    frame = encode_frame(batch)
    assert peek_frame(frame) == FrameInfo(EventType(batch.records["type"][0]), len(batch), min(received), max(received))
    assert peek_frame(frame[:48]) == peek_frame(frame)


@given(st.lists(one_type_batches(most=4), min_size=1, max_size=3))
def test_frames_decode_into_tables_that_are_shared(batches: list[EventBatch]) -> None:
    symbols, sources = SymbolTable(["elsewhere"]), SourceTable([Source("elsewhere")])
    for batch in batches:
        back = decode_frame(encode_frame(batch), symbols=symbols, sources=sources)
        assert back.symbols is symbols
        assert back.sources is sources
        assert back == batch


def test_a_frame_holds_the_names_that_its_rows_use_and_no_others() -> None:
    batch = trades(6, symbols=3)
    part = batch.where(batch.records["symbol"] == 1)
    assert list(decode_frame(encode_frame(part)).symbols) == ["S1"]
    assert list(decode_frame(encode_frame(batch)).symbols) == ["S0", "S1", "S2"]
    many = SymbolTable(f"X{index}" for index in range(5_000))
    rows = blank(3, EventType.FILL)
    rows["order_id"] = b"1"
    rows["symbol"] = [4_999, 7, 4_999]
    assert decode_frame(encode_frame(EventBatch(rows, many))).column("symbol") == ["X4999", "X7", "X4999"]


@pytest.mark.parametrize("count", [1, 2, 1_023, 1_024, 1_025, MAX_ROWS])
def test_a_frame_may_have_1_to_65536_rows(count: int) -> None:
    rows = blank(count, EventType.MARKET_DATA)
    rows["log_sequence"] = np.arange(count)
    rows["price"] = np.random.default_rng(count).normal(size=count)
    batch = EventBatch(rows, SymbolTable(["A"]))
    assert decode_frame(encode_frame(batch)) == batch


def test_rows_that_lie_apart_in_memory_are_framed_like_any_others() -> None:
    batch = trades(8)
    assert decode_frame(encode_frame(batch[::2])) == batch[::2]
    assert decode_frame(encode_frame(batch[2:5])) == batch[2:5]
    frozen = trades(8)
    frozen.records.flags.writeable = False
    assert encode_frame(frozen) == encode_frame(batch)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_making_a_frame_leaves_the_rows_alone(count: int) -> None:
    batch = trades(count + 3)
    before = batch.records.tobytes()
    encode_frame(_with_log(batch[3:], list(range(count))))
    encode_frame(batch[3:].where(np.arange(count) == 0))
    assert batch.records[:3].tobytes() == before[: 3 * 128]
    assert [event.source for event in batch] == [event.source for event in trades(count + 3)]


GOLDEN = bytes.fromhex(
    "48464c460100010103000000330000006400000000000000000064a7b3b6e00d0e0064a7b3b6e00db5024e2196cf5b689292a25330a25331"
    "9294a576656e7565a57472616465a25330a46e6f6e6594a576656e7565a57472616465a25331a46e6f6e6528b52ffd608000d50200440200"
    "0064a7b3b6e00d070e000100020001000101010100f83f04400c00f87f020100000000190040c100310870810941652b4e008cc1200801ca"
    "ad8c782a1f1802d4038e2de50a60000800030612038cb8cc401690dd81850b"
)


def test_a_frame_that_was_written_once_is_read_for_ever() -> None:
    assert decode_frame(GOLDEN, base=40, session_number=3) == EventBatch(
        _with_log(trades(3), [40, 42, 43]).records, trades(3).symbols, trades(3).sources, session_number=3
    )


def _with_log(batch: EventBatch, log: list[int]) -> EventBatch:
    batch.records["log_sequence"] = log
    return batch


# -- what encode_frame refuses ---------------------------------------------------------------------------------------


def test_a_frame_of_no_rows_of_several_types_or_of_too_many_is_refused() -> None:
    mixed = EventBatch.concat([trades(), EventBatch(blank(1, EventType.SIGNAL), SymbolTable(["A"]))])
    for batch in (EventBatch.empty(), mixed, EventBatch(blank(MAX_ROWS + 1, EventType.FILL), SymbolTable(["A"]))):
        with pytest.raises(ValidationError, match="1 to 65,536 rows of one type"):
            encode_frame(batch)


@pytest.mark.parametrize("log", [[-1, 0, 1], [0, 1, MAX_ROWS], [2, 1, 3], [1 << 62, 1, 2]])
def test_log_sequences_that_fall_or_lie_outside_a_frame_are_refused(log: list[int]) -> None:
    with pytest.raises(ValidationError, match="never falls"):
        encode_frame(_with_log(trades(3), log))


@pytest.mark.parametrize("log", [[0, 0, 0], [0, 7, MAX_ROWS - 1], [5, 5, 6]])
def test_log_sequences_with_gaps_come_back(log: list[int]) -> None:
    batch = _with_log(trades(3), log)
    assert decode_frame(encode_frame(batch)) == batch


def test_the_longest_names_of_as_many_as_there_are_rows_fit() -> None:
    longest = "\U0001f680" * 64
    for count in (1, 7, 100):
        made = [
            MarketDataEvent(
                symbol=chr(0x4E00 + index) * 21 + "x",
                source=Source(longest, longest, longest, chr(0x20000 + index) * 64),
            )
            for index in range(count)
        ]
        batch = EventBatch.from_events(made)
        assert decode_frame(encode_frame(batch)) == batch


# -- what decode_frame refuses ---------------------------------------------------------------------------------------


def test_any_byte_that_changes_is_noticed() -> None:
    for position in range(len(FRAME)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(FRAME)
            damaged[position] ^= change
            for read in (decode_frame, verify_frame):
                with pytest.raises(CodecError):
                    read(bytes(damaged))
    verify_frame(FRAME)


def test_a_frame_that_was_cut_or_has_more_after_it_is_refused() -> None:
    for end in range(len(FRAME)):
        with pytest.raises(CodecError):
            decode_frame(FRAME[:end])
    for more in (b"\0", FRAME):
        for read in (decode_frame, verify_frame):
            with pytest.raises(CodecError, match="cut or damaged"):
                read(FRAME + more)


@given(st.binary(max_size=200))
@example(b"")
@example(b"HFLF")
@example(b"HFLF" + b"\xff" * 200)
def test_any_bytes_are_a_codec_error(data: bytes) -> None:
    for given_bytes in (data, FRAME[:4] + data, FRAME[:8] + data, FRAME[:48] + data):
        with pytest.raises(CodecError):
            decode_frame(given_bytes)
        try:
            info = peek_frame(given_bytes)
        except CodecError:
            continue
        assert 0 < info.rows <= MAX_ROWS


HEADERS: list[dict[str, Any]] = [
    {"magic": b"HFLG"},
    {"schema": 0},
    {"type": 0},
    {"type": 5},
    {"type": 255},
    {"type": EventType.ORDER},
    {"codec": 0},
    {"codec": 2},
    {"count": 0},
    {"count": 1},
    {"count": 4},
    {"count": 6},
    {"count": MAX_ROWS},
    {"count": MAX_ROWS + 1},
    {"count": 0xFFFFFFFF},
    {"names_bytes": 0},
    {"names_bytes": 1 << 24},
    {"names_bytes": 0xFFFFFFFF},
    {"rows_bytes": 0},
    {"rows_bytes": 0xFFFFFFFF},
    {"reserved": 1},
    {"earliest": 0},
    {"earliest": -(1 << 63)},
    {"latest": (1 << 63) - 1},
    {"checksum": 0},
]


@pytest.mark.parametrize("changes", HEADERS, ids=str)
def test_a_header_that_lies_is_refused_though_its_checksum_is_right(changes: dict[str, Any]) -> None:
    header, names, body = opened(FRAME)
    assert sealed(header, names, body) == FRAME
    with pytest.raises(CodecError) as caught:
        decode_frame(sealed(header, names, body, **changes))
    assert not isinstance(caught.value, SchemaError)


@pytest.mark.parametrize("schema", [2, 0xFFFF])
def test_a_newer_schema_is_told_apart_and_says_what_to_do(schema: int) -> None:
    header, names, body = opened(FRAME)
    newer = sealed(header, names, body, schema=schema)
    for read in (decode_frame, peek_frame):
        with pytest.raises(SchemaError, match="upgrade with: pip install -U hftlab"):
            read(newer)


@pytest.mark.parametrize("base", [-1, MAX_LOG_SEQUENCE, MAX_LOG_SEQUENCE - MAX_ROWS + 1])
def test_a_base_that_no_session_has_is_refused(base: int) -> None:
    with pytest.raises(CodecError, match="base"):
        decode_frame(FRAME, base=base)


NAMES: list[Any] = [
    b"",
    b"\xc1",
    b"\xc0",
    None,
    [],
    [["S0", "S1"]],
    [["S0", "S1"], [], []],
    [["S0"], [["venue", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", "S1"], [["venue", "trade", "S0", "none"]]],
    [["S0", "S1"], [["venue", "trade", "S0"], ["venue", "trade", "S1", "none"]]],
    [["S0", ""], [["venue", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", "x" * 65], [["venue", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", "日" * 30], [["venue", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", "a\0"], [["venue", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", 7], [["venue", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", "S1"], [["", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", "S1"], [["a\nb", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", "S1"], [["v" * 65, "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0"] * 6, [["venue", "trade", "S0", "none"], ["venue", "trade", "S1", "none"]]],
    [["S0", "S1"], [["venue", "trade", f"S{index}", "none"] for index in range(6)]],
    msgspec.msgpack.encode([["S0", "S1"], []]) + b"\0",
    b"\x92" * 200,
    b"\x92\xdd\xff\xff\xff\xff" + b"\xa0" * 200,
    b"\x92\xdd\x00\x00\x00\xc8" + b"\xa0" * 200,
    b"\x92\xa2\xff\xfe\xa1a",
    b"\x92\x92\xa2\xff\xfe\xa1a\x90",
    b"\x92\xdb\xff\xff\xff\xff",
]


@pytest.mark.parametrize("names", NAMES, ids=[repr(names)[:40] for names in NAMES])
def test_names_that_are_not_names_are_refused_and_leave_the_tables_alone(names: Any) -> None:
    symbols, sources = SymbolTable(), SourceTable()
    with pytest.raises(CodecError):
        decode_frame(with_names(FRAME, names), symbols=symbols, sources=sources)
    assert len(symbols) == 0
    assert len(sources) == 1


def test_names_that_are_told_twice_mean_the_same() -> None:
    _, names, _ = opened(FRAME)
    _, sources = msgspec.msgpack.decode(names)
    batch = decode_frame(with_names(FRAME, [["S0", "S0"], sources]))
    assert batch.column("symbol") == ["S0"] * 5
    assert list(batch.symbols) == ["S0"]


def test_tables_without_room_for_a_frames_names_are_an_error_not_a_wrong_name() -> None:
    symbols = SymbolTable(["a", "b"])
    symbols._limit = 3
    with pytest.raises(CodecError, match="no room"):
        decode_frame(FRAME, symbols=symbols)


def rows_frame(event_type: EventType) -> bytes:
    """A frame of three rows of a type."""
    rows = blank(3, event_type)
    for name, text in {"order_id": b"abc", "signal_type": b"abc", "strategy_id": b""}.items():
        if name in (rows.dtype.names or ()):
            rows[name] = text
    for name in ("direction", "order_type", "quantity"):
        if name in (rows.dtype.names or ()):
            rows[name] = 1
    return encode_frame(EventBatch(rows, SymbolTable(["A"])))


ROWS: list[tuple[EventType, str, Any]] = [
    *((event_type, "type", value) for event_type in EventType for value in (0, 5, 255, event_type % 4 + 1)),
    *((event_type, "symbol", value) for event_type in EventType for value in (1, 0xFFFFFFFF)),
    *((event_type, "source", value) for event_type in EventType for value in (1, 0xFFFF)),
    *((event_type, "priority", value) for event_type in EventType for value in (5, 255)),
    *((event_type, "clock", value) for event_type in EventType for value in (4, 255)),
    *((EventType.FILL, "log_sequence", value) for value in (-3, 1, MAX_ROWS, 1 << 62, (1 << 63) - 1, -(1 << 63))),
    *((EventType.MARKET_DATA, "kind", value) for value in (4, 255)),
    *((EventType.MARKET_DATA, "side", value) for value in (2, 127, -2, -128)),
    *((EventType.ORDER, "direction", value) for value in (0, 2, -2, 127, -127, -128)),
    *((EventType.ORDER, "order_type", value) for value in (0, 5, 255)),
    *(
        (event_type, "order_id", text)
        for event_type in (EventType.ORDER, EventType.FILL)
        for text in (b"", b"\xff", b"a\0b", b"\0a", b"\xc3", b"\xed\xa0\x80", b"x" * 39 + b"\xc3", b"\0" * 39 + b"x")
    ),
    *((EventType.SIGNAL, "signal_type", text) for text in (b"", b"\x80", b"a\0b", b"x" * 23 + b"\xf0")),
    *((EventType.SIGNAL, "strategy_id", text) for text in (b"\xff", b"\0a")),
]


@pytest.mark.parametrize(("event_type", "field", "value"), ROWS)
def test_a_row_that_would_break_something_is_refused_though_its_checksum_is_right(
    event_type: EventType, field: str, value: Any
) -> None:
    frame = rows_frame(event_type)
    words = words_of(frame)
    assert decode_frame(with_words(frame, words)) == decode_frame(frame)
    rows = np.ascontiguousarray(words.T).view(blank(0, event_type).dtype).reshape(-1)
    rows[field][1] = value
    with pytest.raises(CodecError):
        decode_frame(with_words(frame, rows.view(np.int64).reshape(3, 16).T))


@pytest.mark.parametrize("event_type", list(EventType))
def test_bytes_that_no_field_covers_must_be_0(event_type: EventType) -> None:
    frame = rows_frame(event_type)
    dtype = blank(0, event_type).dtype
    covered = {
        offset + index
        for form, offset in (entry[:2] for entry in (dtype.fields or {}).values())
        for index in range(form.itemsize)
    }
    gaps = sorted(set(range(128)) - covered)
    assert gaps
    for byte in gaps:
        words = words_of(frame)
        words.view(np.uint8).reshape(16, 3, 8)[byte // 8, 2, byte % 8] = 1
        with pytest.raises(CodecError, match="no field covers"):
            decode_frame(with_words(frame, words))


@given(
    st.sampled_from(EventType),
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(0, 2), st.integers(-(1 << 63), (1 << 63) - 1)), min_size=1, max_size=3
    ),
)
def test_rows_of_any_content_are_refused_or_harmless(
    event_type: EventType, changes: list[tuple[int, int, int]]
) -> None:
    frame = rows_frame(event_type)
    words = words_of(frame)
    for word, row, value in changes:
        words[word, row] = value
    try:
        batch = decode_frame(with_words(frame, words), base=MAX_LOG_SEQUENCE - MAX_ROWS, session_number=1)
    except CodecError:
        return
    looked_at(batch)


@given(events(), st.integers(0, 127), st.integers(0, 255))
def test_a_row_with_any_byte_changed_is_refused_or_harmless(event: Event, byte: int, value: int) -> None:
    batch = EventBatch.from_events([event])
    batch.records["log_sequence"] = 0
    frame = encode_frame(batch)
    words = words_of(frame)
    words.view(np.uint8).reshape(128)[byte] = value
    try:
        changed = decode_frame(with_words(frame, words))
    except CodecError:
        return
    looked_at(changed)


# -- what decoding may cost ------------------------------------------------------------------------------------------


def zstd(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(level=1, **options).compress(data)


def unsized(size_bytes: int) -> bytes:
    """A body of zeros that doesn't say how many."""
    making = zstandard.ZstdCompressor(level=1, write_content_size=False).compressobj()
    return b"".join(making.compress(bytes(1 << 20)) for _ in range(size_bytes >> 20)) + making.flush()


def one_block(claimed: int, content: bytes, window_log: int) -> bytes:
    """A zstd frame by hand: what it claims to hold, one raw block, and the window that it asks for."""
    block = (len(content) << 3 | 1).to_bytes(3, "little") + content
    descriptor = bytes([0b10_0_0_0_0_00, (window_log - 10) << 3])
    return b"\x28\xb5\x2f\xfd" + descriptor + claimed.to_bytes(4, "little") + block


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0skip"


def bodies() -> dict[str, bytes]:
    """Bodies for a frame of one row that hold, or claim, something else than one row."""
    row = rows_frame(EventType.FILL)
    one = words_of(row)[:, :1].tobytes()
    return {
        "a bomb of a gigabyte without a size": unsized(1 << 30),
        "a bomb of a gigabyte behind a row": zstd(one) + unsized(1 << 30),
        "a row of two frames": zstd(one[:64]) + zstd(one[64:]),
        "a row and an empty frame": zstd(one) + zstd(b""),
        "a row and a skippable frame": zstd(one) + SKIPPABLE,
        "a skippable frame and a row": SKIPPABLE + zstd(one),
        "a row and a byte": zstd(one) + b"\0",
        "a row without a size": zstd(one, write_content_size=False),
        "half a row": zstd(one[:64]),
        "two rows": zstd(one * 2),
        "nothing": b"",
        "an empty frame": zstd(b""),
        "half a frame": zstd(one)[:-3],
        "a claim of four gigabytes": one_block(0xFFFFFFFF, one, 20),
        "a claim of less than it holds": one_block(64, one, 20),
        "a claim of more than it holds": one_block(128, one[:64], 20),
        "no zstd": one,
    }


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    header, names, _ = opened(rows_frame(EventType.FILL))
    return {what: sealed(header | {"count": 1}, names, body) for what, body in bodies().items()}


def test_a_body_that_holds_something_else_is_refused_without_being_unpacked(bombs: dict[str, bytes]) -> None:
    for what, frame in bombs.items():
        tracemalloc.start()
        try:
            with pytest.raises(CodecError):
                decode_frame(frame)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 200_000 + len(frame), what


@pytest.mark.parametrize("window_log", [10, 20, 27, 31, 41])
def test_a_sound_body_is_read_without_the_window_that_it_asks_for(window_log: int) -> None:
    frame = rows_frame(EventType.FILL)
    header, names, _ = opened(frame)
    words = words_of(frame)[:, :1]
    made = sealed(header | {"count": 1}, names, one_block(128, words.tobytes(), window_log))
    try:
        assert decode_frame(made) == decode_frame(frame)[:1]
    except CodecError:
        assert window_log > 31


def test_names_can_not_claim_more_than_the_rows_could_use() -> None:
    header, _, body = opened(FRAME)
    names = b"\x92\xdd\x00\xff\xff\xf0" + b"\xa0" * ((1 << 24) - 10)
    tracemalloc.start()
    try:
        for count in (5, MAX_ROWS):
            with pytest.raises(CodecError):
                decode_frame(sealed(header | {"count": count}, names, body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(names) + (8 << 20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is kept by Linux only")
def test_hostile_frames_are_refused_within_the_memory_of_a_large_frame(bombs: dict[str, bytes], tmp_path: Any) -> None:
    # tracemalloc does not see what zstd allocates for itself; the limit of a process does.
    for index, frame in enumerate(bombs.values()):
        (tmp_path / f"{index}").write_bytes(frame)
    program = """
        import pathlib, resource, sys
        from hftlab.errors import CodecError
        from hftlab.events.frames import decode_frame
        frames = [path.read_bytes() for path in pathlib.Path(sys.argv[1]).iterdir()]
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20), resource.RLIM_INFINITY))
        refused = 0
        for frame in frames:
            try:
                decode_frame(frame)
            except CodecError:
                refused += 1
        print(refused)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.strip() == str(len(bombs))
    assert resource.getpagesize()


def test_a_large_frame_takes_three_times_its_rows_to_read() -> None:
    rows = blank(MAX_ROWS, EventType.MARKET_DATA)
    rows["price"] = np.random.default_rng(1).normal(size=len(rows))
    rows["log_sequence"] = np.arange(len(rows))
    frame = encode_frame(EventBatch(rows, SymbolTable(["A"])))
    tracemalloc.start()
    try:
        decode_frame(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * rows.nbytes


def test_emitted_rows_keep_their_mark() -> None:
    batch = trades(2)
    batch.records["flags"] |= Flags.EMITTED.value
    assert [bool(event.flags & Flags.EMITTED) for event in decode_frame(encode_frame(batch))] == [True, True]
