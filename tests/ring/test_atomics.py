"""The instructions, compiled and as their Python bodies, on the same input; and what they promise between threads."""

import re
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.binding as binding
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import ir
from numba import TypingError, njit, types

from hftlab.ring import allocate, atomics
from hftlab.ring.atomics import (
    compare_and_swap,
    copy,
    copy_line,
    fence,
    fetch_add,
    load,
    load_acquire,
    pause,
    store,
    store_release,
)

WORDS = st.integers(-(2**63), 2**63 - 1)


@njit(cache=False)
def words_through_every_instruction(address: int, first: int, second: int, expected: int) -> tuple[int, ...]:
    store(address, first)
    seen = load(address)
    seen_acquired = load_acquire(address)
    store_release(address + 8, second)
    fence()
    pause()
    added_to = fetch_add(address + 8, first)
    found = compare_and_swap(address, expected, second)
    return seen, seen_acquired, added_to, found, load(address), load(address + 8)


@njit(cache=False)
def copies(destination: int, source: int, count: int) -> None:
    copy(destination, source, count)
    copy_line(destination + 512, source)


@given(first=WORDS, second=WORDS, other=WORDS, succeeds=st.booleans())
def test_each_word_operation_does_the_same_compiled_and_in_python(
    first: int, second: int, other: int, succeeds: bool
) -> None:
    expected = first if succeeds else other
    outcomes = []
    for function in (words_through_every_instruction, words_through_every_instruction.py_func):
        words = np.zeros(4, np.int64)
        outcomes.append((function(words.ctypes.data, first, second, expected), words.tolist()))
    assert outcomes[0] == outcomes[1]
    seen, seen_acquired, added_to, found, first_after, second_after = outcomes[0][0]
    assert (seen, seen_acquired, added_to, found) == (first, first, second, first)
    assert first_after == (second if expected == first else first)
    assert second_after == (first + second + 2**63) % 2**64 - 2**63
    assert outcomes[0][1][2:] == [0, 0]


@given(content=st.binary(min_size=128, max_size=512), offset=st.integers(0, 15))
def test_copies_move_the_same_bytes_compiled_and_in_python_at_any_alignment(content: bytes, offset: int) -> None:
    source = allocate(offset + len(content))
    source[offset:] = np.frombuffer(content, np.uint8)
    results = []
    for function in (copies, copies.py_func):
        destination = allocate(1024)
        function(destination.ctypes.data + offset, source.ctypes.data + offset, len(content))
        results.append(destination.tobytes())
    assert results[0] == results[1]
    assert results[0][offset : offset + 512] == content.ljust(512, b"\0")
    assert results[0][offset + 512 : offset + 640] == content[:128]


def test_an_address_that_is_not_an_integer_does_not_compile() -> None:
    @njit(cache=False)
    def load_from_a_float(address: float) -> int:
        return load(address)  # type: ignore[arg-type]

    with pytest.raises(TypingError):
        load_from_a_float(1.5)


def test_every_public_function_says_in_its_module_what_it_does() -> None:
    functions = [value for name, value in vars(atomics).items() if callable(value) and not name.startswith("_")]
    ours = [function for function in functions if getattr(function, "__module__", "") == atomics.__name__]
    assert len(ours) == 12
    assert all(function.__doc__ for function in ours)


@njit(nogil=True)
def add_one_by_one(address: int, times: int) -> None:
    for _ in range(times):
        fetch_add(address, 1)


@njit(nogil=True)
def add_by_compare_and_swap(address: int, times: int) -> None:
    for _ in range(times):
        while True:
            found = load_acquire(address)
            if compare_and_swap(address, found, found + 1) == found:
                break


@njit(nogil=True)
def await_and_answer(address: int, turns: int, mine: int) -> int:
    """Wait for an own turn of the word, check the payload that came with it, write another and pass the turn on."""
    wrong = 0
    for turn in range(mine, turns, 2):
        while load_acquire(address) != turn:
            pause()
        wrong += load(address + 128) != turn
        store(address + 128, turn + 1)
        store_release(address, turn + 1)
    return wrong


def _in_two_threads(function: Callable[..., Any], *arguments: tuple[Any, ...]) -> list[Any]:
    for own in arguments:
        function.compile((types.int64,) * len(own))  # type: ignore[attr-defined]
    results: list[Any] = [None] * len(arguments)

    def run(index: int) -> None:
        results[index] = function(*arguments[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(arguments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("function", [add_one_by_one, add_by_compare_and_swap])
def test_no_addition_of_two_threads_to_one_word_is_lost(function: Callable[..., Any]) -> None:
    words = allocate(128).view(np.int64)
    address = int(words.ctypes.data)
    _in_two_threads(function, (address, 1_000_000), (address, 1_000_000))
    assert words[0] == 2_000_000


def test_a_spin_loop_sees_the_other_threads_stores_and_what_was_written_before_them() -> None:
    memory = allocate(256)
    address = int(memory.ctypes.data)
    turns = 20_000
    assert _in_two_threads(await_and_answer, (address, turns, 0), (address, turns, 1)) == [0, 0]
    assert memory.view(np.int64)[0] == turns


def test_the_orderings_become_the_instructions_that_arm_has_for_them() -> None:
    """Compiled for ARM and looked at, not run: this machine can't."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple("aarch64-unknown-linux-gnu")
    except RuntimeError as error:
        pytest.skip(f"this LLVM knows no ARM: {error}")
    expected: dict[Callable[..., Any], tuple[int, str]] = {
        atomics._emit_load: (1, r"\bldr\b"),
        atomics._emit_load_acquire: (1, r"\bldar\b"),
        atomics._emit_store: (2, r"\bstr\b"),
        atomics._emit_store_release: (2, r"\bstlr\b"),
        atomics._emit_compare_and_swap: (3, r"\bldaxr\b(?s:.*)\bstlxr\b"),
        atomics._emit_fetch_add: (2, r"\bldaxr\b(?s:.*)\bstlxr\b"),
        atomics._emit_fence: (0, r"\bdmb\s+ish\b"),
    }
    word = ir.IntType(64)
    for emit, (operands, instruction) in expected.items():
        module = ir.Module()
        function = ir.Function(module, ir.FunctionType(word, [word] * operands), "function")
        builder = ir.IRBuilder(function.append_basic_block())
        result = emit(builder, *function.args)
        builder.ret(result if result.type == word else word(0))
        machine = target.create_target_machine(opt=2, features="-lse,-outline-atomics")
        assert re.search(instruction, machine.emit_assembly(binding.parse_assembly(str(module)))), emit.__name__
