"""``Journey``: where time goes on an event's way, recorded: a histogram a stage, per type, symbol and handler.

**Coordinated omission.** Whoever measures by asking and waiting for the answer asks nobody while the answer is late,
and the worst moments are missing from the figures. A journey begins at a stamp that the event brought with it: its
``timestamp``, or the arrival by the kernel or the card. An event that waited because those before it were slow was
stamped when it came, so its wait is in RECEIVED … TOTAL, and nothing is omitted.

Something is omitted where nobody stamped the event as it came:

- a socket that is read without kernel stamps: events are stamped when they are read, after their wait in its queue;
- a source that stops sending while its peer is slow (a TCP window that is full): it never makes the events that would
  have waited;
- a loop that times its own turns, one after the other: a stall is one long turn.

Remedies, in this order: kernel stamps; a source that does not wait (UDP); and for timed loops that are due every so
often ``histogram.corrected(expected_interval_ns)``, which adds what would have been measured meanwhile. Never correct
what began at the event's own stamp: its waits would be counted twice.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError, shown
from hftlab.metrics.histogram import Histogram
from hftlab.metrics.journeys import kernels
from hftlab.metrics.journeys import layout as at
from hftlab.metrics.journeys.slots import HistogramTable, SymbolSlots
from hftlab.metrics.journeys.stages import BY_SYMBOL, Stage
from hftlab.metrics.kernels import record_repeated

if TYPE_CHECKING:
    from hftlab.clock.skew import Skew

Ints = npt.NDArray[np.int64]

OTHER_HANDLERS = "other handlers"
MOST_SLOTS = 4_096
_NONE: Ints = np.zeros(0, np.int64)
_NO_CHUNK = (_NONE,) * 5
_INT64 = np.dtype(np.int64)


class Journey:
    """What one path (a bus, a replay, a processor) records of its events' ways, and what ``Latency`` shows.

    Stages of rows (RECEIVED, TOTAL) are kept per type and symbol, the others per type, and HANDLED per handler too. The
    first ``most_symbols`` symbols and ``most_handlers`` handlers (each of a type) have histograms of their own; later
    ones share ``other symbols`` and ``other handlers``. Below 0 nothing is dropped: ``Histogram.negative`` counts it.

    ``sample=k``: of rows each k-th is recorded, from a place that a seeded generator draws for each call; what is noted
    for whole batches is recorded in full. ``skew`` corrects the arrivals of RECEIVED; the envelopes, and so ``skews``,
    stay those of the raw stamps. ``virtual``: its rows are from the past, and how long ago they arrived is no latency;
    whoever records leaves out TOTAL.

    Memory, at 128 sub-buckets: 57 KiB for each histogram that holds something, that is per type up to
    ``2 * (most_symbols + 1) + 5``, and ``most_handlers + 1`` per type of handlers': 4.4 MiB with four types of five
    symbols and five handlers each, 44 MiB where all slots are taken; and 150 KiB. One thread records and asks.
    """

    def __init__(
        self,
        path: str,
        *,
        type_names: Mapping[int, str],
        symbol_name: Callable[[int], str],
        source_name: Callable[[int], str],
        sample: int = 1,
        most_symbols: int = 64,
        most_handlers: int = 64,
        sub_buckets: int = 128,
        skew: Skew | None = None,
        seed: int = 0,
        virtual: bool = False,
    ) -> None:
        """Raises ValidationError for a ``sample`` below 1, slots beyond 0 to 4,096, and as Histogram does."""
        for what, number, least, most in (("sample", sample, 1, 1 << 31), ("most_symbols", most_symbols, 0, MOST_SLOTS),
                                          ("most_handlers", most_handlers, 0, MOST_SLOTS)):  # fmt: skip
            if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
                raise ValidationError(f"{what} is an integer from {least} to {most:,}; got {shown(number)}")
        Histogram(sub_buckets)  # raises for what is none
        self.path, self.sample, self.sub_buckets = path, sample, sub_buckets
        self.most_symbols, self.most_handlers = most_symbols, most_handlers
        self._type_names, self._source_name = type_names, source_name
        self._symbol_name = symbol_name
        self.virtual = virtual
        self.untimed = 0
        """Rows that came too fast for each to be timed by itself; whoever records counts them."""
        self.before_asked: Callable[[], None] | None = None
        """Called before anybody looks: whoever records may have kept something back, to note more at once."""
        self._slots = SymbolSlots(most_symbols, symbol_name)
        self._seed = seed
        self._phase = random.Random(seed)
        self._stages: dict[tuple[Stage, int], Histogram] = {}
        self._symbols: dict[tuple[Stage, int, int], Histogram] = {}
        self._handlers: dict[tuple[str, int], Histogram] = {}
        self._handler_names: set[str] = set()
        self._tables: dict[int, HistogramTable] = {}
        self.skew = skew
        self._drift = 0.0
        if skew is not None:
            state = self._slots.state
            state[at.SKEWED], state[at.OFFSET_NS], state[at.REFERENCE_NS] = 1, skew.offset_ns, skew.reference_ns
            self._drift = (skew.drift_ppb or 0.0) * 1e-9

    # -- recording ----------------------------------------------------------------------------------------------------

    def note(self, stage: Stage, event_type: int, duration_ns: int, events: int = 1) -> None:
        """Record one duration for all of these events. About 1 µs. Raises ValidationError as ``Histogram.record``."""
        self._stage(stage, event_type).record(duration_ns, events)

    def note_runs(self, stage: Stage, event_type: int, at_ns: int, runs: Sequence[tuple[int, int]]) -> None:
        """Record ``at_ns - since_ns`` for runs of ``(events, since_ns)``. About 1 µs a run."""
        histogram = self._stage(stage, event_type)
        for events, since_ns in runs:
            histogram.record(at_ns - since_ns, events)

    def note_handler(self, handler: str, event_type: int, duration_ns: int, events: int = 1) -> None:
        """Record how long a handler took for each of these events. About 1 µs."""
        self._handler(handler, event_type).record(duration_ns, events)

    def note_delivery(self, handler: str, event_type: int, duration_ns: int, events: int) -> None:
        """Record HANDLED of a batch, for its type and its handler: as ``note`` and ``note_handler`` do, faster."""
        record_repeated(self._stage(Stage.HANDLED, event_type).address, duration_ns, events)
        record_repeated(self._handler(handler, event_type).address, duration_ns, events)

    def note_since(self, stage: Stage, event_type: int, since_ns: Ints, now_ns: int) -> None:
        """Record ``now_ns - since_ns`` for an array of moments. About 8 µs and 3 ns a value."""
        self._stage(stage, event_type).record_differences(now_ns, since_ns)

    def note_rows(
        self,
        rows: npt.NDArray[Any],
        event_type: int,
        now_ns: int | None,
        *,
        arrivals: bool = True,
        queued: tuple[Ints, Ints] | None = None,
        thinned: int = 1,
        weight: int = 1,
    ) -> None:
        """Record RECEIVED of the rows that have both stamps (``arrivals``), and, given ``now_ns`` (UTC), TOTAL of all.

        ``queued``: where runs of the rows end, and when they were let go into their order (UTC): SEQUENCED is that less
        their arrival. ``thinned``: of so many rows that would be recorded one is; each counts ``weight`` times.
        ``rows``: contiguous, of 128 bytes, all of one type. 1.5 µs a call; 4 ns a row, 6 with TOTAL, twice that where
        each row is of another symbol. Raises ValidationError for other arrays.
        """
        words, sequenced = _NO_CHUNK, 0
        if queued is not None:
            words = (_NONE, _NONE, _NONE, _words(queued[0]), _words(queued[1]))
            sequenced = self._stage(Stage.SEQUENCED, event_type).address
        self._walk(
            rows, event_type, 0, 0, words, 0, now_ns is not None, now_ns or 0,
            arrivals=arrivals, sequenced=sequenced, thinned=thinned, weight=weight,
        )  # fmt: skip

    def note_chunk(
        self,
        rows: npt.NDArray[Any],
        event_type: int,
        positions: Ints | None,
        marks_rows: Ints,
        marks_ns: Ints,
        queued_rows: Ints,
        queued_ns: Ints,
        utc_minus_counter_ns: int,
        total: bool,
        *,
        sequenced: bool = False,
        thinned: int = 1,
        handler: str | None = None,
        weight: int = 1,
    ) -> None:
        """Record RECEIVED, DISPATCHED, HANDLED and, if ``total``, TOTAL of the rows of one type of a chunk.

        ``positions``: the rows' places in the chunk, rising; None: 0 to n - 1. At the counter's ``marks_ns[j]`` the
        first ``marks_rows[j]`` (rising, the first one 0) rows of the chunk were through their handlers; between two
        marks rows are evenly spaced. ``queued_rows``: where runs of the chunk's rows end that were queued at
        ``queued_ns`` (UTC). A row's DISPATCHED is its begin less that, HANDLED its end less its begin, TOTAL its end
        less its ``received``; and, if ``sequenced``, SEQUENCED when it was queued less that. ``thinned``: of so many
        rows that would be recorded one is. ``handler``: the one that all rows of the chunk went to. Rows behind the
        last mark were not handled, and only RECEIVED is theirs; rows behind the last run have no DISPATCHED.

        3.5 µs a call; 8 ns a row, 9 with TOTAL, and 12 and 16 where symbols alternate. Raises ValidationError, with
        nothing recorded, for other arrays than these.
        """
        given = (marks_rows, marks_ns, queued_rows, queued_ns)
        words = (_NONE if positions is None else _words(positions), *map(_words, given))
        if len(words[1]) != len(words[2]) or len(words[3]) != len(words[4]) or not len(words[1]):
            raise ValidationError(
                "a chunk's marks, one at least, and its runs are pairs of arrays of one length; got "
                f"{len(words[1])} and {len(words[2])} marks, {len(words[3])} and {len(words[4])} runs"
            )
        if positions is not None and len(words[0]) != len(rows):
            raise ValidationError(f"each row has a position; got {len(words[0])} of {len(rows)} rows")
        dispatched, handled = self._stage(Stage.DISPATCHED, event_type), self._stage(Stage.HANDLED, event_type)
        self._walk(
            rows, event_type, dispatched.address, handled.address, words, utc_minus_counter_ns, total, 0,
            sequenced=self._stage(Stage.SEQUENCED, event_type).address if sequenced else 0, thinned=thinned,
            by_handler=0 if handler is None else self._handler(handler, event_type).address, weight=weight,
        )  # fmt: skip

    def _stage(self, stage: Stage, event_type: int) -> Histogram:
        return self._stages.get((stage, event_type)) or self._histogram_of(stage, event_type)

    def _handler(self, handler: str, event_type: int) -> Histogram:
        return self._handlers.get((handler, event_type)) or self._handlers_histogram(handler, event_type)

    # -- asking -------------------------------------------------------------------------------------------------------

    def stage_histograms(self) -> Iterator[tuple[Stage, str, str | None, Histogram]]:
        """The live histograms, with their type's name and, of RECEIVED and TOTAL, their symbol's. Types before symbols.

        What was noted of these two without a symbol is under ``other symbols``, as all beyond ``most_symbols`` is.
        """
        self._ask()
        for (stage, event_type), histogram in self._stages.items():
            yield stage, self._type_name(event_type), None, histogram
        for (stage, event_type, slot), histogram in self._symbols.items():
            yield stage, self._type_name(event_type), self._slots.slot_name(slot), histogram

    def handler_histograms(self) -> Iterator[tuple[str, str, Histogram]]:
        """The live histograms of handlers, with the handler's and the type's name."""
        self._ask()
        for (handler, event_type), histogram in self._handlers.items():
            yield handler, self._type_name(event_type), histogram

    @property
    def skews(self) -> dict[str, Skew]:
        """How far the recorder's clock is from each source's, by the least of the differences seen; raw, not corrected.

        Of up to 16 sources, and without those that have too few rows to tell. About 1 ms a source.
        """
        from hftlab.clock.skew import skew_of_envelope

        self._ask()
        found = {}
        for source, at_ns, least_ns, events, resolution_ns in self._slots.envelope_points():
            # Too little data to fit is an answer, not an error: rows may just have begun to come.
            with contextlib.suppress(ValidationError):
                found[self._source_name(source)] = skew_of_envelope(at_ns, least_ns, events, resolution_ns)
        return found

    @property
    def far_apart(self) -> int:
        """Rows whose two stamps are more than a day apart: in RECEIVED, but in no envelope."""
        return int(self._slots.state[at.IMPLAUSIBLE])

    @property
    def without_envelope(self) -> int:
        """Rows of sources beyond the 16 that have an envelope."""
        return int(self._slots.state[at.BEYOND])

    # -- the whole ----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget all that was recorded, symbols and handlers too; the samples are then drawn as in the beginning."""
        self._ask()
        self._slots.clear()
        self._tables.clear()
        self._stages.clear()
        self._symbols.clear()
        self._handlers.clear()
        self._handler_names.clear()
        self._phase = random.Random(self._seed)
        self.untimed = 0

    def copy(self) -> Journey:
        """All that is recorded, in memory of its own, which nobody goes on recording into. About 10 µs a histogram."""
        self._ask()
        twin = Journey(
            self.path, type_names=self._type_names, symbol_name=self._symbol_name, source_name=self._source_name,
            sample=self.sample, most_symbols=self.most_symbols, most_handlers=self.most_handlers,
            sub_buckets=self.sub_buckets, skew=self.skew, seed=self._seed, virtual=self.virtual,
        )  # fmt: skip
        twin._slots = self._slots.copy()
        twin._stages = {key: histogram.copy() for key, histogram in self._stages.items()}
        twin._handlers = {key: histogram.copy() for key, histogram in self._handlers.items()}
        twin._handler_names = set(self._handler_names)
        for (stage, event_type, slot), histogram in self._symbols.items():
            twin._keep(stage, event_type, slot, histogram.copy())
        twin._phase.setstate(self._phase.getstate())
        twin.untimed = self.untimed
        return twin

    def __repr__(self) -> str:
        counts = [f"{stage.name.lower()} {count:,}" for stage in Stage if (count := self._recorded(stage))]
        sampled = f", 1 row in {self.sample:,}" if self.sample > 1 else ""
        return f"Journey({self.path!r}: {', '.join(counts) or 'nothing recorded'}{sampled})"

    def _ask(self) -> None:
        if self.before_asked is not None:
            self.before_asked()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _recorded(self, stage: Stage) -> int:
        return sum(histogram.recorded for known, _, _, histogram in self.stage_histograms() if known is stage)

    def _type_name(self, event_type: int) -> str:
        return self._type_names.get(event_type, f"type {event_type}")

    def _walk(
        self, rows: npt.NDArray[Any], event_type: int, dispatched: int, handled: int,
        words: tuple[Ints, ...], utc_minus_counter_ns: int, total: bool, now_ns: int, *,
        arrivals: bool = True, sequenced: int = 0, thinned: int = 1, by_handler: int = 0, weight: int = 1,
    ) -> None:  # fmt: skip
        if rows.dtype.itemsize != at.ROW_BYTES or rows.ndim != 1 or not rows.flags.c_contiguous:
            raise ValidationError(
                f"rows are a contiguous array of 128-byte records, such as batch.records; got {rows.dtype} of shape "
                f"{rows.shape}"
            )
        count = len(rows)
        if not count:
            return
        record = np.frombuffer(rows, _INT64)  # a tenth of what the address costs, and of one type for the kernel
        table = self._tables.get(event_type)
        if table is None:
            table = self._tables[event_type] = HistogramTable(self.most_symbols)
        positions, marks_rows, marks_ns, queued_rows, queued_ns = words
        stride = self.sample * thinned
        place = int(self._phase.random() * stride) if stride > 1 else 0  # randrange takes four times as long
        while place < count:
            place = kernels.walk(
                self._slots.address, record, place, stride, table.address, dispatched, handled,
                positions, marks_rows, marks_ns, queued_rows, queued_ns,
                utc_minus_counter_ns, total, now_ns, self._drift, arrivals, sequenced, by_handler, weight,
            )  # fmt: skip
            if place < count:
                symbol = int(record[(place * at.ROW_BYTES + at.ROW_SYMBOL) // 8]) & 0xFFFFFFFF
                self._open(self._slots.slot_for(symbol), event_type)

    def _open(self, slot: int, event_type: int) -> None:
        """Give a slot its histograms of this type."""
        for stage in BY_SYMBOL:
            if (stage, event_type, slot) not in self._symbols:
                self._keep(stage, event_type, slot, Histogram(self.sub_buckets))

    def _keep(self, stage: Stage, event_type: int, slot: int, histogram: Histogram) -> None:
        self._symbols[stage, event_type, slot] = histogram
        table = self._tables.setdefault(event_type, HistogramTable(self.most_symbols))
        table.words[2 * slot + BY_SYMBOL.index(stage)] = histogram.address

    def _histogram_of(self, stage: Stage, event_type: int) -> Histogram:
        """The histogram that ``note`` records into; of RECEIVED and TOTAL, for which it has no symbol, the rest's."""
        if stage in BY_SYMBOL:
            key = (stage, event_type, self.most_symbols)
            self._open(self.most_symbols, event_type)
            return self._symbols[key]
        return self._stages.setdefault((stage, event_type), Histogram(self.sub_buckets))

    def _handlers_histogram(self, handler: str, event_type: int) -> Histogram:
        if handler not in self._handler_names:
            if len(self._handler_names) >= self.most_handlers:
                handler = OTHER_HANDLERS
            else:
                self._handler_names.add(handler)
        return self._handlers.setdefault((handler, event_type), Histogram(self.sub_buckets))


def _words(array: Ints) -> Ints:
    """As the kernel is compiled for: a read-only array would have it compiled once more, for seconds."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.ndim != 1:
        raise ValidationError(f"a chunk's positions, marks and runs are arrays of int64; got {shown(array)}")
    words = np.ascontiguousarray(array, np.int64)
    return words if words.flags.writeable else words.copy()
