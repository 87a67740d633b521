"""The sessions of a lab: made, found, listed, renamed, deleted."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from hftlab.errors import CodecError, ServerRefused, SessionExists, SessionSealed, UnknownSession, ValidationError
from hftlab.events.ports import SessionInfo
from hftlab.events.records import MAX_SESSION_NUMBER
from hftlab.streams.connections import Connections
from hftlab.streams.group_scripts import SEAL
from hftlab.streams.keys import META_FIELDS, TYPE_ORDER, Keys, check_name
from hftlab.streams.scripts import CREATE, DELETE, RENAME


class Catalogue:
    """What sessions there are. Every call is a round trip or two."""

    def __init__(self, connections: Connections, keys: Keys, now_ns: Callable[[], int]) -> None:
        self._connections = connections
        self._keys = keys
        self._now_ns = now_ns

    async def number(self, name: str) -> int:
        """The number of a session. Raises UnknownSession."""
        held = await self._connections.call("HGET", self._keys.sessions, check_name("a session's name", name))
        if held is None:
            raise await self._unknown(name)
        return int(held)

    async def ensure(self, name: str, created_ns: int | None = None) -> tuple[int, bool]:
        """The number of a session, and whether it was made now."""
        held = await self._connections.call("HGET", self._keys.sessions, check_name("a session's name", name))
        if held is not None:
            return int(held), False
        stamp = self._now_ns() if created_ns is None else created_ns
        while True:
            # A number is lost where two make the same name at once, or a reply is: there are four million.
            number = int(await self._connections.call("INCR", self._keys.numbers))
            if number > MAX_SESSION_NUMBER:
                raise ServerRefused(
                    f"the namespace {self._keys.namespace!r} has given out all of its {MAX_SESSION_NUMBER:,} session "
                    "numbers: go on in another one (RedisStreamManager(…, namespace=…))"
                )
            keys = self._keys.session(number)
            made = await self._connections.run(CREATE, (self._keys.sessions, keys.meta), name, number, stamp)
            # 0: a session has that number already (the counter was lost, and started over).
            if made[0]:
                return int(made[0]), bool(made[1])

    async def info(self, name: str) -> SessionInfo:
        """What a session holds. Raises UnknownSession."""
        found = await self._infos([await self.number(name)])
        if not found:
            raise await self._unknown(name)
        return found[0]

    async def by_number(self, number: int) -> SessionInfo:
        """What the session with that number holds. Raises UnknownSession."""
        found = await self._infos([number])
        if not found:
            raise await self._unknown(f"number {number}")
        return found[0]

    async def all(self) -> list[SessionInfo]:
        """All sessions, oldest first."""
        held = await self._connections.call("HVALS", self._keys.sessions)
        return sorted(
            await self._infos([int(number) for number in held]), key=lambda info: (info.created_ns, info.number)
        )

    async def rename(self, old: str, new: str) -> SessionInfo:
        """Give a session another name; no data moves. Raises UnknownSession, SessionExists."""
        check_name("a session's name", new)
        number = await self.number(old)
        keys = self._keys.session(number)
        done = await self._connections.run(RENAME, (self._keys.sessions, keys.meta), old, new, number)
        if done == -1:
            raise SessionExists(f"a session {new!r} exists; delete it first, or take another name")
        if done == 0:
            raise await self._unknown(old)
        return await self.by_number(number)

    async def delete(self, name: str) -> None:
        """Delete a session and all that it holds. Raises UnknownSession. Memory is freed in the background."""
        number = await self.number(name)
        keys = self._keys.session(number)
        await self._connections.run(
            DELETE, (self._keys.sessions, keys.groups, *keys.all), name, number, keys.group_prefix
        )

    async def succeed(self, name: str, successor: str) -> SessionInfo:
        """Seal a session, and name the one that goes on after it, which is made if need be; returns that one.

        Raises UnknownSession, ValidationError, SessionSealed where it has another successor.
        """
        number = await self.number(name)
        following, seen = check_name("a session's name", successor), {name}
        while following:
            if following in seen:
                raise ValidationError(f"a session goes on after others, never after itself; got {successor!r:.100}")
            seen.add(following)
            following = await self._successor(following)
        # Asked first, so that no session is made for nothing; the script decides.
        held = await self._successor(name) or successor
        if held == successor:
            await self.ensure(successor)
            held = (await self._connections.run(SEAL, (self._keys.session(number).meta,), successor)).decode()
        if not held:
            raise await self._unknown(name)
        if held != successor:
            raise SessionSealed(
                f"the session {name!r} is sealed, and {held!r} goes on after it: {successor!r} can't; seal that one in "
                "turn"
            )
        return await self.info(successor)

    async def _successor(self, name: str) -> str:
        number = await self._connections.call("HGET", self._keys.sessions, name)
        if number is None:
            return ""
        held = await self._connections.call("HGET", self._keys.session(int(number)).meta, "successor")
        return held.decode() if held else ""

    async def _infos(self, numbers: list[int]) -> list[SessionInfo]:
        commands: list[tuple[Any, ...]] = []
        for number in numbers:
            keys = self._keys.session(number)
            commands += [("HMGET", keys.meta, *META_FIELDS), ("SMEMBERS", keys.symbols)]
        replies = await self._connections.call_many(commands)
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [session_info(dict(zip(META_FIELDS, meta, strict=True)), symbols) for meta, symbols in pairs if meta[0]]

    async def _unknown(self, name: str) -> UnknownSession:
        held = await self._connections.call("HKEYS", self._keys.sessions)
        names = sorted(key.decode() for key in held)
        close = difflib.get_close_matches(name, names, 3)
        shown = ", ".join(map(repr, close or names[:10])) + (" …" if not close and len(names) > 10 else "")
        hint = f"did you mean {shown}?" if close else f"there are: {shown}" if names else "there are none yet"
        return UnknownSession(f"no session {name!r} in the namespace {self._keys.namespace!r}; {hint}")


def session_info(meta: Mapping[str, bytes | None], symbols: list[bytes]) -> SessionInfo:
    """A session's meta hash and symbols as what the other packages know. Raises CodecError for what is none."""

    def whole(field: str) -> int:
        return int(meta[field] or 0)

    try:
        return _session_info(meta, symbols, whole)
    except ValueError:
        raise CodecError(f"a session's meta hash is damaged, or is not hftlab's: {dict(meta)!r:.300}") from None


def _session_info(meta: Mapping[str, bytes | None], symbols: list[bytes], whole: Callable[[str], int]) -> SessionInfo:
    return SessionInfo(
        name=(meta["name"] or b"").decode(),
        number=whole("number"),
        events=whole("events"),
        start_ns=whole("earliest_ns"),
        end_ns=whole("latest_ns"),
        counts={event_type.topic: whole(event_type.topic) for event_type in TYPE_ORDER},
        symbols=tuple(sorted(symbol.decode() for symbol in symbols)),
        created_ns=whole("created_ns"),
        stored_bytes=whole("stored_bytes"),
        trimmed=whole("trimmed"),
        successor=(meta.get("successor") or b"").decode(),
    )
