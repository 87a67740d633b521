"""What survives what: the server's persistence, read back from the server itself, and set.

In Redis' own words: ``appendonly`` (AOF) logs every write, ``appendfsync`` says when that log reaches the disk
(``always``: before the reply; ``everysec``: once a second; ``no``: when the system likes), ``save`` (RDB) says when a
snapshot of everything is written (``"3600 1 60 1000"``: after 3,600 s if there was 1 change, …; ``""``: never).
"""

from __future__ import annotations

import asyncio
import html
from dataclasses import dataclass
from typing import Literal

from redis.exceptions import ResponseError

from hftlab.errors import ServerRefused, ValidationError
from hftlab.streams.connections import Connections
from hftlab.streams.refusals import FAILURES, judge

Fsync = Literal["always", "everysec", "no"]
FSYNCS: tuple[Fsync, ...] = ("always", "everysec", "no")

# A first AOF rewrite writes all that the server holds; polled this often.
_POLL_S = 0.02


@dataclass(frozen=True, repr=False)
class Durability:
    """What the server says of itself; None where it does not let us ask.

    ``appendonly``, ``appendfsync`` and ``save`` are its configuration, ``aof_enabled`` whether the log is in effect
    now, ``aof_rewriting`` whether it is being written anew, ``write_ok`` whether the last writes of log and snapshot
    succeeded, ``evicts`` whether it throws keys away when its memory is full.
    """

    appendonly: bool | None = None
    appendfsync: str | None = None
    save: str | None = None
    aof_enabled: bool | None = None
    aof_rewriting: bool | None = None
    write_ok: bool | None = None
    evicts: bool | None = None

    @property
    def in_words(self) -> str:
        """What an acknowledged append survives, for people."""
        survives = f"kill -9 {self.kill}, power loss {self.power}{self._warning}"
        return f"an event that append() acknowledged survives: {survives}"

    @property
    def kill(self) -> str:
        """Whether an acknowledged append survives that the server is killed."""
        if self._logs is None:
            return "unknown"
        if self._logs:
            # While a background fsync is slow, everysec lets up to 2 s of the log wait in the server's memory.
            return "yes (all but 2 s while the disk is slow or full)" if self.appendfsync == "everysec" else "yes"
        return self._snapshot

    @property
    def power(self) -> str:
        """Whether an acknowledged append survives that the machine loses power."""
        if self._logs is None:
            return "unknown"
        if not self._logs:
            return self._snapshot
        words = {
            "always": "yes",
            # Synced once a second, and the last one may not be through yet: 1 s at best, 2 s measured at worst.
            "everysec": "all but the last 1 to 2 s",
            "no": "what the system had written by then",
        }
        return words.get(self.appendfsync or "", "unknown")

    @property
    def _logs(self) -> bool | None:
        return self.aof_enabled if self.aof_enabled is not None else self.appendonly

    @property
    def _snapshot(self) -> str:
        return "no" if self.save == "" else "unknown" if self.save is None else "what the last snapshot has"

    @property
    def _warning(self) -> str:
        if self.write_ok is False:
            return "; BUT its last write to the disk failed"
        return "; BUT it throws keys away when its memory is full" if self.evicts else ""

    def __repr__(self) -> str:
        return f"Durability({self.in_words})"

    def _repr_html_(self) -> str:
        said = {"appendonly": _yes_no(self.appendonly), "appendfsync": self.appendfsync, "save": self.save}
        texts = {name: "unknown" if value is None else value or "never" for name, value in said.items()}
        rows = "".join(f"<tr><td>{name}</td><td>{html.escape(text)}</td></tr>" for name, text in texts.items())
        return f"<div><b>{html.escape(self.in_words)}</b><table>{rows}</table></div>"


async def read_durability(connections: Connections) -> Durability:
    """Ask the server. What it does not let us ask is None; raises StreamErrors only where it can't be reached."""
    config = {
        name: await _config(connections, name) for name in ("appendonly", "appendfsync", "save", "maxmemory-policy")
    }
    memory = await _config(connections, "maxmemory")
    info = await _info(connections)
    policy = config["maxmemory-policy"]
    return Durability(
        appendonly=_flag(config["appendonly"], "yes"),
        appendfsync=config["appendfsync"],
        save=config["save"],
        aof_enabled=_flag(info.get("aof_enabled"), "1"),
        aof_rewriting=_either(info, "aof_rewrite_in_progress", "aof_rewrite_scheduled"),
        write_ok=_writes(info),
        evicts=None if policy is None or memory is None else policy != "noeviction" and memory != "0",
    )


async def set_durability(
    connections: Connections, appendonly: bool | None, appendfsync: Fsync | None, save: str | None
) -> Durability:
    """Set what is not None and read all back; a log that begins now is waited for. Raises ServerRefused where the
    server does not do it, ValidationError for values that it has no name for."""
    if appendfsync is not None and appendfsync not in FSYNCS:
        raise ValidationError(f"appendfsync is one of {', '.join(FSYNCS)}; got {appendfsync!r:.100}")
    if save is not None and not (isinstance(save, str) and _is_save(save)):
        raise ValidationError(
            f"save is '' (never) or pairs of seconds and changes, as in '3600 1 60 1000'; got {save!r:.100}"
        )
    wanted = {
        "appendfsync": appendfsync,
        "save": save,
        "appendonly": None if appendonly is None else "yes" if appendonly else "no",
    }
    for name, value in wanted.items():
        if value is not None:
            await connections.call("CONFIG", "SET", name, value)
    if appendonly:
        await _first_rewrite(connections)
    found = await read_durability(connections)
    if (appendonly is not None and found.appendonly != appendonly) or (
        appendfsync and found.appendfsync != appendfsync
    ):
        raise ServerRefused(f"the server took the settings and does not show them: it says {found!r}")
    return found


async def _first_rewrite(connections: Connections) -> None:
    """A log that was switched on holds nothing until its first rewrite is through."""
    while True:
        info = await _info(connections)
        if not _either(info, "aof_rewrite_in_progress", "aof_rewrite_scheduled"):
            break
        await asyncio.sleep(_POLL_S)
    if info.get("aof_last_bgrewrite_status", "ok") != "ok" or info.get("aof_enabled") == "0":
        raise ServerRefused("the server could not write its append-only log; look into its own log (is the disk full?)")


async def _config(connections: Connections, name: str) -> str | None:
    reply = await _asked(connections, "CONFIG", "GET", name)
    return reply[1].decode() if isinstance(reply, list) and len(reply) >= 2 else None


async def _info(connections: Connections) -> dict[str, str]:
    reply = await _asked(connections, "INFO", "persistence")
    lines = reply.decode().splitlines() if isinstance(reply, bytes) else []
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def _asked(connections: Connections, *command: str) -> object:
    """A reply, or None where the server forbids the question (managed servers know no CONFIG)."""
    backoff = connections.backoff()
    while True:
        try:
            async with connections.link() as link:
                return await link.ask(*command)
        except FAILURES as error:
            verdict = judge(error, connections.address)
            if isinstance(error, ResponseError) and not verdict.retry:
                return None
        await connections.pause(backoff, verdict)


def _writes(info: dict[str, str]) -> bool | None:
    said = [info[name] for name in ("aof_last_write_status", "rdb_last_bgsave_status") if name in info]
    return all(status == "ok" for status in said) if said else None


def _either(info: dict[str, str], *names: str) -> bool | None:
    said = [info[name] for name in names if name in info]
    return "1" in said if said else None


def _flag(value: str | None, yes: str) -> bool | None:
    return None if value is None else value == yes


def _yes_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _is_save(text: str) -> bool:
    words = text.split()
    return len(words) % 2 == 0 and all(word.isdecimal() for word in words)
