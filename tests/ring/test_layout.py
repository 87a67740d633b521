import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.ring import Layout, allocate
from hftlab.ring.layout import (
    CACHED_GATING_OFFSET,
    CACHED_PRODUCER_OFFSET,
    CAPACITY_OFFSET,
    LINE_BYTES,
    PRODUCER_CURSOR_OFFSET,
    READERS_MAX,
)

layouts = st.builds(
    Layout,
    capacity=st.integers(0, 10).map(lambda exponent: 1 << exponent),
    row_bytes=st.integers(1, 64).map(lambda words: 8 * words),
    readers=st.integers(1, READERS_MAX),
)


@given(size_bytes=st.integers(1, 100_000))
def test_allocated_memory_starts_on_a_line_and_is_zero(size_bytes: int) -> None:
    buffer = allocate(size_bytes)
    assert buffer.ctypes.data % LINE_BYTES == 0
    assert buffer.size == size_bytes
    assert not buffer.any()


@given(layout=layouts)
def test_every_cursor_and_every_cached_cursor_has_a_line_of_its_own(layout: Layout) -> None:
    cursors = [layout.reader_offset(reader) for reader in range(layout.readers)]
    offsets = [CAPACITY_OFFSET, PRODUCER_CURSOR_OFFSET, CACHED_GATING_OFFSET, *cursors]
    offsets += [cursor + CACHED_PRODUCER_OFFSET for cursor in cursors]
    assert sorted(offsets) == [line * LINE_BYTES for line in range(len(offsets))]
    assert layout.rows_offset == len(offsets) * LINE_BYTES
    assert layout.size_bytes == layout.rows_offset + layout.capacity * layout.row_bytes


@given(layout=layouts)
def test_formatting_writes_the_geometry_and_zero_cursors_and_leaves_the_rows(layout: Layout) -> None:
    buffer = allocate(layout.size_bytes)
    buffer.fill(0xAB)
    layout.format(buffer)
    words = buffer[: layout.rows_offset].view(np.int64)
    assert words[:4].tolist() == [layout.capacity, layout.row_bytes, layout.readers, layout.rows_offset]
    assert not words[4:].any()
    assert (buffer[layout.rows_offset :] == 0xAB).all()


@pytest.mark.parametrize(
    ("capacity", "suggestion"), [(0, "1"), (-8, "1"), (3, "4"), (1_000, "1,024"), (1 << 31, "1,073,741,824")]
)
def test_a_capacity_that_is_no_power_of_two_is_refused_with_the_nearest_that_is(capacity: int, suggestion: str) -> None:
    with pytest.raises(ValidationError, match=rf"power of two.*got {capacity:,};.*is {suggestion}$"):
        Layout(capacity)


@pytest.mark.parametrize("row_bytes", [0, -8, 4, 100, 65_544])
def test_rows_that_are_no_multiple_of_eight_bytes_or_too_long_are_refused(row_bytes: int) -> None:
    with pytest.raises(ValidationError, match=rf"multiple of 8 bytes.*got {row_bytes:,}"):
        Layout(8, row_bytes)


@pytest.mark.parametrize("readers", [0, -1, READERS_MAX + 1])
def test_too_few_or_too_many_readers_are_refused(readers: int) -> None:
    with pytest.raises(ValidationError, match=f"1 to 64 readers, got {readers}"):
        Layout(8, readers=readers)


@pytest.mark.parametrize("reader", [-1, 2])
def test_a_reader_that_the_layout_does_not_have_is_refused(reader: int) -> None:
    with pytest.raises(ValidationError, match=f"0 to 1, got {reader}"):
        Layout(8, readers=2).reader_offset(reader)


def test_a_buffer_that_is_too_small_misaligned_or_not_of_bytes_is_refused() -> None:
    layout = Layout(8)
    buffer = allocate(layout.size_bytes + 8)
    with pytest.raises(ValidationError, match=f"needs {layout.size_bytes:,} bytes, the buffer has 100"):
        layout.format(buffer[:100])
    with pytest.raises(ValidationError, match="multiple of 128 bytes, this buffer 8 after one"):
        layout.format(buffer[8:])
    with pytest.raises(ValidationError, match="uint8 array, got int64"):
        layout.format(buffer.view(np.int64))
    with pytest.raises(ValidationError, match="contiguous"):
        layout.format(buffer[::2])
