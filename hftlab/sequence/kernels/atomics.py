"""Facts in the tables of ``layout``, read and written at raw addresses, by name.

``s`` is the address of the control block, ``rows`` that of a batch's first row. Nothing is checked: the caller keeps
the tables alive and large enough. Each function here is a few LLVM instructions where a compiled kernel calls it, and
its own readable body in plain Python. Tables as arguments would be tuples of arrays: ten times slower, in reference
counting that LLVM does not remove; and as compiled accessors, called 400 times, they doubled the compile time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import njit

from hftlab.ring.atomics import instruction, load, store
from hftlab.sequence import layout as at

Function = TypeVar("Function", bound=Callable[..., Any])

_I64 = ir.IntType(64)


def called(function: Function) -> Function:
    """A kernel that only other kernels call: without the ways in from Python and C, which double the compile time."""
    compiled: Function = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)  # type: ignore[call-overload]
    return compiled


def _constant(value: int) -> Any:
    return ir.Constant(_I64, value)


def _load(builder: Any, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, _I64.as_pointer()), align=8)


def _store(builder: Any, address: Any, value: Any) -> Any:
    return builder.store(value, builder.inttoptr(address, _I64.as_pointer()), align=8)


def _place(builder: Any, address: Any, index: Any, width_bytes: int = 8) -> Any:
    return builder.add(address, builder.mul(index, _constant(width_bytes)))


def _cell(table: int, facts: int) -> Any:
    """What builds the address of a fact of a row of a table."""

    def address(builder: Any, s: Any, row: Any, fact: Any) -> Any:
        begin = _load(builder, builder.add(s, _constant(table * 8)))
        return _place(builder, _place(builder, begin, row, facts * 8), fact)

    return address


def _reads(table: int, facts: int) -> Callable[[Function], Function]:
    cell = _cell(table, facts)
    return instruction(lambda builder, s, row, fact: _load(builder, cell(builder, s, row, fact)))


def _writes(table: int, facts: int) -> Callable[[Function], Function]:
    cell = _cell(table, facts)
    return instruction(
        lambda builder, s, row, fact, value: _store(builder, cell(builder, s, row, fact), value), returns=None
    )


def _emit_add(builder: Any, s: Any, name: Any, amount: Any) -> Any:
    address = _place(builder, s, name)
    return _store(builder, address, builder.add(_load(builder, address), amount))


def _emit_count(builder: Any, s: Any, source: Any, what: Any, amount: Any) -> Any:
    address = _cell(at.COUNTS_AT, at.COUNTS)(builder, s, source, what)
    return _store(builder, address, builder.add(_load(builder, address), amount))


def _seen_cell(builder: Any, s: Any, source: Any, place: Any) -> Any:
    remembered = _load(builder, builder.add(s, _constant(at.REMEMBERED * 8)))
    begin = _load(builder, builder.add(s, _constant(at.SEEN_AT * 8)))
    return _place(builder, begin, builder.add(builder.mul(source, remembered), place), 16)


def _emit_seen(builder: Any, s: Any, source: Any, place: Any, fact: Any) -> Any:
    return _load(builder, _place(builder, _seen_cell(builder, s, source, place), fact))


def _emit_remember(builder: Any, s: Any, source: Any, place: Any, sequence: Any, content: Any) -> Any:
    address = _seen_cell(builder, s, source, place)
    _store(builder, address, sequence)
    return _store(builder, builder.add(address, _constant(8)), content)


@instruction(lambda builder, s, name: _load(builder, _place(builder, s, name)))
def get(s: int, name: int) -> int:
    """A number of the control block."""
    return load(s + name * 8)


@instruction(lambda builder, s, name, value: _store(builder, _place(builder, s, name), value), returns=None)
def put(s: int, name: int, value: int) -> None:
    """Set a number of the control block."""
    store(s + name * 8, value)


@instruction(_emit_add, returns=None)
def add(s: int, name: int, amount: int) -> None:
    """Add to a number of the control block."""
    put(s, name, get(s, name) + amount)


@instruction(lambda builder, rows, row, index: _load(builder, _place(builder, _place(builder, rows, row, 128), index)))
def word(rows: int, row: int, index: int) -> int:
    """One of the 16 words of a row."""
    return load(rows + (row * at.WORDS + index) * 8)


@instruction(lambda builder, s, slot: _cell(at.STORE_AT, at.WORDS)(builder, s, slot, _constant(0)))
def stored_row(s: int, slot: int) -> int:
    """The address of a row in the store."""
    return get(s, at.STORE_AT) + slot * at.WORDS * 8


@instruction(lambda builder, s, slot: _load(builder, _cell(at.LINKS_AT, 1)(builder, s, slot, _constant(0))))
def link(s: int, slot: int) -> int:
    """The row behind one in the store."""
    return load(get(s, at.LINKS_AT) + slot * 8)


@instruction(
    lambda builder, s, slot, following: _store(
        builder, _cell(at.LINKS_AT, 1)(builder, s, slot, _constant(0)), following
    ),
    returns=None,
)
def set_link(s: int, slot: int, following: int) -> None:
    """Put a row behind another in the store."""
    store(get(s, at.LINKS_AT) + slot * 8, following)


@instruction(_emit_seen)
def seen(s: int, source: int, place: int, fact: int) -> int:
    """Sequence (0) or content (1) of a remembered message."""
    return load(get(s, at.SEEN_AT) + (source * get(s, at.REMEMBERED) + place) * 16 + fact * 8)


@instruction(_emit_remember, returns=None)
def remember_at(s: int, source: int, place: int, sequence: int, content: int) -> None:
    """Remember a message."""
    address = get(s, at.SEEN_AT) + (source * get(s, at.REMEMBERED) + place) * 16
    store(address, sequence)
    store(address + 8, content)


@instruction(_emit_count, returns=None)
def count(s: int, source: int, what: int, amount: int) -> None:
    """Add to one of a source's counts."""
    address = get(s, at.COUNTS_AT) + (source * at.COUNTS + what) * 8
    store(address, load(address) + amount)


@_reads(at.SOURCES_AT, at.SOURCE_FACTS)
def source_fact(s: int, source: int, fact: int) -> int:
    """A fact about a source."""
    return load(get(s, at.SOURCES_AT) + (source * at.SOURCE_FACTS + fact) * 8)


@_writes(at.SOURCES_AT, at.SOURCE_FACTS)
def set_source(s: int, source: int, fact: int, value: int) -> None:
    """Set a fact about a source."""
    store(get(s, at.SOURCES_AT) + (source * at.SOURCE_FACTS + fact) * 8, value)


@_reads(at.NODES_AT, at.NODE_FACTS)
def node_fact(s: int, node: int, fact: int) -> int:
    """A fact about a held message."""
    return load(get(s, at.NODES_AT) + (node * at.NODE_FACTS + fact) * 8)


@_writes(at.NODES_AT, at.NODE_FACTS)
def set_node(s: int, node: int, fact: int, value: int) -> None:
    """Set a fact about a held message."""
    store(get(s, at.NODES_AT) + (node * at.NODE_FACTS + fact) * 8, value)


@_reads(at.GAPS_AT, at.GAP_FACTS)
def gap_fact(s: int, gap: int, fact: int) -> int:
    """A fact about a gap."""
    return load(get(s, at.GAPS_AT) + (gap * at.GAP_FACTS + fact) * 8)


@_writes(at.GAPS_AT, at.GAP_FACTS)
def set_gap(s: int, gap: int, fact: int, value: int) -> None:
    """Set a fact about a gap."""
    store(get(s, at.GAPS_AT) + (gap * at.GAP_FACTS + fact) * 8, value)


@_reads(at.DEADLINES_AT, at.DEADLINE_FACTS)
def deadline_fact(s: int, place: int, fact: int) -> int:
    """A fact about a deadline."""
    return load(get(s, at.DEADLINES_AT) + (place * at.DEADLINE_FACTS + fact) * 8)


@_writes(at.DEADLINES_AT, at.DEADLINE_FACTS)
def set_deadline(s: int, place: int, fact: int, value: int) -> None:
    """Set a fact about a deadline."""
    store(get(s, at.DEADLINES_AT) + (place * at.DEADLINE_FACTS + fact) * 8, value)


@_reads(at.ORDER_AT, at.ORDER_FACTS)
def ordered(s: int, place: int, fact: int) -> int:
    """A fact about a delivered row."""
    return load(get(s, at.ORDER_AT) + (place * at.ORDER_FACTS + fact) * 8)


@_writes(at.ORDER_AT, at.ORDER_FACTS)
def set_ordered(s: int, place: int, fact: int, value: int) -> None:
    """Set a fact about a delivered row."""
    store(get(s, at.ORDER_AT) + (place * at.ORDER_FACTS + fact) * 8, value)


@_reads(at.ASIDE_IDS_AT, at.ASIDE_ID_FACTS)
def aside_id(s: int, place: int, fact: int) -> int:
    """A fact about a message that was set aside: its lowest (0) or highest (1) event id."""
    return load(get(s, at.ASIDE_IDS_AT) + (place * at.ASIDE_ID_FACTS + fact) * 8)


@_writes(at.ASIDE_IDS_AT, at.ASIDE_ID_FACTS)
def set_aside_id(s: int, place: int, fact: int, value: int) -> None:
    """Set a fact about a message that was set aside: its lowest (0) or highest (1) event id."""
    store(get(s, at.ASIDE_IDS_AT) + (place * at.ASIDE_ID_FACTS + fact) * 8, value)


@_writes(at.NOTICES_AT, at.NOTICE_FACTS)
def set_notice(s: int, place: int, fact: int, value: int) -> None:
    """Set a fact about a notice."""
    store(get(s, at.NOTICES_AT) + (place * at.NOTICE_FACTS + fact) * 8, value)


@_writes(at.ASIDE_AT, at.ASIDE_FACTS)
def set_row_aside(s: int, place: int, fact: int, value: int) -> None:
    """Set a fact about a row that is set aside."""
    store(get(s, at.ASIDE_AT) + (place * at.ASIDE_FACTS + fact) * 8, value)
