"""The deduplicator's memory of event ids, as bits in rings of blocks, and the kernel that tests and sets them.

Log sequences are dense within a session, so a session's ids are a bitmap: no hashing, and a batch of neighbours stays
in one word, which the loop keeps in a register. Ids fall into blocks of 1,024. Block ``b`` has one place in its
session's ring, ``b`` modulo the ring's blocks, and a place only ever passes to a later block. Hence what can be told:

- the place holds a block before ``b``, or none: no id of ``b`` was processed before;
- it holds ``b``: its bits tell;
- it holds a block after ``b``: it can't be told any more (*beyond*).

A jump forward of any size takes one place, and leaves the others as they are. A block keeps one time, the latest at
which an id of it was processed; once that is more than ``IDS_NS`` ago, its bits mean nothing (cleared when next
touched). So no id is forgotten before its time, and one is remembered longer where others of its block came later.

::

    control   CONTROLS words
    rings     SESSIONS rings, one behind the other: RING_WORDS words, then a block of BLOCK_WORDS words a place
    ring      session (0: free) · latest time · serial of the last id remembered, by which rings come in order of age
    block     its number + 1 (0: none) · latest time · how many bits are set · unused · 16 words of 64 bits

Contract: one thread; ``s`` is the address of the control block, nothing is allocated or checked, no row is written.
All is decided row by row: where batches are cut changes nothing.
"""

from __future__ import annotations

from numba import njit

from hftlab.events.records import Flags
from hftlab.ring.atomics import load, store
from hftlab.sequence.kernels.atomics import called

# numba's cache on disk knows machine code by the content of this file alone, but what is inlined from elsewhere is in
# that code too: the first 16 digits of the SHA-256 over hftlab/ring/atomics.py. A test holds it to the truth.
COMPILED_IN = "62f0b7854b1d0d87"

SESSIONS = 8
"""How many sessions have a ring at once."""
BLOCK_IDS = 1_024

# -- control, offsets in bytes ---------------------------------------------------------------------------------------
CLOCK = 0  # the time of the latest row with an id; never falls
IDS_NS = 8
BLOCKS = 16  # places in a ring: a power of two
PRESSES_BACK = 24
RINGS_AT = 32
DROPPED_AT = 40  # where the positions of dropped rows are written
DROPPED = 48  # how many the last call wrote
IN_THE_WAY = 56  # the latest time of what a row was pressed back for; -1: the last call pressed nothing back
REMEMBERED = 64  # ids ever remembered
PROCESSED = 72
REDELIVERED = 80
FORGOTTEN = 88
UNIDENTIFIED = 96
BEYOND = 104
CONTROLS = 16

# -- rings and blocks, in words; offsets in bytes ----------------------------------------------------------------------
RING_WORDS, BLOCK_WORDS = 4, 20
RING_SESSION, RING_LATEST, RING_SERIAL = 0, 8, 16
BLOCK_NUMBER, BLOCK_LATEST, BLOCK_COUNT, BLOCK_BITS = 0, 8, 16, 32

_EMITTED = int(Flags.EMITTED) << 16
_LOG_BITS = 40  # a log sequence that is negative, or has more, is none


@njit(cache=True, nogil=True)
def deduplicate(s: int, rows_at: int, stride: int, length: int, now_ns: int, session: int) -> int:
    """Take rows in order of arrival, and remember their ids; return how many were taken (``~taken``: and some dropped).

    ``rows_at``: where the address of the first row stands; ``stride``: the bytes to the next row. Time is ``now_ns``;
    where that is negative, each row's ``received``; made never to fall. ``session``: its number, not 0. The positions
    of the dropped rows are at DROPPED_AT. Fewer taken than ``length``: the next one would displace what is too young.
    """
    clock, ids_ns = load(s + CLOCK), load(s + IDS_NS)
    dropped_at = load(s + DROPPED_AT)
    dropped = unidentified = beyond = remembered = 0
    ring = place = bits = count = latest = ring_latest = 0
    word = -1
    store(s + IN_THE_WAY, -1)
    taken = 0
    row = load(rows_at)
    while taken < length:
        log = load(row + 24)
        if (log >> _LOG_BITS) | (load(row + 56) & _EMITTED):
            unidentified += 1
            taken += 1
            row += stride
            continue
        moment = now_ns if now_ns >= 0 else load(row + 8)
        if moment > clock:
            clock = moment
        if log >> 6 != word or clock - latest > ids_ns:
            # Another word than the one in hand, or what is in hand has become too old.
            number = log // BLOCK_IDS
            if place:
                store(place + BLOCK_BITS + (word & 15) * 8, bits)
                store(place + BLOCK_LATEST, latest)
                store(place + BLOCK_COUNT, count)
            if place == 0 or word >> 4 != number or clock - latest > ids_ns:
                if ring == 0:
                    ring = find_ring(s, session, clock)
                    if ring == 0:
                        break
                place = take_place(s, ring, number, clock)
                if place < 0:
                    place = 0
                    break
                if place == 0:
                    word = -1
                    beyond += 1
                    taken += 1
                    row += stride
                    continue
                latest, count = load(place + BLOCK_LATEST), load(place + BLOCK_COUNT)
            word = log >> 6
            bits = load(place + BLOCK_BITS + (word & 15) * 8)
            # Nearly always a stretch of new neighbours follows, up to the end of the word or of the batch.
            stretch = min(64 - (log & 63), length - taken)
            mask = -1 << (log & 63) if stretch == 64 - (log & 63) else ((1 << stretch) - 1) << (log & 63)
            if bits & mask == 0:
                top = stretch_until(row, stride, stretch, log, clock, now_ns)
                if 0 <= top - clock <= ids_ns:
                    bits |= mask
                    clock = latest = ring_latest = top
                    count += stretch
                    remembered += stretch
                    taken += stretch
                    row += stretch * stride
                    continue
        bit = 1 << (log & 63)
        if bits & bit:
            store(dropped_at + dropped * 8, taken)
            dropped += 1
        else:
            bits |= bit
            latest = ring_latest = clock
            count += 1
            remembered += 1
        taken += 1
        row += stride
    if place:
        store(place + BLOCK_BITS + (word & 15) * 8, bits)
        store(place + BLOCK_LATEST, latest)
        store(place + BLOCK_COUNT, count)
    if remembered:
        store(s + REMEMBERED, load(s + REMEMBERED) + remembered)
        store(ring + RING_LATEST, ring_latest)
        store(ring + RING_SERIAL, load(s + REMEMBERED))
    store(s + CLOCK, clock)
    store(s + DROPPED, dropped)
    store(s + PROCESSED, load(s + PROCESSED) + taken - dropped)
    store(s + REDELIVERED, load(s + REDELIVERED) + dropped)
    store(s + UNIDENTIFIED, load(s + UNIDENTIFIED) + unidentified)
    store(s + BEYOND, load(s + BEYOND) + beyond)
    return ~taken if dropped else taken


@njit(cache=True)
def take_back(s: int, rows: int, stride: int, length: int, session: int) -> None:
    """Forget that rows were processed: nobody took them. They are the last ones that ``deduplicate`` let pass."""
    ring_bytes = (RING_WORDS + load(s + BLOCKS) * BLOCK_WORDS) * 8
    ring = 0
    for at in range(SESSIONS):
        found = load(s + RINGS_AT) + at * ring_bytes
        if load(found + RING_SESSION) == session:
            ring = found
    for at in range(length):
        log = load(rows + at * stride + 24)
        store(s + PROCESSED, load(s + PROCESSED) - 1)
        if session == 0 or (log >> _LOG_BITS) | (load(rows + at * stride + 56) & _EMITTED):
            store(s + UNIDENTIFIED, load(s + UNIDENTIFIED) - 1)
            continue
        number = log // BLOCK_IDS
        place = ring + (RING_WORDS + (number & (load(s + BLOCKS) - 1)) * BLOCK_WORDS) * 8
        if load(place + BLOCK_NUMBER) != number + 1:
            store(s + BEYOND, load(s + BEYOND) - 1)
            continue
        bits = place + BLOCK_BITS + ((log >> 6) & 15) * 8
        store(bits, load(bits) & ~(1 << (log & 63)))
        store(place + BLOCK_COUNT, load(place + BLOCK_COUNT) - 1)


@called
def stretch_until(row: int, stride: int, length: int, log: int, clock: int, now_ns: int) -> int:
    """The time at the end of ``length`` rows, if all have ids that follow each other from ``log``; else -1.

    1.1 ns a row, where looking at bits takes 2. It leaves at the first row that is not so: without that branch, LLVM
    makes gathers of the loads, which take three times as long for rows that come out of memory.
    """
    for at in range(length):
        if load(row + 24) != log + at or load(row + 56) & _EMITTED:
            return -1
        if now_ns < 0:
            clock = max(clock, load(row + 8))
        row += stride
    return clock


@called
def find_ring(s: int, session: int, clock: int) -> int:
    """The ring of a session: its own, or a free one, or that of the session whose last new id is longest ago.

    0: even that one's last id is too young to forget, and the policy is to press back.
    """
    ring_bytes = (RING_WORDS + load(s + BLOCKS) * BLOCK_WORDS) * 8
    rings = load(s + RINGS_AT)
    oldest = rings
    for at in range(SESSIONS):
        ring = rings + at * ring_bytes
        if load(ring + RING_SESSION) == session:
            return ring
        if load(ring + RING_SERIAL) < load(oldest + RING_SERIAL):
            oldest = ring
    if load(oldest + RING_SESSION):
        latest = load(oldest + RING_LATEST)
        if load(s + PRESSES_BACK) and clock - latest <= load(s + IDS_NS):
            store(s + IN_THE_WAY, latest)
            return 0
        empty_ring(s, oldest, clock)
    store(oldest + RING_SESSION, session)
    return oldest


@called
def empty_ring(s: int, ring: int, clock: int) -> None:
    """Take all blocks out of a ring; ids that are too young for that count as forgotten. A few ns a place."""
    forgotten = 0
    for at in range(load(s + BLOCKS)):
        place = ring + (RING_WORDS + at * BLOCK_WORDS) * 8
        if load(place + BLOCK_NUMBER):
            if clock - load(place + BLOCK_LATEST) <= load(s + IDS_NS):
                forgotten += load(place + BLOCK_COUNT)
            store(place + BLOCK_NUMBER, 0)
            store(place + BLOCK_COUNT, 0)
    store(s + FORGOTTEN, load(s + FORGOTTEN) + forgotten)


@called
def take_place(s: int, ring: int, number: int, clock: int) -> int:
    """The place of a block in its ring, taken from an earlier block if need be.

    0: a later block has it (beyond). -1: an earlier one has it, too young to forget, and the policy is to press back.
    """
    place = ring + (RING_WORDS + (number & (load(s + BLOCKS) - 1)) * BLOCK_WORDS) * 8
    held = load(place + BLOCK_NUMBER) - 1
    if held > number:
        return 0
    latest = load(place + BLOCK_LATEST)
    if held >= 0 and clock - latest <= load(s + IDS_NS):
        if held == number:
            return place
        if load(s + PRESSES_BACK):
            store(s + IN_THE_WAY, latest)
            return -1
        store(s + FORGOTTEN, load(s + FORGOTTEN) + load(place + BLOCK_COUNT))
    store(place + BLOCK_NUMBER, number + 1)
    store(place + BLOCK_LATEST, clock)
    store(place + BLOCK_COUNT, 0)
    for at in range(BLOCK_IDS // 64):
        store(place + BLOCK_BITS + at * 8, 0)
    return place
