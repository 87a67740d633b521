"""Answers as NTP servers write them, with whatever is to be wrong in them."""

from __future__ import annotations

import struct

from hftlab.clock.ntp.wire import ntp_stamp

SECOND_NS = 1_000_000_000
NOW_NS = 1_795_000_000 * SECOND_NS


def answer(
    *,
    origin: int,
    receive_ns: int = NOW_NS,
    transmit_ns: int = NOW_NS,
    reference_ns: int = 0,
    receive: int | None = None,
    transmit: int | None = None,
    leap: int = 0,
    version: int = 4,
    mode: int = 4,
    stratum: int = 1,
    poll: int = 6,
    precision: int = -24,
    root_delay: int = 0,
    root_dispersion: int = 0,
    reference_id: bytes = b"\x7f\x7f\x01\x01",
) -> bytes:
    """A packet; times in ns UTC, root delay and dispersion in 2**-16 s. ``receive`` and ``transmit``: raw stamps."""
    return struct.pack(
        "!BBBbII4sQQQQ",
        leap << 6 | version << 3 | mode,
        stratum,
        poll,
        precision,
        root_delay,
        root_dispersion,
        reference_id,
        ntp_stamp(reference_ns) if reference_ns else 0,
        origin,
        ntp_stamp(receive_ns) if receive is None else receive,
        ntp_stamp(transmit_ns) if transmit is None else transmit,
    )
