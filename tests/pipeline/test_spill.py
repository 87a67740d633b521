"""Letters on the disk: whatever happened to the file, what is read was written."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftlab.errors import SpillFull, ValidationError
from hftlab.events.group_ports import Letter
from hftlab.pipeline.spill import MAGIC, SpillFile
from tests.pipeline.samples import letter


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of writes, none of which is about the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "below" / "letters.spill"


def test_what_was_written_is_read_in_order_by_whoever_comes(path: Path) -> None:
    spill = SpillFile(path)
    spill.write([letter(0), letter(1)])
    spill.write([letter(2)])
    assert spill.read() == SpillFile(path).read() == [letter(number) for number in range(3)]
    assert spill.read() == [letter(number) for number in range(3)], "reading takes nothing away"


def test_nothing_is_made_before_the_first_letter(path: Path) -> None:
    spill = SpillFile(path)
    spill.write([])
    assert (spill.read(), spill.size_bytes, spill.drained()) == ([], 0, 0)
    assert not path.parent.exists()


def test_only_its_owner_may_read_the_file(path: Path) -> None:
    before = os.umask(0)
    try:
        SpillFile(path).write([letter()])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_all_letters_drained_is_no_file(path: Path) -> None:
    spill = SpillFile(path)
    spill.write([letter(0), letter(1)])
    assert spill.drained() == 2
    assert not path.exists()
    spill.write([letter(2)])
    assert spill.read() == [letter(2)]


def test_letters_that_are_safe_leave_the_others_in_order(path: Path) -> None:
    spill = SpillFile(path)
    spill.write([letter(0), letter(1), letter(0), letter(2)])
    assert spill.drained([letter(0), letter(2), letter(9)]) == 2
    assert spill.read() == [letter(1), letter(0)], "one of two equal ones is left"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    spill.write([letter(3)])
    assert spill.drained([letter(0), letter(1), letter(3)]) == 3
    assert not path.exists()


def test_the_file_grows_no_further_than_its_bound(path: Path) -> None:
    spill = SpillFile(path, limit_bytes=1_000)
    spill.write([letter(0, frame=bytes(500))])
    size = spill.size_bytes
    with pytest.raises(SpillFull, match=rf"letters.spill holds {size} of at most 1,000 bytes, and .* more came"):
        spill.write([letter(1, frame=bytes(500))])
    assert spill.read() == [letter(0, frame=bytes(500))]
    with pytest.raises(ValidationError, match="limit_bytes= of a spill file is a whole number above 0; got 0"):
        SpillFile(path, limit_bytes=0)


def test_every_write_waits_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync: Callable[[int], None] = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    spill = SpillFile(path)
    spill.write([letter(number) for number in range(100)])
    assert len(synced) == 2, "the file, and once its folder"
    spill.write([letter(100)])
    assert len(synced) == 3


def test_a_disk_that_takes_half_a_write_keeps_what_it_had(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = SpillFile(path)
    spill.write([letter(0)])
    size = spill.size_bytes
    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) > 40:
            return write(descriptor, data[:40])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            spill.write([letter(1)])
    assert spill.size_bytes == size
    spill.write([letter(2)])
    assert (SpillFile(path).read(), spill.cut) == ([letter(0), letter(2)], 0)


@pytest.mark.usefixtures("unsynced")
def test_a_file_that_was_cut_anywhere_gives_whole_letters_and_takes_more(path: Path) -> None:
    letters = [letter(number, frame=bytes(number)) for number in range(3)]
    SpillFile(path).write(letters)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        spill = SpillFile(path)
        found = spill.read()
        assert found == letters[: len(found)]
        assert spill.cut == (length not in (0, *_ends(letters)))
        # A writer that never read it does not write behind the torn end.
        path.write_bytes(whole[:length])
        SpillFile(path).write([letter(9)])
        assert SpillFile(path).read() == [*found, letter(9)]
    assert path.with_name(path.name + ".damaged").exists()


def _ends(letters: list[Letter]) -> list[int]:
    """Where a file may end without harm."""
    sizes = [len(MAGIC)]
    for one in letters:
        sizes.append(sizes[-1] + _length(one))
    return sizes


def _length(one: Letter) -> int:
    return 8 + len(msgspec.msgpack.encode(one))


@pytest.mark.usefixtures("unsynced")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bits_are_flipped_only_letters_that_were_written_are_read(data: st.DataObject, path: Path) -> None:
    letters = [letter(number, frame=bytes(40)) for number in range(4)]
    path.unlink(missing_ok=True)
    SpillFile(path).write(letters)
    damaged = bytearray(path.read_bytes())
    places = data.draw(st.lists(st.integers(0, 8 * len(damaged) - 1), min_size=1, max_size=3, unique=True))
    for place in places:
        damaged[place // 8] ^= 1 << place % 8
    path.write_bytes(damaged)
    spill = SpillFile(path)
    found = spill.read()
    assert found == letters[: len(found)]
    assert len(found) < len(letters)
    assert (spill.cut, spill.cut_bytes + spill.size_bytes) == (1, len(damaged))
    spill.write([letter(9)])
    assert SpillFile(path).read() == [*found, letter(9)]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200), headed=st.booleans())
def test_junk_is_never_taken_for_letters(junk: bytes, headed: bool, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(MAGIC + junk if headed else junk)
    assert SpillFile(path).read() == []


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.write_bytes(b"")
    path.parent.mkdir()
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        SpillFile(path).write([letter()])
    assert target.read_bytes() == b""
