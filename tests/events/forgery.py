"""Frames as an attacker makes them: any header, names and rows, under a checksum that is right."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash
import zstandard

from hftlab.events import EventBatch

HEADER = struct.Struct("<4sHBBIIIIqqQ")
FIELDS = (
    "magic", "schema", "type", "codec", "count", "names_bytes", "rows_bytes", "reserved",
    "earliest", "latest", "checksum",
)  # fmt: skip


def opened(frame: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """A frame's header by name, its names and its compressed rows."""
    header = dict(zip(FIELDS, HEADER.unpack_from(frame), strict=True))
    names_end = HEADER.size + header["names_bytes"]
    return header, frame[HEADER.size : names_end], frame[names_end:]


def sealed(header: dict[str, Any], names: bytes, body: bytes, **changes: Any) -> bytes:
    """A frame of these parts; sizes are those of the parts, and the checksum is right, unless ``changes`` says else."""
    fields = header | {"names_bytes": len(names), "rows_bytes": len(body)} | changes
    head = HEADER.pack(*(fields[name] for name in FIELDS))
    checksum = xxhash.xxh3_64(head[:-8] + names + body).intdigest()
    stated: int = changes.get("checksum", checksum)
    return head[:-8] + stated.to_bytes(8, "little") + names + body


def words_of(frame: bytes) -> npt.NDArray[np.int64]:
    """A frame's rows as a writable array of 16 columns."""
    header, _, body = opened(frame)
    raw = zstandard.ZstdDecompressor().decompress(body)
    return np.frombuffer(raw, np.int64).reshape(16, header["count"]).copy()


def with_words(frame: bytes, words: npt.NDArray[np.int64], **changes: Any) -> bytes:
    """The frame with other rows, and the bounds of their arrival in its header."""
    header, names, _ = opened(frame)
    body = zstandard.ZstdCompressor(level=1).compress(np.ascontiguousarray(words).tobytes())
    bounds = {"earliest": int(words[1].min()), "latest": int(words[1].max())}
    return sealed(header, names, body, **bounds | changes)


def with_names(frame: bytes, names: Any) -> bytes:
    """The frame with other names: bytes as they are, anything else as msgpack."""
    header, _, body = opened(frame)
    return sealed(header, names if isinstance(names, bytes) else msgspec.msgpack.encode(names), body)


def looked_at(batch: EventBatch) -> None:
    """Do with a batch all that a user may: nothing of it may crash, whatever the rows hold."""
    assert len(list(batch)) == len(batch)
    assert repr(batch)
    assert batch._repr_html_()
    assert len(batch.to_frame()) == len(batch)
    assert batch == EventBatch.concat([batch[:1], batch[1:]])
