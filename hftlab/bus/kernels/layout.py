"""What a compiled handler's loop, its ``emit`` and the owner of the memory share: a control block of words::

    RECORDS   address of the batch's first row          EMITTED   address of the buffer's first row
    COUNT     rows of the batch                         MARKS     address of a word for each row of the buffer: the
    POSITION  the row that is being handled                       position of the row that it was emitted for, with
    USED      rows of the buffer that are written                 NUMBERED where an order's id gets a number, and
    FIRST     USED when row LAST began to emit                    with BROKEN where it breaks a rule
    LAST      the row that emitted last                 REFUSED   rows that row LAST was refused
                                                        STOP      1: the loop ends before the next row

One event may emit MOST_EMISSIONS rows, so the loop stops where fewer are free. One more than that goes into a row
behind the buffer that nobody looks at, and is counted as refused.
"""

from __future__ import annotations

from hftlab.events.records import ORDER_ID_BYTES

MOST_EMISSIONS = 256
"""How many events a compiled handler may emit for one event."""
BUFFER_ROWS = 1_024
"""Rows of the buffer; there is one more behind them, for what is refused."""
PREFIX_BYTES = ORDER_ID_BYTES - 13
"""Bytes that the prefix of an order's id may have: the number behind it has up to 13 digits."""

WORD = 8
RECORDS, COUNT, POSITION, USED, FIRST, LAST, EMITTED, MARKS, REFUSED, STOP = range(0, 10 * WORD, WORD)
CONTROL_WORDS = 16

NUMBERED = 1 << 40
BROKEN = 1 << 41
POSITIONS = NUMBERED - 1
"""The bits of a mark that are a position."""
