"""Two members of one group, and whatever may happen to them, against a small model of what a group promises."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import GroupTaken
from hftlab.events import EventType
from hftlab.events.group_ports import Commit
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.consuming import GroupConsumer
from hftlab.streams.keys import TYPE_ORDER
from tests.streams.batches import log_sequences, mixed
from tests.streams.members import everything, member_of, pending
from tests.streams.servers import managed

_MEMBERS = st.integers(0, 1)
_TYPES = st.sampled_from(TYPE_ORDER)
_STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 60)),
    st.tuples(st.just("read"), _MEMBERS, _TYPES, st.integers(1, 40)),
    st.tuples(st.just("read all"), _MEMBERS),
    st.tuples(st.just("lose a read"), _MEMBERS, _TYPES, st.integers(1, 5)),
    st.tuples(st.just("commit"), _MEMBERS, st.floats(0, 1), st.integers(0, 3)),
    st.tuples(st.just("repeat"), _MEMBERS),
    st.tuples(st.just("acquire"), _MEMBERS),
    st.tuples(st.just("release"), _MEMBERS),
    st.tuples(st.just("expire"), st.just(0)),
)


@dataclass
class Tenure:
    """What one owner was given since it took the group on, and where the group stood then."""

    position: int
    held: frozenset[int]
    given: set[int] = field(default_factory=set)
    reached: dict[EventType, int] = field(default_factory=lambda: dict.fromkeys(TYPE_ORDER, 0))


@dataclass
class Group:
    """The model: what is committed, who has the group, and whether its lease has run out."""

    position: int = 0
    held: frozenset[int] = frozenset()
    serial: int = 0
    epoch: int = 0
    owner: int | None = None
    expired: bool = False
    tenure: Tenure | None = None
    last: Commit | None = None


class Play:
    """Does each step to the server and to the model, and compares."""

    def __init__(self, manager: RedisStreamManager, members: list[GroupConsumer]) -> None:
        self.manager = manager
        self.members = members
        self.model = Group()
        self.types: list[int] = []
        self.appended = 0
        self.done: dict[str, int] = {}

    async def step(self, name: str, *arguments: int) -> None:
        self.done[name] = self.done.get(name, 0) + 1
        await getattr(self, name.replace(" ", "_"))(*arguments)

    async def append(self, count: int) -> None:
        self.appended += 1
        batch = mixed(count, seed=self.appended)
        await self.manager.append(batch, session="day")
        self.types += batch.records["type"].tolist()

    async def read(self, member: int, event_type: EventType, rows: int) -> None:
        model = self.model
        if model.owner != member:
            with pytest.raises(GroupTaken):
                await self.members[member].read(event_type, rows)
            return
        page = await self.members[member].read(event_type, rows)
        tenure = model.tenure
        assert tenure is not None
        for batch in page.batches:
            for log in log_sequences(batch):
                assert self.types[log] == event_type
                assert log >= tenure.position or log in tenure.held
                assert log not in tenure.given
                tenure.given.add(log)
        assert tenure.reached[event_type] <= page.reached <= page.events == len(self.types)
        tenure.reached[event_type] = page.reached
        owed = {
            log
            for log in range(page.reached)
            if self.types[log] == event_type and (log >= tenure.position or log in tenure.held)
        }
        assert owed <= tenure.given

    async def read_all(self, member: int) -> None:
        for one in TYPE_ORDER:
            for _ in range(200):
                await self.read(member, one, 30)
                tenure = self.model.tenure
                if self.model.owner != member or tenure is None or tenure.reached[one] == len(self.types):
                    break
            else:
                pytest.fail(f"{one} did not come to its end")

    async def lose_a_read(self, member: int, event_type: EventType, count: int) -> None:
        if self.model.owner == member:
            consumer = self.members[member]
            await consumer._fetch(consumer._streams[event_type], count)

    async def commit(self, member: int, share: float, hold: int) -> None:
        model = self.model
        if model.owner != member:
            with pytest.raises(GroupTaken):
                await self.members[member].commit(Commit(model.serial + 1, len(self.types)))
            return
        assert model.tenure is not None
        known = min(model.tenure.reached.values())
        position = max(model.position, int(known * share))
        # What was committed as handled stays handled: its entry may be acknowledged.
        fresh = {log for log in model.tenure.given if log >= model.position}
        unhandled = sorted(log for log in fresh | model.held if log < position)
        chosen = np.random.default_rng(model.serial).permutation(unhandled)[:hold]
        commit = Commit(model.serial + 1, position, tuple(sorted(int(log) for log in chosen)), b"s%d" % model.serial)
        await self.members[member].commit(commit)
        model.serial, model.position, model.held = commit.serial, position, frozenset(commit.held)
        model.last, model.expired = commit, False

    async def repeat(self, member: int) -> None:
        if self.model.owner == member and self.model.last is not None:
            await self.members[member].commit(self.model.last)
            self.model.expired = False

    async def acquire(self, member: int) -> None:
        model = self.model
        checkpoint = await self.members[member].acquire()
        if model.owner not in (None, member) and not model.expired:
            assert checkpoint is None
            return
        model.epoch += 1
        assert checkpoint is not None
        assert (checkpoint.log_sequence, frozenset(checkpoint.held)) == (model.position, model.held)
        assert (checkpoint.serial, checkpoint.epoch) == (model.serial, model.epoch)
        model.owner, model.expired = member, False
        model.tenure = Tenure(model.position, model.held)

    async def release(self, member: int) -> None:
        await self.members[member].release()
        if self.model.owner == member:
            self.model.owner, self.model.tenure = None, None

    async def expire(self, _: int) -> None:
        await self.manager._connections.call("HSET", self.members[0]._keys.hash, "until_ms", 0)
        self.model.expired = True

    async def finish(self) -> None:
        """Whatever came before: an owner gets all that is left, commits it, and nothing is pending."""
        for member in (0, 1):
            await self.release(member)
        await self.acquire(0)
        left = {log for log in range(len(self.types)) if log >= self.model.position or log in self.model.held}
        if left:
            assert set(log_sequences(await everything(self.members[0], 50))) == left
        else:
            await self.read_all(0)
        await self.members[0].commit(Commit(self.model.serial + 1, len(self.types)))
        assert await pending(self.manager) == 0


async def test_two_members_are_given_everything_whatever_happens_to_them(server: EmbeddedServer) -> None:
    plays: list[list[tuple[object, ...]]] = []

    @settings(max_examples=30, deadline=None, database=None, derandomize=True)
    @given(st.lists(_STEPS, min_size=25, max_size=60))
    def collect(steps: list[tuple[object, ...]]) -> None:
        plays.append(steps)

    collect()
    done: dict[str, int] = {}
    for steps in plays:
        async with managed(server, frame_rows=7) as manager:
            await manager.append(mixed(0), session="day")
            play = Play(manager, [await member_of(manager, name=name) for name in ("one", "two")])
            play.done = done
            for step in [("append", 50), ("acquire", 0), ("read all", 0), *steps]:
                await play.step(*step)  # type: ignore[arg-type]
            await play.finish()
    assert min(done.values()) > 10, done
