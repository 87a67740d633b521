"""Where a journey's words stand: rows' fields, the kernel's state, and the envelopes of received - timestamp.

The rows' offsets are ``events.records``'s, named again here because metrics imports nothing of events; a test compares
them. All offsets of rows are bytes, all others words of 8 bytes. Cached machine code has them in it: see
``kernels.COMPILED_IN``.
"""

from __future__ import annotations

ROW_BYTES = 128
ROW_TIMESTAMP, ROW_RECEIVED = 0, 8
ROW_SYMBOL = 40
"""The lower half of its word."""
ROW_TAIL = 56
"""A word of four fields: source in its lowest 16 bits, then flags."""
NO_STAMPS = 2 | 4 | 32
"""``Flags.ARRIVAL_TIME | SOURCE_TIME | EMITTED``: one of the two times is no stamp of its own, so their difference is
no latency."""

STATE_WORDS = 16
KEYS, SLOTS, KEY_MASK, REST, SCRATCH, ENVELOPES, BEYOND, IMPLAUSIBLE, SKEWED, OFFSET_NS, REFERENCE_NS = range(11)
"""Words of the state. ``KEYS`` and ``SLOTS`` are the addresses of the open-addressed table from symbol ids (-1: free)
to slots; ``REST`` is the slot of all further symbols, -1 as long as there is room for new ones. ``BEYOND`` counts rows
of sources without an envelope, ``IMPLAUSIBLE`` those further apart than ``MOST_APART_NS``."""

SCRATCH_ROWS = 256
"""Values that wait to be recorded together, of each of the four stages: 8 KiB, a quarter of a first-level cache."""

MOST_SOURCES = 16
WINDOWS = 512
ENVELOPE_SOURCE, ENVELOPE_ORIGIN, ENVELOPE_SHIFT, ENVELOPE_EVENTS, ENVELOPE_RESOLUTION = range(5)
ENVELOPE_LEAST = 8
ENVELOPE_AT = ENVELOPE_LEAST + WINDOWS
ENVELOPE_WORDS = ENVELOPE_AT + WINDOWS
"""An envelope: its source (-1: nobody's), the begin of its first window, a window's length as a power of two of ns, its
rows, the timestamps' resolution; then each window's least difference (``HIGHEST``: none) and its row's arrival."""
FIRST_SHIFT = 27
"""Windows begin at 0.13 s, 69 s in all, and double when those are full: a day's are 137 s long."""
MOST_APART_NS = 86_400_000_000_000
"""A day. Stamps further apart are in the wrong unit or made up; one such arrival would stretch the windows to years."""
