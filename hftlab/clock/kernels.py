"""A disciplined clock read from compiled code: the counter, and the line from it to the time that is shown.

The line lies in a block of int64 words on a cache line of its own, written by one writer at a time and read by any
number of threads without a lock (a seqlock): ``VERSION`` is odd while the line changes. The writer makes it odd
*before* it reads the counter at which the new line begins; a reader takes the counter *between* two looks at the same
even version. So who still sees the old line read its counter before the new one began, and time never falls, across
threads too. Loads are acquire, stores release, and a fence keeps the second look behind the counter.

A change is one call of compiled code, ``bend``, and not steps in Python between which the version is odd: a reader may
hold the interpreter's lock (a kernel without ``nogil``), and would wait for ever for a writer that waits for the lock.
So readers wait for 0.1 µs; or, if the operating system puts the writer to sleep just then, until that goes on.

The loads and stores stand in this file because numba's cache on disk knows only the file of the kernel itself.
``line.LONGEST_BEND_NS`` is here again for the same reason.
"""

from __future__ import annotations

import ctypes
import inspect
import math
import struct
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable

Function = TypeVar("Function", bound=Callable[..., Any])

VERSION, BEGIN, SHOWN, SLEW, END, END_SHOWN, RATE = range(7)
BLOCK_WORDS = 8
"""One cache line."""

_WORD = 8
_CLOCK_MONOTONIC = 1
_INT64 = ir.IntType(64)
_LONGEST_BEND_NS = 1 << 53


def _instruction(
    emit: Callable[..., Any], returns: Any = types.int64, takes: Any = types.int64
) -> Callable[[Function], Function]:
    """Have compiled callers run what ``emit(builder, *operands)`` builds, and Python callers the function's body."""

    def register(function: Function) -> Function:
        signature = inspect.signature(function)
        operands = (takes,) * len(signature.parameters)

        def typer(*arguments: Any) -> Any:
            return returns(*operands) if all(isinstance(a, types.Number) for a in arguments) else None

        typer.__signature__ = signature  # type: ignore[attr-defined]  # numba binds the call's arguments by it
        type_callable(function)(lambda context: typer)

        def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result = emit(builder, *arguments)
            return context.get_dummy_value() if signature.return_type == types.none else result

        lower_builtin(function, *operands)(lower)  # type: ignore[no-untyped-call]  # numba has no types
        return function

    return register


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _INT64.as_pointer())


@_instruction(lambda builder, address: builder.load_atomic(_pointer(builder, address), "acquire", 8))
def _load(address: int) -> int:
    """The int64 at ``address``, and nothing that is read after it is read before."""
    return ctypes.c_int64.from_address(int(address)).value


@_instruction(
    lambda builder, address, value: builder.store_atomic(value, _pointer(builder, address), "release", 8), types.none
)
def _store(address: int, value: int) -> None:
    """Write an int64, after all that was written before it."""
    ctypes.c_int64.from_address(int(address)).value = value


@_instruction(lambda builder: builder.fence("seq_cst"), types.none)
def _fence() -> None:
    """Nothing passes it, in either direction."""


@_instruction(lambda builder, bits: builder.bitcast(bits, ir.DoubleType()), types.float64)
def _as_float(bits: int) -> float:
    """The float64 that has these bits."""
    return float(struct.unpack("<d", struct.pack("<q", int(bits)))[0])


@_instruction(lambda builder, number: builder.bitcast(number, _INT64), takes=types.float64)
def _as_bits(number: float) -> int:
    """The bits of a float64."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def _read_monotonic(builder: Any) -> Any:
    """A call of ``clock_gettime(CLOCK_MONOTONIC)``, which is what ``perf_counter_ns`` reads."""
    spec = cgutils.alloca_once(builder, ir.ArrayType(_INT64, 2))  # type: ignore[no-untyped-call]  # numba has no types
    kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), spec.type])
    function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")  # type: ignore[no-untyped-call]
    builder.call(function, [ir.Constant(ir.IntType(32), _CLOCK_MONOTONIC), spec])
    zero = ir.Constant(ir.IntType(32), 0)
    seconds, rest = (builder.load(builder.gep(spec, [zero, ir.Constant(ir.IntType(32), at)])) for at in (0, 1))
    return builder.add(builder.mul(seconds, ir.Constant(_INT64, 1_000_000_000)), rest)


@_instruction(_read_monotonic)
def counter_ns() -> int:
    """``time.perf_counter_ns()``, on Linux."""
    return time.perf_counter_ns()


@njit(cache=True, nogil=True)
def shown_at(block: int, counter: int) -> int:
    """What the line of this block shows when the counter stands there. For whoever knows that it does not change."""
    end = _load(block + END * _WORD)
    if counter < end:
        elapsed = counter - _load(block + BEGIN * _WORD)
        return _load(block + SHOWN * _WORD) + elapsed + math.floor(elapsed * _as_float(_load(block + SLEW * _WORD)))
    elapsed = counter - end
    return _load(block + END_SHOWN * _WORD) + elapsed + math.floor(elapsed * _as_float(_load(block + RATE * _WORD)))


@njit(cache=True, nogil=True)
def now_ns(block: int) -> int:
    """The time that the clock of this block shows, in ns UTC: about 30 ns. Any thread; never falls, see the module."""
    while True:
        version = _load(block)
        if version & 1 == 0:
            counter = counter_ns()
            # Behind the counter, or the look that follows might be taken before it.
            _fence()
            shown = shown_at(block, counter)
            if _load(block) == version:
                return shown


@njit(cache=True, nogil=True)
def place(block: int, begin: int, shown: int, slew: float, end: int, end_shown: int, rate: float) -> None:
    """Write a line's words, in the order of ``Line``; for a block that nobody reads yet, or whose version is odd."""
    _store(block + BEGIN * _WORD, begin)
    _store(block + SHOWN * _WORD, shown)
    _store(block + SLEW * _WORD, _as_bits(slew))
    _store(block + END * _WORD, end)
    _store(block + END_SHOWN * _WORD, end_shown)
    _store(block + RATE * _WORD, _as_bits(rate))


@njit(cache=True, nogil=True)
def bend_at(block: int, counter: int, at: int, utc: int, rate: float, least: int, most_gain: float, jump: int) -> None:
    """``Line.toward(counter, target)``, operation by operation; the version is odd. The last six are the target's."""
    shown = shown_at(block, counter)
    elapsed = counter - at
    missing = utc + elapsed + math.floor(elapsed * rate) - shown
    if jump != 0 and missing > 0:
        shown += missing
        missing = 0
    needed = float(abs(missing)) / most_gain
    length = _LONGEST_BEND_NS
    if needed < _LONGEST_BEND_NS:
        length = max(least, math.ceil(needed))
    slew = rate + min(max(float(missing) / float(length), -most_gain), most_gain)
    place(block, counter, shown, slew, counter + length, shown + length + math.floor(length * slew), rate)


@njit(cache=True, nogil=True)
def bend(block: int, at: int, utc: int, rate: float, least: int, most_gain: float, jump: int) -> int:
    """Have the line go on toward a target from now on; return the counter at which it does. One writer at a time."""
    version = _load(block)
    _store(block, version + 1)
    # Before the counter is read: a reader who misses this has read its own before.
    _fence()
    counter = counter_ns()
    bend_at(block, counter, at, utc, rate, least, most_gain, jump)
    _store(block, version + 2)
    return counter


_I, _F = types.int64, types.float64
_SIGNATURES = (
    (shown_at, (_I, _I)),
    (now_ns, (_I,)),
    (place, (_I, _I, _I, _F, _I, _I, _F)),
    (bend_at, (_I, _I, _I, _I, _F, _I, _F, _I)),
    (bend, (_I, _I, _I, _F, _I, _F, _I)),
)


def warm() -> int:
    """Compile every kernel that Python calls into numba's cache on disk, or load what is there; return how many."""
    for kernel, signature in _SIGNATURES:
        cast(Any, kernel).compile(signature)
    return len(_SIGNATURES)
