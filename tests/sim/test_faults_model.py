"""``faults`` against a model that carries out the truth message by message, in plain Python; and what it claims."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab.sim as sim
from hftlab.events import EventBatch, Flags
from hftlab.events.rules import check_records
from hftlab.sim import Fault, FaultyBatch
from tests.sim.lines import batches, rates, same_bytes

seeds = st.integers(0, 1000)
LOST = ("loss", "loss burst", "tail loss")
MOVED = ("disorder", "late burst")
AGAIN = ("duplicate", "conflict")


@dataclass(frozen=True)
class Message:
    """A message as the model sees it; ``number`` is its place in the batch, ``rows`` how many it has."""

    number: int
    source: int
    epoch: int
    sequence: int
    span: int
    rows: int
    received: int
    beats: bool

    @property
    def stream(self) -> tuple[int, int]:
        return self.source, self.epoch


def messages(batch: EventBatch) -> list[Message]:
    """The arrivals of a batch, in order; a row with part 0 begins one."""
    found: list[Message] = []
    for row in batch.records:
        if row["part"] == 0:
            beats = bool(row["flags"] & (Flags.HEARTBEAT | Flags.END_OF_SESSION))
            names = ("cause", "source", "epoch", "sequence", "span", "part", "received")
            number, source, epoch, sequence, span, part, received = (int(row[name]) for name in names)
            found.append(Message(number, source, epoch, sequence, span, part + 1, received, beats))
        else:
            last = found[-1]
            assert (last.number, last.rows) == (row["cause"], row["part"]), "parts stay together and in order"
            assert last.received == row["received"]
            found[-1] = replace(last, rows=last.rows + 1)
    return found


def faults_of(faulty: FaultyBatch) -> list[dict[str, Any]]:
    """The truth as dictionaries, with the kind's label."""
    names = faulty.truth.records.dtype.names or ()
    listed = [dict(zip(names, row, strict=True)) for row in faulty.truth.records.tolist()]
    for fault in listed:
        fault["kind"] = Fault(fault["kind"]).label
    return listed


def with_resets(sent: list[Message], starts: set[int]) -> list[Message]:
    """The messages once their sources began new epochs at the messages of these numbers."""
    result: dict[int, Message] = {}
    for source in {message.source for message in sent}:
        mine = sorted((m for m in sent if m.source == source), key=lambda m: m.epoch)
        sections: list[list[Message]] = []
        for message in mine:
            fresh = not sections or sections[-1][-1].epoch != message.epoch or message.number in starts
            sections.append([message]) if fresh else sections[-1].append(message)
        begun = 0
        for section in sections:
            shift = 0
            if section[0].number in starts:
                begun += 1
                shift = min(m.sequence - m.span for m in section if m.sequence >= 0)
            for message in section:
                sequence = message.sequence - shift if message.sequence >= 0 else -1
                result[message.number] = replace(message, epoch=message.epoch + begun, sequence=sequence)
    return [result[message.number] for message in sent]


def carried_out(sent: list[Message], faults: list[dict[str, Any]]) -> list[Message]:
    """What arrives, in order, of these messages after these faults (clock steps and resets aside)."""
    touched: dict[int, str] = {}
    arriving: list[tuple[int, int, int, list[Message]]] = []
    runs = []
    for fault in faults:
        if fault["kind"] in ("reset", "clock step"):
            continue
        stream = [m for m in sent if m.stream == (fault["source"], fault["epoch"])]
        leads = [i for i, m in enumerate(stream) if m.sequence - m.span + 1 == fault["first"] and not m.beats]
        assert len(leads) == 1, "the truth names one message"
        run = stream[leads[0] : leads[0] + fault["messages"]]
        assert run[-1].sequence == fault["last"]
        assert fault["rows"] == sum(m.rows for m in run)
        for message in run:
            assert message.number not in touched, "no message has two faults"
            touched[message.number] = fault["kind"]
        runs.append((fault, run))
    settled = [m for m in sent if touched.get(m.number) not in (*LOST, *MOVED)]
    reached = np.maximum.accumulate([m.received for m in sent]).tolist() if sent else []
    for fault, run in runs:
        lead, amount = run[0], fault["amount"]
        if fault["kind"] == "late burst":
            at = run[-1].received + amount
            behind = sent[max(i for i, time in enumerate(reached) if time <= at)].number
        elif fault["kind"] in (*AGAIN, "disorder"):
            later = [m for m in settled if m.stream == lead.stream and m.number > lead.number]
            passed = later[amount - 1] if amount else lead
            behind, at = passed.number, passed.received
        else:
            continue
        arriving.append((behind, at, run[0].number, [replace(m, received=at) for m in run]))
    result = []
    # By stream only where two arrive at the same place at the same time.
    order = {m.number: i for i, m in enumerate(sorted(sent, key=lambda m: (m.source, m.epoch, m.number)))}
    arriving.sort(key=lambda each: (each[0], each[1], order[each[2]]))
    for message in sent:
        if message in settled:
            result.append(message)
        for behind, _, _, run in arriving:
            if behind == message.number:
                result += run
    return result


def broken(batch: EventBatch, seed: int, asked: dict[str, Any]) -> tuple[list[Message], FaultyBatch]:
    """The batch's messages after the faults' resets, and the faulty batch."""
    faulty = sim.faults(batch, seed=seed, **asked)
    clean = batch if faulty.truth.asked.nothing else sim.numbered(batch)
    starts = {int(faulty.records["cause"][f["position"]]) for f in faults_of(faulty) if f["kind"] == "reset"}
    return with_resets(messages(clean), starts), faulty


@settings(max_examples=300, deadline=None)
@given(batch=batches(), seed=seeds, asked=rates())
def test_the_faulty_batch_is_what_the_truth_says_carried_out_message_by_message(
    batch: EventBatch, seed: int, asked: dict[str, Any]
) -> None:
    sent, faulty = broken(batch, seed, asked)
    faults = faults_of(faulty)
    expected = carried_out(sent, faults)
    begins, row = [], 0
    for message in expected:
        begins.append(row)
        row += message.rows
    shift, shifted = 0, []
    steps = {f["position"]: f["amount"] for f in faults if f["kind"] == "clock step"}
    assert set(steps) <= set(begins), "a clock step lies between messages"
    for begin, message in zip(begins, expected, strict=True):
        shift += steps.get(begin, 0)
        shifted.append(replace(message, received=message.received + shift))
    assert messages(faulty) == shifted
    for fault in faults:
        if fault["kind"] in LOST:
            assert fault["position"] == -1
        else:
            assert fault["received"] == faulty.records["received"][fault["position"]]


@settings(max_examples=200, deadline=None)
@given(batch=batches(), seed=seeds, asked=rates())
def test_messages_and_rows_are_conserved(batch: EventBatch, seed: int, asked: dict[str, Any]) -> None:
    sent, faulty = broken(batch, seed, asked)
    truth, faults = faulty.truth, faults_of(faulty)
    assert truth.messages_in == len(sent)
    assert truth.messages_out == len(messages(faulty))
    assert truth.messages_out == truth.messages_in - truth.messages_lost + truth.messages_repeated
    rows = sum(f["rows"] * ((f["kind"] in AGAIN) - (f["kind"] in LOST)) for f in faults)
    assert len(faulty) == truth.rows_out == truth.rows_in + rows
    assert truth.rows_in == len(batch)


def missing(arrived: list[Message]) -> dict[tuple[int, int], set[int]]:
    """By stream, the numbers between the first ever seen and the greatest that nothing brought."""
    seen: dict[tuple[int, int], set[int]] = {}
    first: dict[tuple[int, int], int] = {}
    for message in arrived:
        if message.sequence >= 0 and not message.beats:
            first.setdefault(message.stream, message.sequence)
            covered = range(message.sequence - message.span + 1, message.sequence + 1)
            seen.setdefault(message.stream, set()).update(covered)
    return {stream: set(range(first[stream], max(have))) - have for stream, have in seen.items()}


@settings(max_examples=200, deadline=None)
@given(batch=batches(), seed=seeds, asked=rates())
def test_a_perfect_sequencer_finds_the_lost_numbers_the_batchs_own_and_no_others(
    batch: EventBatch, seed: int, asked: dict[str, Any]
) -> None:
    sent, faulty = broken(batch, seed, {**asked, "tail": 0})
    before, after = missing(sent), missing(messages(faulty))
    assert set(before) == set(after), "the first message of a stream always arrives"
    texts = [source.text for source in faulty.sources]
    lost = {
        key: {number for first, last in ranges for number in range(first, last + 1)}
        for key, ranges in {**faulty.truth.lost, **faulty.truth.lost_unseen}.items()
    }
    for (source, epoch), numbers in after.items():
        rule = faulty.sources[source].rule
        known = lost.pop((texts[source], epoch), set())
        assert (numbers == before[source, epoch] | known) or (rule == "shared" and known <= numbers)
    assert not lost


@settings(max_examples=200, deadline=None)
@given(batch=batches(), seed=seeds, asked=rates())
def test_arrivals_never_fall_but_at_clock_steps_and_all_rows_stay_valid(
    batch: EventBatch, seed: int, asked: dict[str, Any]
) -> None:
    faulty = sim.faults(batch, seed=seed, **asked)
    received = faulty.records["received"]
    falls = np.flatnonzero(received[1:] < received[:-1]) + 1
    steps = [f["position"] for f in faults_of(faulty) if f["kind"] == "clock step"]
    assert set(falls.tolist()) <= set(steps)
    for run in faulty.runs():
        assert run.type is not None
        check_records(run.type, run.records)
    ahead = (faulty.records["flags"] & Flags.AHEAD) != 0
    np.testing.assert_array_equal(ahead, faulty.records["timestamp"] > received)


@settings(max_examples=100, deadline=None)
@given(batch=batches(), seed=seeds, asked=rates())
def test_the_order_of_the_truth_is_the_order_along_the_batch(
    batch: EventBatch, seed: int, asked: dict[str, Any]
) -> None:
    faults = faults_of(sim.faults(batch, seed=seed, **asked))
    positions = [f["position"] for f in faults if f["position"] >= 0]
    assert all(one <= two for one, two in pairwise(positions))


@settings(max_examples=100, deadline=None)
@given(batch=batches(), seed=seeds)
def test_with_nothing_asked_for_the_batch_comes_out_byte_for_byte(batch: EventBatch, seed: int) -> None:
    faulty = sim.faults(batch, seed=seed)
    assert same_bytes(batch, faulty)
    assert len(faulty.truth) == 0
    assert faulty.truth.messages_in == faulty.truth.messages_out == len(messages(batch))


@settings(max_examples=100, deadline=None)
@given(batch=batches(), seed=seeds, asked=rates())
def test_the_same_again_is_the_same_and_the_batch_is_not_changed(
    batch: EventBatch, seed: int, asked: dict[str, Any]
) -> None:
    before = batch.records.tobytes()
    one, two = (sim.faults(batch, seed=seed, **asked) for _ in range(2))
    assert batch.records.tobytes() == before
    assert same_bytes(one, two)
    assert one.truth.records.tobytes() == two.truth.records.tobytes()


@settings(max_examples=200, deadline=None)
@given(batch=batches(), seed=seeds, asked=rates())
def test_nothing_arrives_in_a_later_epoch_of_its_source_than_its_own(
    batch: EventBatch, seed: int, asked: dict[str, Any]
) -> None:
    faulty = sim.faults(batch, seed=seed, **asked)
    for source in range(1, len(faulty.sources)):
        epochs = faulty.records["epoch"][faulty.records["source"] == source].astype(np.int64)
        assert np.all(np.diff(epochs) >= 0)
