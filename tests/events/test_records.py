"""The layout is frozen: 128 bytes a row, header and payload a cache line each, as the module's own diagrams draw it."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Flags, records
from hftlab.events.records import (
    DTYPES,
    HEADER_BYTES,
    HEADER_FIELDS,
    MAX_LOG_SEQUENCE,
    MAX_SESSION_NUMBER,
    PAYLOAD_FIELDS,
    RECORD,
    ROW_BYTES,
    RUN_BIT,
    TEXT_FIELDS,
    blank,
    event_id,
    event_ids,
    of_type,
    split_event_id,
)

HEADER = {
    "timestamp": ("<i8", 0),
    "received": ("<i8", 8),
    "sequence": ("<i8", 16),
    "log_sequence": ("<i8", 24),
    "cause": ("<i8", 32),
    "symbol": ("<u4", 40),
    "span": ("<u4", 44),
    "part": ("<u4", 48),
    "epoch": ("<u4", 52),
    "source": ("<u2", 56),
    "flags": ("<u2", 58),
    "type": ("|u1", 60),
    "priority": ("|u1", 61),
    "clock": ("|u1", 62),
}


def fields_of(dtype: np.dtype[np.void]) -> dict[str, tuple[str, int, int]]:
    """Field to (format, offset, size)."""
    assert dtype.fields is not None
    return {name: (entry[0].str, entry[1], entry[0].itemsize) for name, entry in dtype.fields.items()}


@pytest.mark.parametrize("dtype", [RECORD, *DTYPES.values()])
def test_every_row_has_128_bytes_and_fields_that_are_aligned_and_do_not_overlap(dtype: np.dtype[np.void]) -> None:
    assert dtype.itemsize == ROW_BYTES == 2 * HEADER_BYTES == 128
    placed = sorted((offset, size, form) for form, offset, size in fields_of(dtype).values())
    assert all(offset + size <= following for (offset, size, _), (following, _, _) in pairwise(placed))
    assert all(offset % size == 0 for offset, size, form in placed if form[1] not in "SV")
    assert placed[-1][0] + placed[-1][1] <= ROW_BYTES


@pytest.mark.parametrize("dtype", [RECORD, *DTYPES.values()])
def test_the_header_is_the_same_in_all_dtypes_and_lies_in_the_first_cache_line(dtype: np.dtype[np.void]) -> None:
    found = fields_of(dtype)
    assert {name: found[name][:2] for name in HEADER} == HEADER
    assert all(offset >= HEADER_BYTES for name, (_, offset, _) in found.items() if name not in HEADER)


def test_texts_are_as_long_as_they_are_said_to_be() -> None:
    for event_type, texts in TEXT_FIELDS.items():
        found = fields_of(DTYPES[event_type])
        assert {name: form for name, (form, _, _) in found.items() if "S" in form} == {
            name: f"|S{size}" for name, size in texts.items()
        }


def diagram_of(first: str) -> tuple[dict[int, int], list[str]]:
    """The column of each byte's number in a diagram, and the diagram's lines, of which the first begins so."""
    lines = (records.__doc__ or "").splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith(first))
    block = lines[at : lines.index("", at)]
    return {match.start(): int(match[0]) for match in re.finditer(r"\d+", block[0])}, block[1:]


def names_in(line: str, columns: dict[int, int]) -> dict[str, int]:
    """The names in a diagram's line and the bytes above them."""
    words = {match[0]: match.start() for match in re.finditer(r"[a-z_]+", line.replace(" bytes", "      "))}
    return {word: columns[start] for word, start in words.items() if start in columns}


def test_the_header_diagram_shows_every_field_at_its_byte() -> None:
    columns, (names, formats) = diagram_of("    byte  0 ")
    assert names_in(names, columns) == {name: offset for name, (_, offset) in HEADER.items()}
    assert formats.split() == [form.lstrip("<|") for form, _ in HEADER.values()]


def test_the_payload_diagram_shows_every_field_at_its_byte() -> None:
    columns, lines = diagram_of("    byte    64")
    shown = {line.split()[0]: names_in(line, columns) for line in lines}
    for event_type, names in PAYLOAD_FIELDS.items():
        found = fields_of(DTYPES[event_type])
        assert shown[event_type.topic] == {name: found[name][1] for name in names}
        line = next(line for line in lines if line.split()[0] == event_type.topic)
        for name, size in TEXT_FIELDS[event_type].items():
            assert f"{name}: {size} bytes" in line


@pytest.mark.parametrize("event_type", list(EventType))
def test_a_blank_row_is_a_single_part_without_a_number_and_without_anything_sent(event_type: EventType) -> None:
    row = blank(1, event_type)[0]
    assert row["type"] == event_type
    assert (row["sequence"], row["span"], row["part"], row["flags"]) == (-1, 1, 0, Flags.LAST_PART)
    for name in PAYLOAD_FIELDS[event_type]:
        value = row[name]
        assert np.isnan(value) if isinstance(value, np.floating) else value in (0, b"")
    untouched = {*HEADER_FIELDS} - {"type", "sequence", "span", "flags"}
    assert all(row[name] == 0 for name in untouched)


@given(session=st.integers(1, MAX_SESSION_NUMBER), log=st.integers(0, MAX_LOG_SEQUENCE))
def test_an_event_id_splits_into_what_it_was_made_of(session: int, log: int) -> None:
    made = event_id(session, log)
    assert 0 < made < RUN_BIT
    assert split_event_id(made) == split_event_id(np.int64(made)) == (session, log)  # type: ignore[arg-type]
    assert event_id(MAX_SESSION_NUMBER, MAX_LOG_SEQUENCE) == RUN_BIT - 1


@pytest.mark.parametrize(("session", "log"), [(0, 0), (-1, 0), (MAX_SESSION_NUMBER + 1, 0), (1, -1), (1, 1 << 40)])
def test_an_event_id_of_no_session_is_refused(session: int, log: int) -> None:
    with pytest.raises(ValidationError, match="session number of 1"):
        event_id(session, log)


@pytest.mark.parametrize("value", [0, -1, RUN_BIT, RUN_BIT | 5, 1 << 70, "1", 1.0, None])
def test_what_is_no_recorded_event_id_does_not_split(value: object) -> None:
    with pytest.raises(ValidationError, match=r"below 2\*\*62"):
        split_event_id(value)  # type: ignore[arg-type]


@given(
    session=st.integers(0, MAX_SESSION_NUMBER),
    logs=st.lists(st.tuples(st.integers(0, MAX_LOG_SEQUENCE), st.booleans()), max_size=8),
)
def test_ids_of_rows_agree_with_the_id_of_each(session: int, logs: list[tuple[int, bool]]) -> None:
    rows = blank(len(logs), EventType.FILL)
    rows["log_sequence"] = [log for log, _ in logs]
    rows["flags"] = [Flags.EMITTED if emitted else 0 for _, emitted in logs]
    expected = [RUN_BIT | log if emitted else event_id(session, log) if session else 0 for log, emitted in logs]
    found = event_ids(rows, session)
    assert found.dtype == np.int64
    assert found.tolist() == expected == EventBatch(rows, session_number=session).event_ids.tolist()


def test_rows_of_one_type_are_a_view_and_rows_among_others_a_copy() -> None:
    rows = blank(3, EventType.ORDER)
    assert of_type(rows, EventType.ORDER) is rows
    opaque = rows.view(RECORD)
    assert np.shares_memory(of_type(opaque, EventType.ORDER), rows)
    assert of_type(opaque, EventType.ORDER).dtype == DTYPES[EventType.ORDER]
    opaque["type"][1] = EventType.FILL
    chosen = of_type(opaque, EventType.FILL)
    assert len(chosen) == 1
    assert not np.shares_memory(chosen, rows)
    assert len(of_type(blank(3, EventType.ORDER), EventType.SIGNAL)) == 0
