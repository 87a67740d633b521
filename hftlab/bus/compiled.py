"""Handlers of mode "jit": compiled when they are subscribed, run over a batch without returning to Python.

``CompiledHandler`` owns the memory that the loop, the handler and its ``emit`` share (see ``kernels.layout``), and does
what they can't: it takes emitted rows out when the buffer is full, tells of a failure with the one event that the
handler raised on, and goes on behind it. ``interpret`` runs the same handler as plain Python: for a debugger, and for
tests.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.bus.kernels import layout as at
from hftlab.bus.kernels.emit import Emitter
from hftlab.bus.kernels.emitted import judge
from hftlab.bus.kernels.jit import Loop, compile_loop, make_loop, python_function
from hftlab.errors import CascadeError, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.records import DTYPES, RECORD, EventType, Rows, event_ids
from hftlab.events.rowbytes import concat_rows, copy_rows, data_address, take_rows
from hftlab.events.rules import check_records

__all__ = ["CompiledHandler", "EmittedRows", "Emitter", "compile_handler", "interpret"]

Failed = Callable[[int, Exception], None]
"""Told of an exception, with the position of the row that the handler was given."""

# Where each word of the control block is, as an index.
_RECORDS, _COUNT, _POSITION, _USED = (word // at.WORD for word in (at.RECORDS, at.COUNT, at.POSITION, at.USED))
_LAST, _EMITTED, _MARKS, _REFUSED, _STOP = (
    word // at.WORD for word in (at.LAST, at.EMITTED, at.MARKS, at.REFUSED, at.STOP)
)  # fmt: skip

_PARAMETERS = (("record", "state", "emit"), ("record", "state"), ("record", "emit"), ("record",))
_LIMIT = f"a jit handler may emit {at.MOST_EMISSIONS} events for one event; {{:,}} more were refused"


class EmittedRows(NamedTuple):
    """What a compiled handler emitted for a batch: ``rows`` of any types, in order, under RECORD.

    ``causes`` are the ids of the events that they were emitted for (int64, one a row), ``marks`` what was noted of them
    (see ``kernels.layout``). ``refused`` counts those that were too many for one event.
    """

    rows: Rows
    causes: npt.NDArray[np.int64]
    marks: npt.NDArray[np.int64]
    refused: int


class CompiledHandler:
    """A handler's loops, by type, its ``state``, and the buffer that it emits into (130 kB if it emits).

    One thread. ``state`` is the user's own object, changed in place.
    """

    def __init__(self, loops: Mapping[EventType, Loop], state: Any, emits: bool) -> None:
        self.state = state
        self._loops = loops
        # One row more than may be used: see kernels.layout.
        self._rows = np.zeros(at.BUFFER_ROWS + 1 if emits else 0, RECORD)
        self._marks = np.zeros(len(self._rows), np.int64)
        self._control = np.zeros(at.CONTROL_WORDS, np.int64)
        self._address = int(self._control.ctypes.data)
        # A memoryview's words are read in 30 ns, an array's in 90.
        self._words = memoryview(self._control.data).cast("B").cast("q")
        self._words[_EMITTED] = int(self._rows.ctypes.data)
        self._words[_MARKS] = int(self._marks.ctypes.data)
        self._taken: list[tuple[Rows, npt.NDArray[np.int64]]] = []
        self._refused = 0
        self._batch: EventBatch | None = None  # the one that is being handled

    def handle(self, batch: EventBatch, failed: Failed) -> EmittedRows | None:
        """Run the handler over a batch of one type; about 1 µs and 3 ns a row. None: it emitted nothing.

        What it emitted for an event before it raised on it stays emitted, and what it changed stays changed. After a
        KeyboardInterrupt, which comes between two calls of the loop, the same batch goes on where it was.
        """
        if self._batch is not batch:
            self._begin(batch)
        words, count = self._words, len(batch)
        assert batch.type is not None
        loop = self._loops[batch.type]
        while words[_POSITION] < count:
            try:
                loop(self._address, self.state)
            except Exception as error:  # the user's own function
                position = words[_POSITION]
                words[_POSITION] = position + 1
                failed(position, error)
            if words[_STOP]:
                self._make_room(failed)
        if words[_USED]:
            self._take()
        emitted = self._judged(batch, failed) if self._taken else None
        self._batch = None
        if emitted is None and self._refused:
            emitted = EmittedRows(np.zeros(0, RECORD), np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
        return None if emitted is None else emitted._replace(refused=self._refused)

    def _begin(self, batch: EventBatch) -> None:
        words = self._words
        words[_RECORDS], words[_COUNT], words[_LAST] = data_address(batch.records), len(batch), -1
        words[_POSITION] = words[_USED] = words[_REFUSED] = words[_STOP] = 0
        self._taken.clear()
        self._refused = 0
        self._batch = batch

    def _make_room(self, failed: Failed) -> None:
        words = self._words
        refused = words[_REFUSED]
        if refused:
            self._refused += refused
            failed(words[_LAST], CascadeError(_LIMIT.format(refused)))
        self._take()
        words[_REFUSED] = words[_STOP] = 0

    def _take(self) -> None:
        used = self._words[_USED]
        self._taken.append((copy_rows(self._rows[:used]), self._marks[:used].copy()))
        self._words[_USED] = 0

    def _judged(self, batch: EventBatch, failed: Failed) -> EmittedRows | None:
        """What was taken, without the rows that break a rule: each of those is a failure of its event."""
        rows = concat_rows([rows for rows, _ in self._taken], RECORD) if len(self._taken) > 1 else self._taken[0][0]
        marks = np.concatenate([marks for _, marks in self._taken]) if len(self._taken) > 1 else self._taken[0][1]
        self._taken.clear()
        addresses = data_address(rows), int(marks.ctypes.data)
        broken = judge(*addresses, len(rows), len(batch.symbols), len(batch.sources))
        if broken:
            for index in np.flatnonzero(marks & at.BROKEN):
                failed(int(marks[index]) & at.POSITIONS, _broken_rule(rows[index : index + 1], batch))
            kept = np.flatnonzero((marks & at.BROKEN) == 0)
            if not len(kept):
                return None
            rows, marks = take_rows(rows, kept), marks[kept]
        positions = marks & at.POSITIONS
        causes = event_ids(take_rows(batch.records, positions), batch.session_number)
        return EmittedRows(rows, causes, marks, 0)

    def __repr__(self) -> str:
        return f"CompiledHandler({', '.join(event_type.topic for event_type in self._loops)})"


def _broken_rule(row: Rows, batch: EventBatch) -> ValidationError:
    """What is wrong with an emitted row, in the words of ``rules``."""
    number = int(row["type"][0])
    if number not in DTYPES:
        return ValidationError(f"the type of an emitted record is set by its method of emit; got {number}")
    event_type = EventType(number)
    try:
        check_records(event_type, row.view(DTYPES[event_type]))
    except ValidationError as error:
        return ValidationError(
            f"an emitted {event_type.topic} event breaks a rule: {str(error).removeprefix('row 0: ')}"
        )
    return ValidationError(
        f"the symbol and source of an emitted record are ids of bus.symbols ({len(batch.symbols)}) and bus.sources "
        f"({len(batch.sources)}); got {row['symbol'][0]} and {row['source'][0]}"
    )


def compile_handler(handler: Any, event_types: frozenset[EventType], state: Any) -> CompiledHandler:
    """Compile a handler for these types: 0.2 to 1 s each. Raises ValidationError where that can't be done."""
    parameters = _check(handler, state)
    given = () if state is None else state
    loops = {one: compile_loop(handler, one, parameters, given) for one in sorted(event_types)}
    return CompiledHandler(loops, given, "emit" in parameters)


def interpret(handler: Any, batch: EventBatch, state: Any = None) -> tuple[EventBatch, list[tuple[int, Exception]]]:
    """Run a jit handler as plain Python over a batch of one type, to step through it or to print from it.

    Returns what it emitted, with the ids of the events that caused it, and the failures, each with its row's position.
    The same as the compiled one's, to the bit, but where an integer overflows, or a number that came out of ``state``,
    NumPy's own, is divided by zero. Times, numbers and the numbers in orders' ids are given by a bus. About 10 µs a
    row. Raises ValidationError for parameters, or a state, that could not be compiled.
    """
    parameters = _check(handler, state)
    if batch.type is None:
        raise ValidationError("interpret takes a batch of one type; see EventBatch.only and EventBatch.runs")
    loop = make_loop(python_function(handler), batch.type, parameters)
    failures: list[tuple[int, Exception]] = []
    runner = CompiledHandler({batch.type: loop}, _with_attributes(state), "emit" in parameters)
    batch = EventBatch(
        np.ascontiguousarray(batch.records), batch.symbols, batch.sources, session_number=batch.session_number
    )
    emitted = runner.handle(batch, lambda position, error: failures.append((position, error)))
    rows = np.zeros(0, RECORD) if emitted is None else emitted.rows
    if emitted is not None:
        set_causes(rows, emitted.causes)
    return EventBatch(rows, batch.symbols, batch.sources), failures


def _with_attributes(state: Any) -> Any:
    """The same arrays; rows of structured ones have their fields as attributes, as compiled ones do."""
    if isinstance(state, tuple):
        parts = [_with_attributes(one) for one in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    if state is None:
        return ()
    return state.view(np.recarray) if state.dtype.names else state


def set_causes(rows: Rows, causes: npt.NDArray[np.int64] | int) -> None:
    """Give rows their causes, where they brought none themselves."""
    rows["cause"] = np.where(rows["cause"] == 0, causes, rows["cause"])


def _check(handler: Any, state: Any) -> tuple[str, ...]:
    """The handler's parameters; raises ValidationError unless they and the state are what a jit handler may have."""
    function = python_function(handler)
    if not isinstance(function, FunctionType) or inspect.iscoroutinefunction(function):
        raise ValidationError(
            f"a jit handler is a plain function, or one decorated with numba.njit; got {handler!r:.100}"
        )
    parameters = inspect.signature(function).parameters.values()
    names = tuple(one.name for one in parameters if one.default is one.empty)
    if names not in _PARAMETERS or any(one.kind is not one.POSITIONAL_OR_KEYWORD for one in parameters):
        raise ValidationError(
            "a jit handler's parameters are (record, state, emit), without state where none is given, and without emit "
            f"where it emits nothing; got ({', '.join(names)})"
        )
    if ("state" in names) != (state is not None):
        got = f"({', '.join(names)}) and state={type(state).__name__}"
        raise ValidationError(f"a jit handler has a parameter called state exactly where state= is given; got {got}")
    arrays = state if isinstance(state, tuple) else (state,)
    if state is not None and not all(isinstance(one, np.ndarray) and not one.dtype.hasobject for one in arrays):
        raise ValidationError(
            "state= is a NumPy array, structured or not, or a tuple of arrays, without Python objects in them; got "
            f"{type(state).__name__}: {state!r:.100}"
        )
    return names
