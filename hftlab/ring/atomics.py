"""Loads, stores and atomic operations on int64 words and rows at raw addresses, for kernels and for plain Python.

numba has no atomics on the CPU, and a plain spin loop on a word that another thread writes never ends: LLVM loads the
word once and loops on the register. Each function here is an LLVM instruction where a compiled kernel calls it, and
its own readable Python body where Python does (through ctypes, on the same memory), so a kernel's ``.py_func`` runs
too. The instructions work with ``nogil`` and ``cache=True``.

What an ordering promises: all that a thread wrote before its :func:`store_release` is seen by the thread whose
:func:`load_acquire` of the same word returned the stored value. :func:`load` and :func:`store` promise nothing across
threads; they are for words with one thread, or for a thread reading what only it writes.

**Tested on x86-64 only**, where aligned loads and stores acquire and release anyway, so these tests show that the
compiler keeps the order and not that a weaker machine would. The code states the orderings to LLVM, which makes
``ldar``, ``stlr`` and the like of them for ARM (a test compiles that and looks); nobody has run it there.

The Python bodies are for one thread: the interpreter may switch threads in the middle of one, so the read-modify-write
operations are atomic in compiled kernels alone.

Every address is an int64, as ``array.ctypes.data`` gives it in Python, a multiple of 8 for words, and **not checked**:
a wrong one ends the process. (Inside a kernel ``array.ctypes.data`` is unsigned, and numba turns uint64 + int64 into
a float: take addresses outside, or wrap them in ``np.int64``.)
"""

from __future__ import annotations

import ctypes
import inspect
import platform
from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, type_callable

from hftlab.ring.layout import LINE_BYTES, WORD_BYTES

Function = TypeVar("Function", bound=Callable[..., Any])

_I64 = ir.IntType(64)
# The pause instruction exists on x86 alone (inline assembly, which would serve ARM's yield, aborts numba).
_PAUSES = platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"}


def instruction(emit: Callable[..., Any], returns: Any = types.int64) -> Callable[[Function], Function]:
    """Have compiled callers of the decorated function run what ``emit(builder, *operands)`` builds, in line.

    Operands are int64, and so is the result (``returns=None``: there is none).
    Registered as typing and lowering instead of ``@intrinsic``, because an intrinsic can't be called from Python, and
    instead of ``@overload``, which compiles one more function at each use.
    """

    returns = types.none if returns is None else returns

    def register(function: Function) -> Function:
        signature = inspect.signature(function)
        operands = (types.int64,) * len(signature.parameters)

        def typer(*arguments: Any) -> Any:
            return returns(*operands) if all(isinstance(a, types.Integer) for a in arguments) else None

        typer.__signature__ = signature  # type: ignore[attr-defined]  # numba binds the call's arguments by it
        type_callable(function)(lambda context: typer)

        def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result = emit(builder, *arguments)
            return context.get_dummy_value() if signature.return_type == types.none else result

        lower_builtin(function, *operands)(lower)  # type: ignore[no-untyped-call]  # numba has no types
        return function

    return register


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())


def _emit_load(builder: Any, address: Any) -> Any:
    return builder.load(_word(builder, address), align=WORD_BYTES)


def _emit_load_acquire(builder: Any, address: Any) -> Any:
    return builder.load_atomic(_word(builder, address), "acquire", WORD_BYTES)


def _emit_store(builder: Any, address: Any, value: Any) -> Any:
    return builder.store(value, _word(builder, address), align=WORD_BYTES)


def _emit_store_release(builder: Any, address: Any, value: Any) -> Any:
    return builder.store_atomic(value, _word(builder, address), "release", WORD_BYTES)


def _emit_compare_and_swap(builder: Any, address: Any, expected: Any, desired: Any) -> Any:
    pair = builder.cmpxchg(_word(builder, address), expected, desired, "acq_rel", "acquire")
    return builder.extract_value(pair, 0)


def _emit_fetch_add(builder: Any, address: Any, amount: Any) -> Any:
    return builder.atomic_rmw("add", _word(builder, address), amount, "acq_rel")


def _emit_fence(builder: Any) -> Any:
    return builder.fence("seq_cst")


def _emit_pause(builder: Any) -> Any:
    if not _PAUSES:
        return None
    pause = builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), ir.FunctionType(ir.VoidType(), []))
    return builder.call(pause, [])


def _emit_copy(builder: Any, destination: Any, source: Any, count: Any) -> Any:
    pointer = ir.IntType(8).as_pointer()
    memcpy = builder.module.declare_intrinsic("llvm.memcpy", [pointer, pointer, _I64])
    ends = (builder.inttoptr(destination, pointer), builder.inttoptr(source, pointer))
    return builder.call(memcpy, [*ends, count, ir.Constant(ir.IntType(1), 0)])  # not volatile


def _emit_copy_line(builder: Any, destination: Any, source: Any) -> Any:
    # One wide load and one wide store, which become vector moves. A memcpy of a constant 128 bytes does not stay one:
    # in a kernel that chooses between it and a copy of row_bytes, LLVM merges the two into a call of the C library.
    line = ir.VectorType(_I64, LINE_BYTES // WORD_BYTES).as_pointer()
    row = builder.load(builder.inttoptr(source, line), align=1)
    return builder.store(row, builder.inttoptr(destination, line), align=1)


@instruction(lambda builder, value: value)
def wrapped(value: int) -> int:
    """Return the low 64 bits of ``value`` as a signed number: what a compiled integer is anyway, and Python's is not.

    Around whatever may overflow on purpose, as in a hash. (The operands of one product must not overflow before it.)
    """
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


@instruction(_emit_load)
def load(address: int) -> int:
    """Return the word at ``address``: for a word that no other thread writes."""
    return ctypes.c_int64.from_address(address).value


@instruction(_emit_load_acquire)
def load_acquire(address: int) -> int:
    """Return the word at ``address``; later reads and writes of this thread stay after it."""
    return ctypes.c_int64.from_address(address).value


@instruction(_emit_store, returns=None)
def store(address: int, value: int) -> None:
    """Write ``value`` to the word at ``address``: for a word that no other thread reads."""
    ctypes.c_int64.from_address(address).value = value


@instruction(_emit_store_release, returns=None)
def store_release(address: int, value: int) -> None:
    """Write ``value`` to the word at ``address``; earlier reads and writes of this thread stay before it."""
    ctypes.c_int64.from_address(address).value = value


@instruction(_emit_compare_and_swap)
def compare_and_swap(address: int, expected: int, desired: int) -> int:
    """Write ``desired`` if the word is ``expected``, as one step; return what it was (``expected`` means success).

    Acquires and releases when it succeeds, acquires when it does not.
    """
    word = ctypes.c_int64.from_address(address)
    found = word.value
    if found == expected:
        word.value = desired
    return found


@instruction(_emit_fetch_add)
def fetch_add(address: int, amount: int) -> int:
    """Add ``amount`` to the word as one step (wrapping at 2⁶³), and return what it was. Acquires and releases."""
    word = ctypes.c_int64.from_address(address)
    found = word.value
    word.value = found + amount  # ctypes keeps the low 64 bits, as the instruction does
    return found


@instruction(_emit_fence, returns=None)
def fence() -> None:
    """Keep all reads and writes before it before all after it, for every thread (sequentially consistent).

    The Python body does nothing: the interpreter reorders nothing within its own thread.
    """


@instruction(_emit_pause, returns=None)
def pause() -> None:
    """Tell the core that this is a spin loop: x86's ``pause``, nothing on other machines and in Python."""


@instruction(_emit_copy, returns=None)
def copy(destination: int, source: int, count: int) -> None:
    """Copy ``count`` bytes (at least 0) between blocks that don't overlap; any alignment."""
    ctypes.memmove(destination, source, count)


@instruction(_emit_copy_line, returns=None)
def copy_line(destination: int, source: int) -> None:
    """Copy 128 bytes: two to eight vector moves in line, where :func:`copy` calls the C library (about 3 ns)."""
    ctypes.memmove(destination, source, LINE_BYTES)
