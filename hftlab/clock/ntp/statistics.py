"""What an NTP poller shows of its servers: a frozen picture."""

from __future__ import annotations

import enum
import html
from typing import TYPE_CHECKING

import msgspec

from hftlab.clock.estimate import Estimate

if TYPE_CHECKING:
    import pandas as pd


class ServerState(enum.Enum):
    """What is to be thought of a server."""

    UNHEARD = "unheard"
    """Not asked yet, or its first answer is on its way."""
    CANDIDATE = "candidate"
    """It answers; whether the others agree with it is not known."""
    TRUECHIMER = "truechimer"
    """The majority agrees with it."""
    ALONE = "alone"
    """It is believed, since nobody else answers who could contradict it."""
    FALSETICKER = "falseticker"
    """Its interval does not meet the majority's."""
    STALE = "stale"
    """Its last answer is too old to count."""
    REFUSED = "refused"
    """It answers, but nothing that could be used: unsynchronised, or too far from its reference."""
    UNREACHABLE = "unreachable"
    """None of the latest questions (eight at most) was answered."""
    KISSED = "kissed"
    """It asked us to go away (DENY, RSTR), and is not asked any more."""


class ServerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One server. Times in ns, None while not known.

    ``offset_ns`` is how far the server's UTC is ahead of the clock's, ``bound_ns`` how far that may be wrong;
    ``delay_ns`` and ``jitter_ns`` are the round trip's. ``reach``: the last eight questions, the newest in bit 0, 1
    where it was answered. ``poll_s``: the interval now. Of ``sent`` questions ``answered`` came to a valid exchange;
    ``refused`` counts by reason what did not, and packets that came in between and were nobody's answer. ``stamps``
    counts the answers by the clock that stamped their arrival (hardware, kernel, application).
    """

    server: str
    address: str
    state: ServerState
    stratum: int | None
    reach: int
    offset_ns: int | None
    bound_ns: int | None
    delay_ns: int | None
    jitter_ns: int | None
    poll_s: float
    sent: int
    answered: int
    refused: dict[str, int]
    stamps: dict[str, int]
    last_error: str

    def __str__(self) -> str:
        if self.offset_ns is None or self.bound_ns is None:
            return f"{self.server}: {self.state.value}"
        return f"{self.server}: {self.state.value}, {_us(self.offset_ns)} ± {_us(self.bound_ns)} us"


class NtpStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """All servers of a poller, in the order in which they were given, and what they came to together.

    ``estimates`` were made, the last of which is ``estimate``; ``undecided`` times the servers that answered were too
    few to agree. ``restarts``: how often the machine had slept, so that all that was known was void.
    """

    servers: tuple[ServerStatistics, ...]
    estimate: Estimate | None
    estimates: int
    undecided: int
    restarts: int

    @property
    def truechimers(self) -> tuple[str, ...]:
        """The servers that are believed."""
        believed = (ServerState.TRUECHIMER, ServerState.ALONE)
        return tuple(one.server for one in self.servers if one.state in believed)

    @property
    def falsetickers(self) -> tuple[str, ...]:
        """The servers that the majority contradicts."""
        return tuple(one.server for one in self.servers if one.state is ServerState.FALSETICKER)

    def to_frame(self) -> pd.DataFrame:
        """A row a server, indexed by its name; refusals and stamps as texts."""
        import pandas as pd

        names = [name for name in ServerStatistics.__struct_fields__ if name != "server"]
        rows = [{name: _cell(getattr(one, name)) for name in names} for one in self.servers]
        return pd.DataFrame(rows, columns=names, index=pd.Index([one.server for one in self.servers], name="server"))

    def __repr__(self) -> str:
        told = ", ".join(
            f"{count} {state.value}"
            for state in ServerState
            if (count := sum(one.state is state for one in self.servers))
        )
        where = ""
        if self.estimate is not None:
            where = f"; UTC within {_us(self.estimate.bound_ns)} us"
        return f"NtpStatistics({told}{where})"

    def _repr_html_(self) -> str:
        columns = ("server", "state", "stratum", "reach", "offset_us", "bound_us", "delay_us", "poll_s", "refused")
        head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in _row(one)) + "</tr>" for one in self.servers
        )
        return f"<div><b>{html.escape(repr(self))}</b><table><tr>{head}</tr>{rows}</table></div>"


def _row(one: ServerStatistics) -> tuple[str, ...]:
    times = (one.offset_ns, one.bound_ns, one.delay_ns)
    return (
        one.server,
        one.state.value,
        "" if one.stratum is None else str(one.stratum),
        f"{one.reach:08b}",
        *("" if ns is None else _us(ns) for ns in times),
        f"{one.poll_s:g}",
        str(_cell(one.refused)),
    )


def _cell(value: object) -> object:
    if isinstance(value, ServerState):
        return value.value
    if isinstance(value, dict):
        return ", ".join(f"{count:,} {what}" for what, count in value.items())
    return value


def _us(ns: int) -> str:
    return f"{ns / 1_000:,.1f}"
