"""The sliding window's words, by sorting plain lists whenever something is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Key = Literal["timestamp", "sequence"]
SHARED = (2, 3)
"""The sources whose numbers only rise."""


@dataclass
class Row:
    """What the model knows of a row; ``at`` is its place in the input."""

    at: int
    source: int
    timestamp: int
    epoch: int
    sequence: int
    part: int
    last: bool
    moment: int


@dataclass
class Message:
    """Rows that belong together, with their key and when they arrived, counted and in ns."""

    source: int
    key: tuple[int, int]
    rows: list[Row] = field(default_factory=list)
    arrival: int = -1
    arrived_ns: int = -1


class Model:
    """The words, by sorting a list whenever something is asked."""

    def __init__(self, hold_ns: int, key: Key, capacity: int = 1 << 16) -> None:
        self.hold_ns, self.key, self.capacity = hold_ns, key, capacity
        self.clock = self.arrivals = self.late = self.late_by_ns_max = self.hurried = 0
        self.held: list[Message] = []
        self.open: dict[int, Message] = {}  # in the order of their beginning
        self.came: list[Message] = []  # all that were not late, since the start
        self.let_go: dict[int, tuple[int, int]] = {}
        self.latest: dict[int, int] = {}
        self.out: list[tuple[int, int]] = []
        self.aside: list[int] = []

    def take(self, row: Row) -> None:
        self.advance(row.moment)
        if self.key == "sequence" and row.source not in SHARED:
            self.out.append((row.at, self.clock))
            return
        if sum(len(message.rows) for message in [*self.held, *self.open.values()]) >= self.capacity:
            self.make_place()
        message = self.open.get(row.source)
        if message is not None:
            latest = message.rows[-1]
            if (row.epoch, row.sequence, row.part) != (latest.epoch, latest.sequence, latest.part + 1):
                self.close(row.source)
                message = None
        if message is None:
            key = (row.epoch, row.sequence)
            if self.key == "timestamp":
                self.latest[row.source] = max(row.timestamp, self.latest.get(row.source, row.timestamp))
                key = (0, self.latest[row.source])
            message = self.open[row.source] = Message(row.source, key)
        message.rows.append(row)
        if row.last:
            self.close(row.source)

    def close(self, source: int) -> None:
        message = self.open.pop(source)
        group = self.group(message)
        if self.key == "sequence" and message.key[1] < 0:
            self.leave(message, self.clock)
        elif group in self.let_go and message.key < self.let_go[group]:
            overtaken = min(m.arrived_ns for m in self.came if self.group(m) == group and m.key > message.key)
            self.late += len(message.rows)
            self.late_by_ns_max = max(self.late_by_ns_max, self.clock - overtaken)
            if self.key == "timestamp":
                self.aside += [row.at for row in message.rows]
            else:
                self.leave(message, self.clock)
        else:
            message.arrival, message.arrived_ns = self.arrivals, self.clock
            self.arrivals += 1
            self.held.append(message)
            self.came.append(message)

    def advance(self, now_ns: int) -> None:
        self.clock = max(self.clock, now_ns)
        while self.held and self.held[0].arrived_ns + self.hold_ns <= self.clock:
            self.release(self.held[0], self.held[0].arrived_ns + self.hold_ns)

    def release(self, message: Message, moment: int) -> None:
        group = self.group(message)
        leaving = [
            each
            for each in self.held
            if self.group(each) == group and (each.key, each.arrival) <= (message.key, message.arrival)
        ]
        for each in sorted(leaving, key=lambda each: (each.key, each.arrival)):
            self.held.remove(each)
            self.leave(each, moment)
        self.let_go[group] = message.key

    def make_place(self) -> None:
        before = len(self.out)
        if not self.held:
            self.close(next(iter(self.open)))
        if self.held:
            self.release(self.held[0], self.clock)
        self.hurried += len(self.out) - before

    def finish(self) -> None:
        while self.open:
            self.close(next(iter(self.open)))
        while self.held:
            self.release(self.held[0], self.clock)

    def group(self, message: Message) -> int:
        return 0 if self.key == "timestamp" else message.source

    def leave(self, message: Message, moment: int) -> None:
        self.out += [(row.at, moment) for row in message.rows]
