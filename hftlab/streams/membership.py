"""One member's standing in a consumer group: its lease, its token, and what a script's refusal means.

The token is checked by every script, so it does not matter what the member believes: who was taken over from is refused
whenever its calls arrive. A token is ``<member>.<count>``, new with every ``acquire``.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hftlab.errors import GroupLost, GroupTaken
from hftlab.events import EventType
from hftlab.events.group_ports import Checkpoint, Holder
from hftlab.events.ports import SessionInfo
from hftlab.streams.connections import Connections
from hftlab.streams.group_scripts import ACQUIRE, CLAIM, RELEASE, RENEW, GroupStatus
from hftlab.streams.holding import checkpoint_of, holder_text, mark_of, name_of
from hftlab.streams.keys import GroupKeys
from hftlab.streams.link import Reply
from hftlab.streams.liveness import is_dead
from hftlab.streams.scripts import Script

_NS_PER_MS = 1_000_000
# Each slice of a claim holds the server up for a millisecond or so.
_CLAIM_ENTRIES = 1_000


class Taken(NamedTuple):
    """A group that was taken on: where it stands, and for each stream the last entry that was delivered."""

    checkpoint: Checkpoint
    delivered: tuple[bytes, ...]


class Membership:
    """A member's lease of its group, and its way to the server."""

    def __init__(
        self,
        connections: Connections,
        keys: GroupKeys,
        session: SessionInfo,
        types: Sequence[EventType],
        *,
        name: str,
        lease_s: float,
    ) -> None:
        self.connections = connections
        self.keys = keys
        self.session = session
        self.types = types
        self.name = name
        self.lease_ms = max(1, round(lease_s * 1_000))
        self.token = ""
        self.consumer = ""
        """Under which name the streams' groups know this member; another one with each owner."""
        self.holder: Holder | None = None
        self._nonce = secrets.token_hex(8)
        self._turns = 0
        self._calls: dict[object, float] = {}

    # -- the lease ----------------------------------------------------------------------------------------------------

    async def acquire(self) -> Taken | None:
        """Become the active member and claim all that is pending; None while another one is (``holder``)."""
        # Whatever comes of it: what this member had before is over.
        self.token = ""
        self._turns += 1
        token = f"{self._nonce}.{self._turns}"
        said = holder_text(self.name)
        reply = await self._ask(token, said, "")
        if reply[0] == GroupStatus.TAKEN and is_dead(mark_of(reply[1])):
            # Only from this very holder: another one may have come since.
            reply = await self._ask(token, said, reply[2])
        if reply[0] == GroupStatus.TAKEN:
            return None
        self.check(reply)
        fields = dict(zip(reply[6][::2], reply[6][1::2], strict=True))
        self.token, self.consumer = token, f"{self.name}#{int(reply[3])}"
        for event_type in self.types:
            await self._claim(event_type)
        return Taken(checkpoint_of(fields), tuple(reply[7]))

    async def _ask(self, token: str, said: str, forced: bytes | str) -> Reply:
        names = (*self.names, *(self.keys.session.streams[one] for one in self.types))
        reply = await self.run(ACQUIRE, names, self.keys.name, token, said, self.lease_ms, forced)
        if len(reply) >= 6:
            since_ms, until_ms = int(reply[4]), int(reply[5])
            self.holder = Holder(name_of(reply[1]), int(reply[3]), since_ms * _NS_PER_MS, until_ms * _NS_PER_MS)
        return reply

    async def _claim(self, event_type: EventType) -> None:
        now = asyncio.get_running_loop().time
        names = (*self.names, self.keys.session.streams[event_type])
        renewed_s, cursor = now(), b"0-0"
        while True:
            reply = await self.run(CLAIM, names, self.keys.name, self.token, self.consumer, cursor, _CLAIM_ENTRIES)
            cursor = self.check(reply)[1]
            if cursor == b"0-0":
                return
            if now() - renewed_s > self.lease_ms / 4_000:
                renewed_s = now()
                await self.renew()

    async def renew(self) -> None:
        """Keep the lease for another ``lease_ms``. Raises GroupTaken, GroupLost."""
        self.check(await self.run(RENEW, self.names, self.mine(), self.lease_ms))

    async def release(self) -> None:
        """Give the lease back, if it is still this member's."""
        token, self.token = self.token, ""
        if token:
            await self.run(RELEASE, (self.keys.hash,), token)

    # -- what is asked, and answered ----------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, str]:
        """The keys that every script of a member begins with."""
        return self.keys.session.meta, self.keys.hash

    def mine(self) -> str:
        """The token. Raises GroupTaken where this is not the active member."""
        if not self.token:
            raise GroupTaken(
                f"{self.name!r} is not the active member of the group {self.keys.name!r}: become it with acquire()"
            )
        return self.token

    def check(self, reply: Reply) -> Reply:
        """The reply, where it is none that refuses. Raises GroupTaken, GroupLost."""
        if reply[0] in (GroupStatus.DONE, GroupStatus.REPEATED):
            return reply
        if reply[0] == GroupStatus.TAKEN:
            other = name_of(reply[1]) or "nobody: it was released, or moved"
            raise GroupTaken(
                f"{self.name!r} does not have the group {self.keys.name!r} of the session {self.session.name!r} any "
                f"more (who has it: {other}), and may neither read nor commit; stand by with acquire()"
            )
        raise self.lost(reply[0])

    def lost(self, status: int) -> GroupLost:
        """The error that says what is gone, and what to do."""
        gone = "its session" if status == GroupStatus.NO_SESSION else "it, or its place in one of the streams"
        return GroupLost(
            f"the group {self.keys.name!r} of the session {self.session.name!r} (number {self.session.number}) is "
            f"lost: {gone} does not exist any more (deleted, destroyed, FLUSHALL, or a server without its data). Begin "
            "anew: await manager.groups.destroy(session, group) if it is half there, then make the member again with "
            "start=… where it is to go on"
        )

    async def run(self, script: Script, names: Sequence[str], *arguments: Any) -> Reply:
        """A script's reply; it may be sent again."""
        with self.owing():
            return await self.connections.run(script, names, *arguments)

    @contextmanager
    def owing(self, from_now_s: float = 0.0) -> Iterator[None]:
        """While this is entered, the server owes an answer, from ``from_now_s`` on."""
        call = object()
        self._calls[call] = time.monotonic() + from_now_s
        try:
            yield
        finally:
            del self._calls[call]

    @property
    def silent_s(self) -> float:
        """For how long the server has owed the oldest answer; 0.0 while it owes none.

        A call that is refused and tried again (no memory) waits, while the server answers: that is no silence.
        """
        if not self._calls:
            return 0.0
        waiting_s = time.monotonic() - min(self._calls.values())
        return max(0.0, min(waiting_s, self.connections.silent_s))
