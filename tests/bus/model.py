"""The bus as a plain loop: what ``hftlab.bus`` must do, event by event, with no queue, chunk or slice in it.

``Spec`` describes a handler whose every call is decided by what it is given, so that the model and the real handler
(``handlers.py``) do the same without talking to each other. ``play`` is the model.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hftlab.events import EventType
from hftlab.events.records import RUN_BIT

SESSION = 7
DEEPEST = 2
"""Emissions of emissions of emissions act no more: every cascade ends."""


class Item(NamedTuple):
    """An event as far as the model knows it. ``depth``: 0 for a published one, 1 for what it led to, and so on."""

    number: int
    event_type: EventType
    symbol: str
    depth: int
    received: int
    cause: int = 0

    @property
    def event_id(self) -> int:
        return RUN_BIT | self.number if self.depth else SESSION << 40 | self.number


class Where(enum.Enum):
    NONE = "no predicate"
    ODD = "odd numbers"
    FAILS = "raises on some rows, and on everything that lies beside them"
    GARBAGE = "returns no mask"

    def wants(self, item: Item) -> bool:
        return self is Where.NONE or (self is Where.ODD and item.number % 2 == 1) or self is Where.FAILS

    def fails(self, item: Item) -> bool:
        return self is Where.GARBAGE or (self is Where.FAILS and item.number % 5 == 2)


class Act(enum.Enum):
    NOTHING = "returns nothing"
    RAISE = "raises"
    STOP = "lets a StopIteration escape"
    INTERRUPT = "raises KeyboardInterrupt"
    GARBAGE = "returns what is no event"
    EVENT = "emits an event"
    LIST = "emits several, by a list"
    BATCH = "emits several, as a batch"
    BROKEN = "emits one by a generator that then raises"
    CHANGE = "subscribes another handler, or replaces one"
    CANCEL = "cancels a handler"


@dataclass(frozen=True)
class Spec:
    """A handler. It acts on what it is given where number + rows given = ``phase`` modulo ``period``."""

    name: str
    mode: str = "event"
    types: frozenset[EventType] = frozenset(EventType)
    symbol: str | None = None
    where: Where = Where.NONE
    batch_rows: int = 4
    waits: int | None = None
    act: Act = Act.NOTHING
    period: int = 1
    phase: int = 0
    emits: tuple[EventType, ...] = (EventType.SIGNAL,)
    other: Spec | None = None

    def acts(self, given: Sequence[Item]) -> bool:
        last = given[-1]
        return last.depth <= DEEPEST and (last.number + len(given)) % self.period == self.phase % self.period

    def emitted_types(self) -> tuple[EventType, ...]:
        if self.act in (Act.EVENT, Act.BROKEN):
            return self.emits[:1]
        return self.emits if self.act in (Act.LIST, Act.BATCH) else ()

    def wants(self, item: Item) -> bool:
        if self.symbol is None:
            return True
        return item.symbol.startswith(self.symbol[:-1]) if self.symbol.endswith("*") else item.symbol == self.symbol


class Call(NamedTuple):
    """One call: the handler, the ids that it was given, and the virtual time that it saw."""

    name: str
    event_ids: tuple[int, ...]
    now_ns: int


@dataclass
class Counts:
    calls: int = 0
    delivered: int = 0
    failed: int = 0
    emitted: int = 0


@dataclass
class Played:
    """All that can be seen from outside."""

    calls: list[Call] = field(default_factory=list)
    dispatched: list[Item] = field(default_factory=list)
    failures: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    counts: dict[Spec, Counts] = field(default_factory=dict)


class _Model:
    def __init__(self, specs: Sequence[Spec], start_ns: int, most_calls: int) -> None:
        self.played = Played()
        self.most_calls = most_calls
        self.now_ns = start_ns
        self.specs = {spec.name: spec for spec in specs}
        self.wanted = dict(self.specs)
        self.windows: dict[tuple[EventType, str], list[Item]] = {}
        self.emitted: deque[Item] = deque()
        self.due: list[tuple[str, EventType, list[Item]]] = []
        self.number = 0
        self.arrange()

    # -- one event ------------------------------------------------------------------------------------------------

    def publish(self, item: Item) -> None:
        self.now_ns = max(self.now_ns, item.received)
        results = self.call_handlers(item)
        self.show(item)
        self.emit(results)
        self.settle()

    def settle(self) -> None:
        while self.emitted or self.due:
            self.arrange()
            if self.emitted:
                item = self.emitted.popleft()
                self.show(item)
                self.emit(self.call_handlers(item))
            elif self.due:
                name, _, items = self.due.pop(0)
                self.emit(self.deliver(self.specs[name], items))
        self.arrange()

    def finish(self) -> None:
        while any(self.windows.values()):
            for event_type in EventType:
                for name in self.specs:
                    items = self.windows.get((event_type, name))
                    if items:
                        self.due.append((name, event_type, items))
                        self.windows[event_type, name] = []
            self.settle()

    def show(self, item: Item) -> None:
        self.played.dispatched.append(item)
        for name, spec in self.specs.items():
            window = self.windows.get((item.event_type, name))
            if window is not None:
                window.append(item)
                if len(window) == spec.batch_rows:
                    self.due.append((name, item.event_type, window))
                    self.windows[item.event_type, name] = []

    # -- calls ----------------------------------------------------------------------------------------------------

    def call_handlers(self, item: Item) -> list[tuple[Spec, list[Item], Item]]:
        results = []
        for spec in list(self.specs.values()):
            if spec.mode != "batch" and item.event_type in spec.types and spec.wants(item):
                if spec.where.fails(item):
                    self.fail(spec, [item])
                elif spec.where.wants(item):
                    results += self.call(spec, [item])
        return results

    def deliver(self, spec: Spec, items: list[Item]) -> list[tuple[Spec, list[Item], Item]]:
        given = []
        for item in items:
            if spec.wants(item):
                if spec.where.fails(item):
                    self.fail(spec, [item])
                elif spec.where.wants(item):
                    given.append(item)
        return self.call(spec, given) if given else []

    def call(self, spec: Spec, given: list[Item]) -> list[tuple[Spec, list[Item], Item]]:
        ids = tuple(item.event_id for item in given)
        self.played.calls.append(Call(spec.name, ids, self.now_ns))
        if len(self.played.calls) > self.most_calls:
            raise OverflowError
        counts = self.played.counts.setdefault(spec, Counts())
        counts.calls += 1
        counts.delivered += len(given)
        if not spec.acts(given):
            return []
        if spec.act in (Act.RAISE, Act.STOP, Act.GARBAGE, Act.BROKEN):
            self.fail(spec, given)
        if spec.act is Act.CANCEL and spec.other is not None:
            self.wanted.pop(spec.other.name, None)
        if spec.act is Act.CHANGE and spec.other is not None:
            self.wanted[spec.other.name] = spec.other
        last = given[-1]
        return [
            (spec, given, Item(0, event_type, last.symbol, last.depth + 1, self.now_ns, last.event_id))
            for event_type in spec.emitted_types()
        ]

    def fail(self, spec: Spec, given: list[Item]) -> None:
        self.played.counts.setdefault(spec, Counts()).failed += 1
        self.played.failures.append((spec.name, tuple(item.event_id for item in given)))

    def emit(self, results: list[tuple[Spec, list[Item], Item]]) -> None:
        """Only when all handlers of an event have been called do its emissions get their numbers."""
        if len(self.emitted) > self.most_calls:
            raise OverflowError
        for spec, _, item in results:
            self.played.counts[spec].emitted += 1
            self.emitted.append(item._replace(number=self.number))
            self.number += 1

    # -- changes --------------------------------------------------------------------------------------------------

    def arrange(self) -> None:
        """Handlers that were changed while an event was handled take hold with the next one."""
        if self.windows and self.wanted == self.specs and list(self.wanted) == list(self.specs):
            return
        self.specs = dict(self.wanted)
        batched = {
            (event_type, spec.name): spec
            for event_type in EventType
            for spec in self.specs.values()
            if spec.mode == "batch" and event_type in spec.types
        }
        before, self.windows = self.windows, {}
        for key, spec in batched.items():
            kept = before.get(key, [])
            self.windows[key] = kept if len(kept) < spec.batch_rows else []
        self.due = [due for due in self.due if (due[1], due[0]) in batched]


def play(items: Sequence[Item], specs: Sequence[Spec], start_ns: int, most_calls: int = 1 << 30) -> Played | None:
    """What happens when ``items`` go through the handlers one after the other; None if that takes too many calls."""
    model = _Model(specs, start_ns, most_calls)
    try:
        for item in items:
            model.publish(item)
        model.finish()
    except OverflowError:
        return None
    return model.played
