"""``SpillFile``: dead letters on this machine's disk, for as long as the server does not take them.

::

    HFLS 0001 | length u4, crc32 u4, msgpack | length, crc32, msgpack | …

Numbers are little-endian; each record is one Letter. Records are only ever appended, and the disk has them when
``write`` returns. What a crash left at the end, half a record or a damaged one, is cut off when the file is read: what
stands behind damage can't be told from it, so it is counted and never trusted. It is kept beside, under ``.damaged``,
for whoever wants to look. One process at a time.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hftlab.errors import SpillFull, ValidationError
from hftlab.events.group_ports import Letter

MAGIC = b"HFLS0001"
LIMIT_BYTES = 64 << 20
_RECORD = struct.Struct("<II")
_MODE = 0o600


class SpillFile:
    """Letters in the file at ``path``, which is made, with mode 600, by the first write; up to ``limit_bytes``.

    ``cut`` counts the times that a tail was cut off, and ``cut_bytes`` what these held.
    """

    def __init__(self, path: str | os.PathLike[str], *, limit_bytes: int = LIMIT_BYTES) -> None:
        if isinstance(limit_bytes, bool) or not isinstance(limit_bytes, int) or limit_bytes < 1:
            raise ValidationError(f"limit_bytes= of a spill file is a whole number above 0; got {limit_bytes!r}")
        self.path = Path(path)
        self.limit_bytes = limit_bytes
        self.cut = self.cut_bytes = 0
        self._checked = False  # whether the file's tail was looked at since we have it

    @property
    def size_bytes(self) -> int:
        """How long the file is; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def write(self, letters: Iterable[Letter]) -> None:
        """Append letters, all or (where the disk is full) none, and wait until the disk has them: one fsync a call.

        Raises SpillFull, and OSError. Milliseconds: for emergencies.
        """
        records = b"".join(map(_record, letters))
        if not records:
            return
        if not self._checked:
            # Behind a torn tail nothing could be found again.
            self.read()
        size = self.size_bytes
        if size + len(records) > self.limit_bytes:
            raise SpillFull(
                f"the spill file {self.path} holds {size:,} of at most {self.limit_bytes:,} bytes, and "
                f"{len(records):,} more came; have the server take writes again, or give the file more room"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Neither truncated nor through a link: the file holds letters that nobody else has.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, _MODE)
        try:
            os.fchmod(descriptor, _MODE)
            data = records if size else MAGIC + records
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if not size:
            _sync_folder(self.path.parent)

    def read(self) -> list[Letter]:
        """All letters, the oldest first. A torn or damaged tail is cut off the file, and counted."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            self._checked = True
            return []
        letters, end = _letters(data)
        if end < len(data):
            self.cut += 1
            self.cut_bytes += len(data) - end
            self._set_aside(data[end:])
            os.truncate(self.path, end)
        self._checked = True
        return letters

    def set_aside(self) -> int:
        """Keep what is there beside, as ``<name>.left`` (an older one is replaced), and begin anew; returns how many
        letters that were."""
        letters = len(self.read())
        if letters:
            os.replace(self.path, self.path.with_name(self.path.name + ".left"))
            _sync_folder(self.path.parent)
        return letters

    def drained(self, letters: Iterable[Letter] | None = None) -> int:
        """These letters (None: all) are safe elsewhere: the file goes, or keeps the others. Returns how many went."""
        before = self.read()
        safe = Counter(before if letters is None else letters)
        left = []
        for letter in before:
            if safe[letter]:
                safe[letter] -= 1
            else:
                left.append(letter)
        if len(left) < len(before) or not left:
            self._replace(left)
        return len(before) - len(left)

    def _replace(self, left: list[Letter]) -> None:
        if not left:
            self.path.unlink(missing_ok=True)
            return
        beside = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _MODE)
        try:
            _write_all(descriptor, MAGIC + b"".join(map(_record, left)))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(beside, self.path)
        _sync_folder(self.path.parent)

    def _set_aside(self, tail: bytes) -> None:
        beside = self.path.with_name(self.path.name + ".damaged")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, _MODE)
        try:
            _write_all(descriptor, tail)
        finally:
            os.close(descriptor)

    def __repr__(self) -> str:
        return f"SpillFile({self.path.name}: {self.size_bytes:,} bytes)"


def _record(letter: Letter) -> bytes:
    body = msgspec.msgpack.encode(letter)
    return _RECORD.pack(len(body), zlib.crc32(body)) + body


def _letters(data: bytes) -> tuple[list[Letter], int]:
    """The letters that a file holds, and where the last sound one ends (0: not even the beginning is sound)."""
    if data[: len(MAGIC)] != MAGIC:
        return [], 0
    letters: list[Letter] = []
    at = len(MAGIC)
    while at + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, at)
        body = data[at + _RECORD.size : at + _RECORD.size + length]
        if len(body) < length or zlib.crc32(body) != checksum:
            break
        try:
            letters.append(msgspec.msgpack.decode(body, type=Letter))
        except msgspec.MsgspecError:
            break
        at += _RECORD.size + length
    return letters, at


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    """A file is only there after a power loss if its folder's entry is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
