"""Every kernel, compiled and as plain Python, on the same input: the same results, and the same bytes in the ring."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core.registry import CPUDispatcher

from hftlab.ring import Layout, allocate, atomics, kernels, layout

KERNELS = {name: kernel for name, kernel in vars(kernels).items() if isinstance(kernel, CPUDispatcher)}
COUNT_MAX = 20
ROW_BYTES_MAX = 256


class Side:
    """One ring and the rows outside it, driven by compiled kernels or by their Python bodies."""

    def __init__(self, layout: Layout, compiled: bool) -> None:
        self.layout = layout
        self.compiled = compiled
        self.block = allocate(layout.size_bytes)
        layout.format(self.block)
        self.ring = int(self.block.ctypes.data)
        self.outside = allocate(COUNT_MAX * ROW_BYTES_MAX)
        self.written = 0

    def call(self, name: str, *arguments: Any) -> int:
        kernel = KERNELS[name]
        function = kernel if self.compiled else kernel.py_func
        return int(function(self.ring, *arguments))

    def fresh_rows(self, count: int) -> Any:
        """Rows that were never there before, in the memory outside."""
        rows = self.outside[: count * self.layout.row_bytes]
        words = rows.view(np.int64)
        words[:] = np.arange(self.written, self.written + len(words))
        self.written += len(words)
        return rows

    def step(self, operation: str, reader: int, count: int, part: int) -> tuple[Any, ...]:
        """Do one thing within the kernels' contract; return all that can be observed but the ring's bytes."""
        rows = self.fresh_rows(count)
        address = int(self.outside.ctypes.data)
        if operation in ("push_row", "push_rows", "push_array"):
            if operation == "push_row":
                return (self.call(operation, int(self.fresh_rows(1).ctypes.data)),)
            return (self.call(operation, address if operation == "push_rows" else rows, count),)
        if operation in ("pop_row", "pop_rows", "pop_array"):
            target = {"pop_row": (address,), "pop_rows": (address, count), "pop_array": (rows, count)}[operation]
            return self.call(operation, reader, *target), self.outside.tobytes()
        if operation == "claim and publish":
            claimed = self.call("claim_rows", count)
            start = self.call("claim_address") - self.ring
            size_bytes = claimed * self.layout.row_bytes
            self.block[start : start + size_bytes] = rows[:size_bytes]
            return claimed, start, self.call("publish_rows", min(part, claimed))
        if operation == "peek and release":
            peeked = self.call("peek_rows", reader, count)
            start = self.call("peek_address", reader) - self.ring
            return peeked, start, self.call("release_rows", reader, min(part, peeked))
        return (
            self.call("free_rows"),
            self.call("reserve_rows", count),
            self.call("available_rows", reader),
            self.call("ready_rows", reader, count),
            self.call("row_address", part) - self.ring,
        )


OPERATIONS = (
    "push_row",
    "push_rows",
    "push_array",
    "pop_row",
    "pop_rows",
    "pop_array",
    "claim and publish",
    "peek and release",
    "look",
)


@given(
    layout=st.builds(
        Layout,
        capacity=st.sampled_from([1, 2, 4, 8, 16]),
        row_bytes=st.sampled_from([8, 24, 128, ROW_BYTES_MAX]),
        readers=st.integers(1, 3),
    ),
    steps=st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 2), st.integers(0, COUNT_MAX), st.integers(0, COUNT_MAX)),
        max_size=40,
    ),
)
def test_every_kernel_does_the_same_compiled_and_as_plain_python(
    layout: Layout, steps: list[tuple[str, int, int, int]]
) -> None:
    compiled, plain = Side(layout, compiled=True), Side(layout, compiled=False)
    for operation, reader, count, part in steps:
        step = (operation, reader % layout.readers, count, part)
        assert compiled.step(*step) == plain.step(*step)
        assert compiled.block.tobytes() == plain.block.tobytes()


def test_the_comparison_of_compiled_and_plain_leaves_no_kernel_out() -> None:
    called: set[str] = set()

    class Spy(Side):
        def call(self, name: str, *arguments: Any) -> int:
            called.add(name)
            return super().call(name, *arguments)

    side = Spy(Layout(4), compiled=False)
    for operation in OPERATIONS:
        side.step(operation, 0, 1, 1)
    assert called == set(KERNELS)


def test_a_batch_across_the_wrap_point_comes_out_as_it_went_in() -> None:
    side = Side(Layout(8, row_bytes=8), compiled=True)
    out = np.zeros(6, np.int64)
    for _ in range(10):
        rows = side.fresh_rows(6).view(np.int64).copy()
        assert side.call("push_rows", int(rows.ctypes.data), 6) == 6
        assert side.call("pop_rows", 0, int(out.ctypes.data), 6) == 6
        assert out.tolist() == rows.tolist()


def test_rows_one_by_one_come_out_as_they_went_in_until_the_ring_is_full_or_empty() -> None:
    side = Side(Layout(2, row_bytes=24), compiled=True)
    out = np.zeros(3, np.int64)
    for _ in range(5):
        rows = [side.fresh_rows(1).view(np.int64).copy() for _ in range(3)]
        assert [side.call("push_row", int(row.ctypes.data)) for row in rows] == [1, 1, 0]
        popped = []
        for _ in range(3):
            count = side.call("pop_row", 0, int(out.ctypes.data))
            popped += [out.tolist()] * count
        assert popped == [row.tolist() for row in rows[:2]]


def test_a_poll_that_finds_nothing_does_not_write_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side(Layout(1, row_bytes=8), compiled=False)
    address = int(side.outside.ctypes.data)

    def refuse(address: int, value: int) -> None:
        raise AssertionError("a cursor was written: its line would leave the other side's cache at every poll")

    monkeypatch.setattr(kernels, "store_release", refuse)
    assert side.call("pop_row", 0, address) == side.call("pop_rows", 0, address, 1) == 0
    monkeypatch.undo()
    side.call("push_row", address)
    monkeypatch.setattr(kernels, "store_release", refuse)
    assert side.call("push_row", address) == side.call("push_rows", address, 1) == 0


def test_warming_compiles_every_kernel_for_the_types_that_python_callers_use() -> None:
    assert kernels.warm() >= len(KERNELS)
    assert all(kernel.signatures for kernel in KERNELS.values())


def test_calls_through_the_handles_need_no_kernel_that_warming_leaves_out() -> None:
    from hftlab.ring import Ring

    kernels.warm()
    before = {name: list(kernel.signatures) for name, kernel in KERNELS.items()}
    rows = np.zeros(4, "V128")
    read_only = rows.view()
    read_only.flags.writeable = False
    ring = Ring(4)
    producer, consumer = ring.producer(), ring.consumer()
    producer.push(rows[:1])
    producer.push(read_only[:1])
    producer.push(np.zeros(1, "V128").view(np.recarray))
    producer.publish(len(producer.claim(9)))
    consumer.release(len(consumer.peek(9)) - 1)
    consumer.pop(rows)
    assert (producer.free, consumer.available) == (4, 0)
    assert {name: list(kernel.signatures) for name, kernel in KERNELS.items()} == before


def test_the_kernels_file_names_the_sources_that_its_cached_machine_code_contains() -> None:
    sources = (Path(str(module.__file__)).read_bytes() for module in (atomics, layout))
    found = hashlib.sha256(b"".join(sources)).hexdigest()[:16]
    assert found == kernels.COMPILED_IN, f'write COMPILED_IN = "{found}" into kernels.py, or stale kernels stay cached'


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_each_kernel_is_cached_on_disk_and_says_whose_it_is(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.stats.cache_path is not None
    assert str(kernel.py_func.__doc__).split(":")[0] in {"Producer", "Reader", "Anybody"}
