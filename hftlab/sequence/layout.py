"""Where the sequencer keeps what it knows: tables of int64, a row a thing, a column a fact, linked by row numbers.

::

    sources   a row a source (by its id): its rule, epoch, the next number, and the heads of its lists
    seen      per source a ring of (sequence, content) of the latest accepted messages
    nodes     a row a held message, in three kinds of lists: a source's window (by number), a source's queue behind a
              cause (by arrival), and the message that a source is sending in parts
    store     the 16 words of a held row; ``links`` chain the rows of a message, and the free ones
    gaps      a row a piece of a gap, chained by source in the order of numbers
    deadlines a ring of (source, gap, due) in the order of opening

    order     out: a row a delivered row: where it is, when it was released, the number it gets, whether a gap precedes
    notices   out: what happened to gaps, each with the number of rows delivered before it
    aside     out: rows that will never be delivered, and why

-1 ends a list and stands for "none". Everything is allocated, and grown, between two calls: kernels never allocate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.int64]

# -- control: single numbers -----------------------------------------------------------------------------------------
CLOCK = 0
STARTED_NS = 1  # the clock when the call began
NEXT_DUE = 2  # the earliest deadline; FOREVER without one
HIGHEST_ID = 3  # the highest event id read so far
OUT = 4  # rows delivered by this call
PREFIX = 5  # how many of them, from the first on, are the input's own first rows as they are: not in ``order``
NOTICES = 6
ASIDE = 7
FREE_ROW = 8
FREE_ROWS = 9
RETIRED_ROW = 10  # held rows that were delivered or set aside by this call: free when the caller has read them
FREE_NODE = 11
FREE_NODES = 12
FREE_GAP = 13
FREE_GAPS = 14
DEADLINE_FIRST = 15
DEADLINE_COUNT = 16
SERIAL = 17  # gaps ever opened
HELD_ROWS = 18
BLOCKED = 19  # sources that wait for a cause
CYCLES = 20
ORPHANS = 21
VERSION = 22
DELIVERED_ROWS = 23
DUPLICATE_ROWS = 24
LATE_ROWS = 25
CONFLICT_ROWS = 26
ORPHANED_ROWS = 27
RECEIVED_ROWS = 28
STRICT_HELD = 29  # messages in the windows of strict sources
ASIDE_SEEN = 30  # messages ever set aside: where the ring of their ids stands
LOOK_AGAIN = 31  # something that a message may wait for was delivered or set aside
NEXT_CAUSE = 32  # the lowest id that is waited for and was not read yet; FOREVER without one
NEXT_CAUSE_DUE = 33  # the earliest moment at which such a wait ends

# Free places are those that were given back (a list), and then all from these on, which were never used.
ROWS_USED = 34
NODES_USED = 35
GAPS_USED = 36

# Settings, and where the tables are and how large.
WINDOW = 37
DEADLINE_NS = 38
STRICT_TYPES = 39  # a bit a type
SET_ORPHANS_ASIDE = 40
REMEMBERED = 41
SOURCES_COUNT = 42
DEADLINES_MASK = 43
FIRST_TABLE = 44  # from here on, the address of each table of State behind ``control``, in that order
SOURCES_AT, COUNTS_AT, SEEN_AT, NODES_AT, STORE_AT, LINKS_AT, GAPS_AT, DEADLINES_AT = range(44, 52)
ASIDE_IDS_AT, ORDER_AT, NOTICES_AT, ASIDE_AT = range(52, 56)
STRICT_SOURCES = 56
CONTROLS = 57

# -- sources ---------------------------------------------------------------------------------------------------------
RULE = 0
EPOCH = 1  # -1: nothing came yet
FIRST_NUMBER = 2  # the first number of the epoch
NEXT_NUMBER = 3
TOP = 4  # the highest number known to exist
ENDED_AT = 5
STRICT = 6
WINDOW_HEAD = 7
WINDOW_TAIL = 8
WINDOW_COUNT = 9
OPEN_GAP = 10  # the first gap that is open
LAST_GAP = 11
QUEUE_HEAD = 12  # behind a cause
QUEUE_TAIL = 13
AFTER_LOSS = 14  # the next row delivered is the first after a loss
TOP_ID = 15  # the event id of the last row of the message with the highest number that was delivered or held
SEEN = 16  # messages ever remembered
ASSEMBLY = 17  # the message that is being received in parts
GIVEN = 18  # numbers given to messages that came without
SPANS = 19  # whether a message covers as many numbers as its span says
PLAIN = 20  # its rule + 1 while nothing is held, missing, waited for or declared: TOP is NEXT_NUMBER - 1 then; else 0
ACCEPTED_TOP = 21  # the highest number that was delivered or held, as far as it did not simply come in order
PASSED = 22  # messages received and delivered while it was plain: ``counts`` has the others
SOURCE_FACTS = 23

# Rules, as the kernels know them.
DENSE = 0
RISING = 1
UNNUMBERED = 2
NAMELESS = 3  # no source is known: nothing to number by

# -- counts by source, in the order of gaps.COUNTED ------------------------------------------------------------------
RECEIVED = 0
DELIVERED = 1
DUPLICATE = 2
LATE = 3
CONFLICTING = 4
ORPHANED = 5
BUFFERED = 6
FILLED_NUMBERS = 7
LOST_NUMBERS = 8
COUNTS = 9

# -- nodes -----------------------------------------------------------------------------------------------------------
N_FIRST = 0
N_LAST = 1
N_CONTENT = 2
N_HEAD = 3
N_TAIL = 4
N_NEXT = 5
N_PREV = 6
N_CAUSE = 7
N_LOW_ID = 8  # of its rows; -1 in a free node, and while it is being received
N_HIGH_ID = 9
N_SINCE = 10  # when it began to wait for its cause
N_SEQUENCE = 11
N_PART = 12  # the last part received
N_SOURCE = 13
N_QUEUED = 14  # waits for a cause
N_EPOCH = 15
NODE_FACTS = 16

# -- gaps: the first columns are gaps.GAP's --------------------------------------------------------------------------
G_SERIAL = 0  # -1 in a free row
G_SOURCE = 1
G_EPOCH = 2
G_FIRST = 3
G_LAST = 4
G_STATE = 5
G_REASON = 6
G_OPENED = 7
G_CLOSED = 8
G_BEFORE = 9
G_AFTER = 10
G_PREV = 11
G_NEXT = 12
GAP_FACTS = 13

# -- deadlines -------------------------------------------------------------------------------------------------------
D_SOURCE = 0
D_SERIAL = 1
D_DUE = 2
DEADLINE_FACTS = 3

# -- out -------------------------------------------------------------------------------------------------------------
O_ROW = 0  # an input row, or ~slot of the store
O_TIME = 1
O_NUMBER = 2  # the number to write; KEEP: the row has its own
O_AFTER_LOSS = 3
ORDER_FACTS = 4

ASIDE_ID_FACTS = 2

A_ROW = 0
A_REASON = 1
ASIDE_FACTS = 2

X_POSITION = 0
X_GAP = 1  # from here on the columns of gaps.GAP
NOTICE_FACTS = 12

# -- values ----------------------------------------------------------------------------------------------------------
# Of G_STATE, G_REASON and A_REASON: GapState, GapReason and AsideReason as plain integers (a test compares them).
IS_OPEN, IS_FILLED, IS_LOST = 1, 2, 3
BY_DEADLINE, BY_WINDOW, BY_RESET, BY_END, BY_DECISION, BY_SKIP = 1, 2, 3, 4, 5, 6
IS_LATE, IS_CONFLICT, IS_ORPHANED = 1, 2, 3

# What a message is.
IS_NEXT, IS_EARLY, REPEATS, CONFLICTS, COMES_LATE, STALE, TELLS, HAS_NO_NUMBER, HAS_NO_ROOM = range(9)

# Verdicts on a message's cause.
GO, WAIT, CYCLE, ORPHAN = 0, 1, 2, 3

# What ``decide`` is told.
EXPIRE, GIVE_UP, FINISH, SKIP = 0, 1, 2, 3

KEEP = -2
FOREVER = (1 << 63) - 1
WORDS = 16
LOG_BITS = 40  # of an event id; the rest is the session
ASIDE_IDS = 1_024


class State(NamedTuple):
    """All tables of one sequencer. Kernels take the address of ``control``, which has those of the others."""

    control: npt.NDArray[np.int64]
    sources: Table
    counts: Table
    seen: npt.NDArray[np.int64]
    nodes: Table
    store: Table
    links: npt.NDArray[np.int64]
    gaps: Table
    deadlines: Table
    aside_ids: Table
    order: Table
    notices: Table
    aside: Table
