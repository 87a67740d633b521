import dataclasses
import gc
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numba import njit

from hftlab.errors import ClaimError, ValidationError
from hftlab.ring import Consumer, Producer, Ring, RingStatistics
from hftlab.ring.atomics import pause, store
from hftlab.ring.kernels import push_row
from hftlab.ring.layout import LINE_BYTES

QUOTE = np.dtype([("number", "i8"), ("price", "f8"), ("rest", "V112")])


def quotes(first: int, count: int) -> Any:
    rows = np.zeros(count, QUOTE)
    rows["number"] = np.arange(first, first + count)
    rows["price"] = rows["number"] / 2
    return rows


class RingAgainstDeques(RuleBasedStateMachine):
    """The ring beside its model: per reader a deque of what was published and not consumed."""

    @initialize(exponent=st.integers(0, 4), readers=st.integers(1, 3))
    def make(self, exponent: int, readers: int) -> None:
        self.capacity = 1 << exponent
        self.ring = Ring(self.capacity, QUOTE, readers)
        self.producer = self.ring.producer()
        self.consumers = [self.ring.consumer(reader) for reader in range(readers)]
        self.unread: list[deque[int]] = [deque() for _ in range(readers)]
        self.published = 0
        self.claimed = 0

    @property
    def free(self) -> int:
        return self.capacity - max(map(len, self.unread))

    def publish_in_model(self, count: int) -> None:
        for numbers in self.unread:
            numbers.extend(range(self.published, self.published + count))
        self.published += count

    @precondition(lambda self: not self.claimed)
    @rule(count=st.integers(0, 40))
    def push(self, count: int) -> None:
        expected = min(count, self.free)
        assert self.producer.push(quotes(self.published, count)) == expected
        self.publish_in_model(expected)

    @rule(count=st.integers(0, 40))
    def claim(self, count: int) -> None:
        rows = self.producer.claim(count)
        until_wrap = self.capacity - self.published % self.capacity
        assert len(rows) == min(count, self.free, until_wrap)
        rows[:] = quotes(self.published, len(rows))
        self.claimed = len(rows)

    @rule(share=st.floats(0, 1))
    def publish(self, share: float) -> None:
        count = round(share * self.claimed)
        self.producer.publish(count)
        self.publish_in_model(count)
        self.claimed = 0

    @rule(excess=st.integers(1, 40))
    def publish_too_many(self, excess: int) -> None:
        with pytest.raises(ClaimError):
            self.producer.publish(self.claimed + excess)

    @rule(data=st.data(), count=st.integers(0, 40))
    def peek(self, data: st.DataObject, count: int) -> None:
        reader = data.draw(st.sampled_from(range(len(self.consumers))))
        consumer, numbers = self.consumers[reader], self.unread[reader]
        rows = consumer.peek(count)
        until_wrap = self.capacity - consumer.sequence % self.capacity
        assert len(rows) == min(count, len(numbers), until_wrap)
        assert rows.tobytes() == b"".join(quotes(number, 1).tobytes() for number in list(numbers)[: len(rows)])

    @rule(data=st.data(), share=st.floats(0, 1))
    def release(self, data: st.DataObject, share: float) -> None:
        reader = data.draw(st.sampled_from(range(len(self.consumers))))
        count = round(share * len(self.unread[reader]))
        self.consumers[reader].release(count)
        for _ in range(count):
            self.unread[reader].popleft()

    @rule(data=st.data(), excess=st.integers(1, 40))
    def release_too_many(self, data: st.DataObject, excess: int) -> None:
        reader = data.draw(st.sampled_from(range(len(self.consumers))))
        with pytest.raises(ClaimError):
            self.consumers[reader].release(len(self.unread[reader]) + excess)

    @rule(data=st.data(), count=st.integers(0, 40))
    def pop(self, data: st.DataObject, count: int) -> None:
        reader = data.draw(st.sampled_from(range(len(self.consumers))))
        numbers = self.unread[reader]
        out = quotes(-1_000_000, count)
        popped = self.consumers[reader].pop(out)
        assert popped == min(count, len(numbers))
        expected = [numbers.popleft() for _ in range(popped)]
        assert out["number"].tolist() == expected + list(range(-1_000_000 + popped, -1_000_000 + count))

    @invariant()
    def the_cheap_counts_never_promise_too_much(self) -> None:
        if not hasattr(self, "ring"):
            return
        assert 0 <= self.producer.cached_free <= self.free
        for consumer, numbers in zip(self.consumers, self.unread, strict=True):
            assert 0 <= consumer.cached_available <= len(numbers)

    @rule()
    def exact_counts_agree(self) -> None:
        """A rule and not an invariant: an exact count refreshes the cached one, which would then never be old."""
        assert self.producer.free == self.free == self.producer.cached_free
        for consumer, numbers in zip(self.consumers, self.unread, strict=True):
            assert consumer.available == len(numbers) == consumer.cached_available

    @invariant()
    def the_statistics_agree(self) -> None:
        if not hasattr(self, "ring"):
            return
        found = self.ring.statistics()
        assert found.published == self.published == self.producer.sequence
        assert found.available == tuple(map(len, self.unread))
        assert found.consumed == tuple(consumer.sequence for consumer in self.consumers)
        assert found.free == self.free
        assert self.producer.claimed == self.claimed


RingAgainstDeques.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRingAgainstDeques = RingAgainstDeques.TestCase


def ends(capacity: int = 8, dtype: Any = QUOTE) -> tuple[Ring, Producer, Consumer]:
    ring = Ring(capacity, dtype)
    return ring, ring.producer(), ring.consumer()


def test_rows_of_128_bytes_start_on_lines_of_their_own() -> None:
    ring, producer, consumer = ends()
    assert ring.address % LINE_BYTES == 0
    for sequence in range(20):
        claim = producer.claim(1)
        assert claim.ctypes.data == ring.address + ring.layout.rows_offset + 128 * (sequence % 8)
        assert claim.ctypes.data % LINE_BYTES == 0
        producer.publish(1)
        consumer.release(1)


def test_rows_are_opaque_and_128_bytes_long_by_default() -> None:
    ring = Ring(4)
    assert ring.dtype.itemsize == 128
    assert ring.producer().push(quotes(0, 3).view("V128")) == 3
    assert ring.consumer().peek(3).view(QUOTE)["number"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["f8", np.dtype([("a", "i4"), ("b", "u1", (20,))]), "V256"])
def test_rows_of_other_sizes_pass_as_well(dtype: Any) -> None:
    ring, producer, consumer = ends(4, dtype)
    rows = np.frombuffer(np.random.default_rng(1).bytes(3 * ring.dtype.itemsize), ring.dtype)
    out = np.empty(3, dtype)
    for _ in range(5):
        assert producer.push(rows) == 3
        assert consumer.pop(out) == 3
        assert out.tobytes() == rows.tobytes()


def test_claimed_rows_are_the_rings_own_memory_and_peeked_ones_are_read_only() -> None:
    _, producer, consumer = ends()
    claim = producer.claim(2)
    claim[:] = quotes(5, 2)
    producer.publish(2)
    block = consumer.peek(2)
    assert np.shares_memory(claim, block)
    assert block["number"].tolist() == [5, 6]
    with pytest.raises(ValueError, match="read-only"):
        block["number"] = 0


def test_aligned_blocks_are_never_cut_by_the_wrap_point() -> None:
    _, producer, consumer = ends(4_096)
    sequence = 0
    for push in (700, 1_024, 2_000, 3, 1_024) * 20:
        assert producer.push(quotes(sequence, push)) == push
        sequence += push
        while consumer.available >= 1_024:
            block = consumer.peek(1_024)
            assert len(block) == 1_024
            assert block["number"][0] == consumer.sequence
            consumer.release(1_024)


def test_a_full_ring_takes_nothing_until_its_slowest_reader_releases_and_counts_the_refusals() -> None:
    ring = Ring(4, QUOTE, readers=2)
    producer, fast, slow = ring.producer(), ring.consumer(0), ring.consumer(1)
    assert producer.push(quotes(0, 6)) == 4
    fast.release(4)
    assert producer.push(quotes(4, 1)) == 0
    assert len(producer.claim(1)) == 0
    slow.release(1)
    assert producer.push(quotes(4, 1)) == 1
    assert ring.statistics() == RingStatistics(
        capacity=4,
        row_bytes=128,
        readers=2,
        published=5,
        consumed=(4, 1),
        available=(1, 4),
        free=0,
        back_pressured=3,
    )


def test_a_reader_whose_handle_nobody_took_holds_the_producer_back_too() -> None:
    ring = Ring(4, QUOTE, readers=2)
    producer, consumer = ring.producer(), ring.consumer(0)
    producer.push(quotes(0, 4))
    consumer.release(4)
    assert producer.free == 0


def test_publishing_less_than_was_claimed_gives_the_rest_back() -> None:
    _, producer, consumer = ends()
    producer.claim(5)["number"] = [1, 2, 3, 4, 5]
    producer.publish(2)
    assert producer.claimed == 0
    assert producer.push(quotes(9, 1)) == 1
    assert consumer.peek(8)["number"].tolist() == [1, 2, 9]


def test_publishing_without_a_claim_or_more_than_it_is_refused_and_changes_nothing() -> None:
    _, producer, _ = ends()
    with pytest.raises(ClaimError, match="what the last claim gave, 0, got 1"):
        producer.publish(1)
    producer.claim(3)
    for count in (4, -1):
        with pytest.raises(ClaimError, match=f"what the last claim gave, 3, got {count}"):
            producer.publish(count)
    producer.publish(3)
    assert producer.sequence == 3


def test_releasing_more_than_is_available_is_refused_and_changes_nothing() -> None:
    _, producer, consumer = ends()
    producer.push(quotes(0, 3))
    for count in (4, -1):
        with pytest.raises(ClaimError, match=f"what is available, 3, got {count}"):
            consumer.release(count)
    consumer.release(3)
    assert consumer.sequence == 3


def test_pushing_into_an_open_claim_is_refused() -> None:
    _, producer, consumer = ends()
    producer.claim(2)
    with pytest.raises(ClaimError, match=r"2 rows that are claimed.*publish\(0\)"):
        producer.push(quotes(0, 1))
    producer.publish(0)
    assert producer.push(quotes(7, 1)) == 1
    assert consumer.peek(1)["number"].tolist() == [7]


def test_a_second_handle_for_one_role_is_refused() -> None:
    ring = Ring(8, readers=2)
    ring.producer()
    ring.consumer(1)
    with pytest.raises(ClaimError, match="the producer was taken before"):
        ring.producer()
    with pytest.raises(ClaimError, match="consumer 1 was taken before"):
        ring.consumer(1)
    assert ring.consumer(0).index == 0


@pytest.mark.parametrize("index", [-1, 1])
def test_a_reader_that_the_ring_does_not_have_is_refused(index: int) -> None:
    with pytest.raises(ValidationError, match=f"numbered 0 to 0, got {index}"):
        Ring(8).consumer(index)


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        (np.zeros(2, "V64"), "128 bytes .* got 64 bytes"),
        (np.zeros(2, "V128"), "ring's dtype"),
        (np.zeros((2, 2), QUOTE), "one-dimensional"),
        (np.zeros(4, QUOTE)[::2], "contiguous"),
        (np.zeros(4, QUOTE)[::-1], "contiguous"),
        ([(1, 2.0, b"")], "NumPy array .* got list"),
        (None, "got NoneType"),
    ],
)
def test_rows_of_another_type_or_shape_are_refused_at_both_ends(rows: Any, rule: str) -> None:
    _, producer, consumer = ends()
    for take in (producer.push, consumer.pop):
        with pytest.raises(ValidationError, match=rule):
            take(rows)


def test_popping_into_a_read_only_array_is_refused_and_pushing_from_one_is_not() -> None:
    _, producer, consumer = ends()
    rows = quotes(0, 2)
    rows.flags.writeable = False
    assert producer.push(rows) == 2
    with pytest.raises(ValidationError, match="read-only"):
        consumer.pop(rows)


def test_a_dtype_made_twice_is_the_same_type_of_row() -> None:
    _, producer, _ = ends()
    assert producer.push(quotes(0, 2).astype(np.dtype(QUOTE.descr))) == 2


@pytest.mark.parametrize(
    ("dtype", "rule"), [("O", "Python objects"), (("i8", (16,)), "bare array"), ("i4", "multiple of 8")]
)
def test_dtypes_that_can_not_be_rows_are_refused(dtype: Any, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Ring(8, dtype)


@pytest.mark.parametrize("count", [1.0, "1", None])
def test_counts_that_are_no_integers_are_refused(count: Any) -> None:
    _, producer, consumer = ends()
    for call in (producer.claim, producer.publish, consumer.peek, consumer.release):
        with pytest.raises(TypeError):
            call(count)


def test_negative_counts_are_refused() -> None:
    _, producer, consumer = ends()
    with pytest.raises(ValidationError, match="got -1"):
        producer.claim(-1)
    with pytest.raises(ValidationError, match="got -1"):
        consumer.peek(-1)


def test_handles_and_views_keep_the_memory_alive() -> None:
    ring, producer, consumer = ends()
    producer.push(quotes(3, 1))
    block = consumer.peek(1)
    del ring, producer, consumer
    gc.collect()
    assert block["number"].tolist() == [3]


@njit(nogil=True)
def count_up(ring: int, row: int, rows: int) -> None:
    for number in range(rows):
        store(row, number)  # the row's first eight bytes
        while not push_row(ring, row):
            pause()


def test_a_users_kernel_pushes_by_the_rings_address_and_a_handle_goes_on_from_there() -> None:
    ring = Ring(64, QUOTE)
    scratch = np.zeros(1, QUOTE)
    count_up(ring.address, scratch.ctypes.data, 10)
    ring.producer().push(quotes(10, 2))
    assert ring.consumer().peek(64)["number"].tolist() == list(range(12))


def test_the_reprs_are_short_and_say_what_is_in_the_ring() -> None:
    ring = Ring(1_024, QUOTE, readers=2)
    producer, consumer = ring.producer(), ring.consumer(1)
    producer.push(quotes(0, 24))
    consumer.release(4)
    assert repr(ring) == "Ring(capacity=1024, row_bytes=128, readers=2, published=24, free=1000)"
    assert repr(producer) == "Producer(sequence=24, free=1000, claimed=0)"
    assert repr(consumer) == "Consumer(index=1, sequence=4, available=20)"
    html = ring._repr_html_()
    assert "1,024 rows of 128 bytes" in html
    assert "<td>reader 1</td><td>4 consumed</td><td>20 available</td>" in html


def test_statistics_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ring(8).statistics().free = 3  # type: ignore[misc]
