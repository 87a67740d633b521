"""Capture files as lines: gzip or not, cut or whole, whatever the sizes of the pieces."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import FeedError
from hftlab.feeds import files
from hftlab.feeds.files import MAX_LINE_BYTES, read_pieces
from hftlab.feeds.report import Tally

LINES = st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")), min_size=1, max_size=40)


def numbered(path: Path, tally: Tally | None = None) -> list[tuple[int, bytes]]:
    """Every line with its number, as the pieces have them."""
    pieces = read_pieces(str(path), tally or Tally(()), lambda _: None)
    return [(piece.first_line + index, line) for piece in pieces for index, line in enumerate(piece.lines)]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    """A function from a file's bytes to its path."""
    folder = tmp_path_factory.mktemp("files")

    def write(content: bytes) -> Path:
        path = folder / "capture"
        path.write_bytes(content)
        return path

    return write


@given(lines=LINES, piece_bytes=st.integers(2, 64), compressed=st.booleans(), ended=st.booleans())
def test_lines_and_their_numbers_do_not_depend_on_pieces_or_compression(
    write: Callable[[bytes], Path], lines: list[bytes], piece_bytes: int, compressed: bool, ended: bool
) -> None:
    text = b"\n".join([b"first", *lines]) + (b"\n" if ended else b"")
    path = write(gzip.compress(text) if compressed else text)
    tally = Tally(())
    with patch.object(files, "PIECE_BYTES", piece_bytes):
        found = numbered(path, tally)
    expected = text.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert found == list(enumerate(expected, 1))
    assert tally.lines == len(expected)
    assert not tally.damaged


@given(data=st.data(), lines=LINES, piece_bytes=st.integers(2, 64))
def test_of_a_cut_gzip_file_every_complete_line_is_read_and_the_cut_one_is_reported(
    write: Callable[[bytes], Path], data: st.DataObject, lines: list[bytes], piece_bytes: int
) -> None:
    text = b"\n".join([b"first", *lines]) + b"\n"
    whole = gzip.compress(text)
    path = write(whole[: data.draw(st.integers(2, len(whole) - 1), label="cut at")])
    tally = Tally(())
    with patch.object(files, "PIECE_BYTES", piece_bytes):
        try:
            found = numbered(path, tally)
        except FeedError:
            assert tally.lines == 0
            return
    expected = text.split(b"\n")[:-1]
    assert found == list(enumerate(expected, 1))[: len(found)]
    assert tally.damaged_count == 1
    assert tally.damaged[0].line == len(found) + 1
    assert "cut" in tally.damaged[0].reason
    assert tally.lines == len(found) + 1


def test_a_cut_in_a_large_file_loses_only_what_lies_behind_it(write: Callable[[bytes], Path]) -> None:
    text = b"".join(b"%d,%d\n" % (number, number * 7919 % 1009) for number in range(400_000))
    whole = gzip.compress(text)
    cut = len(whole) * 2 // 3
    plain = zlib.decompressobj(31).decompress(whole[:cut])
    tally = Tally(())
    found = numbered(write(whole[:cut]), tally)
    assert len(found) == plain.count(b"\n") > 200_000
    assert tally.damaged[0].line == len(found) + 1


def test_damaged_gzip_data_is_read_up_to_the_damage(write: Callable[[bytes], Path]) -> None:
    import random

    text = b"".join(random.Random(1).randbytes(20).hex().encode() + b"\n" for _ in range(50_000))
    broken = bytearray(gzip.compress(text))
    middle = len(broken) // 2
    broken[middle : middle + 400] = bytes(400)
    tally = Tally(())
    found = numbered(write(bytes(broken)), tally)
    expected = text.split(b"\n")
    # What the damage itself inflates to may be a few lines of rubbish; before it, nothing is missing.
    assert len(found) > 20_000
    assert [line for _, line in found[:20_000]] == expected[:20_000]
    assert "damaged" in tally.damaged[-1].reason


def test_a_wrong_checksum_is_reported_and_its_lines_are_kept(write: Callable[[bytes], Path]) -> None:
    broken = bytearray(gzip.compress(b"one\ntwo\nthree\n"))
    broken[-8] ^= 1
    tally = Tally(())
    assert [line for _, line in numbered(write(bytes(broken)), tally)] == [b"one", b"two", b"three"]
    assert "incorrect data check" in tally.damaged[0].reason


def test_concatenated_gzip_files_are_one_file_and_zeros_after_them_are_padding(write: Callable[[bytes], Path]) -> None:
    path = write(gzip.compress(b"one\ntw") + bytes(700) + gzip.compress(b"o\nthree\n") + bytes(512))
    with patch.object(files, "PIECE_BYTES", 13):
        assert [line for _, line in numbered(path)] == [b"one", b"two", b"three"]


def test_other_bytes_after_the_gzip_data_are_reported(write: Callable[[bytes], Path]) -> None:
    tally = Tally(())
    assert len(numbered(write(gzip.compress(b"one\ntwo\n") + b"rubbish"), tally)) == 2
    assert "not gzip" in tally.damaged[0].reason


def test_output_that_waits_in_the_inflater_at_the_end_of_the_file_is_not_lost(write: Callable[[bytes], Path]) -> None:
    path = write(gzip.compress(b"\n".join([b"0" * 99] * 2_000)))  # a few bytes that inflate to 200 KB
    with patch.object(files, "PIECE_BYTES", 100):
        tally = Tally(())
        assert len(numbered(path, tally)) == 2_000
        assert not tally.damaged


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["empty", "compressed"])
def test_a_file_without_a_line_is_an_error(write: Callable[[bytes], Path], content: bytes) -> None:
    with pytest.raises(FeedError, match="not one line"):
        numbered(write(content))


def test_a_line_beyond_the_limit_is_reported_and_the_lines_around_it_keep_their_numbers(
    write: Callable[[bytes], Path],
) -> None:
    path = write(b"one\n" + b"x" * (MAX_LINE_BYTES + 5_000_000) + b"\nthree\nfour\n")
    tally = Tally(())
    assert numbered(path, tally) == [(1, b"one"), (3, b"three"), (4, b"four")]
    assert [damage.line for damage in tally.damaged] == [2]
    assert tally.lines == 4


def test_a_byte_order_mark_is_no_part_of_the_first_line(write: Callable[[bytes], Path]) -> None:
    assert numbered(write(b"\xef\xbb\xbfone\ntwo\n")) == [(1, b"one"), (2, b"two")]


def test_a_file_that_can_not_be_opened_is_a_feed_error(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="can't be read"):
        numbered(tmp_path)
