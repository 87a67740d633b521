"""The same server asked twice, by us and by ntplib: two opinions about this machine's clock, made independently."""

from __future__ import annotations

import asyncio
import html

import msgspec

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.sockets import ask_by_name, parse_server
from hftlab.clock.stamps import read_clocks

_SECOND_NS = 1_000_000_000
# ntplib computes in float seconds since 1900: steps of 477 ns, in each of four stamps.
_FLOAT_NS = 2_000


class CrossCheck(msgspec.Struct, frozen=True, kw_only=True):
    """By how much ``server`` is ahead of this machine's CLOCK_REALTIME, by two clients; None where one got no answer.

    ``delay_ns`` and ``ntplib_delay_ns`` are their round trips: half of one is how far each may be wrong.
    ``trouble`` says what went wrong.
    """

    server: str
    offset_ns: int | None = None
    delay_ns: int | None = None
    ntplib_offset_ns: int | None = None
    ntplib_delay_ns: int | None = None
    trouble: str = ""

    @property
    def difference_ns(self) -> int | None:
        """Our offset minus ntplib's."""
        if self.offset_ns is None or self.ntplib_offset_ns is None:
            return None
        return self.offset_ns - self.ntplib_offset_ns

    @property
    def agrees(self) -> bool:
        """Whether the difference is no more than half of both round trips, and ntplib's rounding, explain."""
        if self.difference_ns is None or self.delay_ns is None or self.ntplib_delay_ns is None:
            return False
        return abs(self.difference_ns) <= (self.delay_ns + self.ntplib_delay_ns) // 2 + _FLOAT_NS

    def __repr__(self) -> str:
        told = [f"{what} {ns / 1_000:,.1f} us" for what, ns in self._figures() if ns is not None]
        if self.difference_ns is not None:
            told.append("they agree" if self.agrees else "they DISAGREE")
        return f"CrossCheck({self.server}: {', '.join([*told, *([self.trouble] if self.trouble else [])])})"

    def _repr_html_(self) -> str:
        return f"<div>{html.escape(repr(self))}</div>"

    def _figures(self) -> tuple[tuple[str, int | None], ...]:
        return ("ours", self.offset_ns), ("ntplib's", self.ntplib_offset_ns), ("difference", self.difference_ns)


async def cross_check(server: str, *, timeout_s: float = 1.0) -> CrossCheck:
    """Ask ``server`` ourselves, then with ntplib, in a thread. Two questions; at most ``timeout_s`` for each.

    One after the other, since two at once would be in each other's way. ntplib checks next to nothing, so that its
    word alone is worth little. Never raises for what the network does; when cancelled, the thread goes on to its end.
    """
    parsed = parse_server(server)
    answer = await ask_by_name(server, timeout_s=timeout_s)
    ours, troubles = answer.outcome, []
    figures: dict[str, int] = {}
    if isinstance(ours, Exchange):
        clocks = read_clocks()
        # The exchange is about the counter, ntplib's about CLOCK_REALTIME.
        figures["offset_ns"] = ours.offset_ns - (clocks.realtime_ns - clocks.counter_ns)
        figures["delay_ns"] = ours.delay_ns
    else:
        troubles.append(ours.detail)
    try:
        figures |= await asyncio.to_thread(_by_ntplib, parsed.host, parsed.port, timeout_s)
    except _Trouble as trouble:
        troubles.append(f"ntplib: {trouble}")
    return CrossCheck(server=server, trouble="; ".join(troubles), **figures)


class _Trouble(Exception):
    """ntplib got no answer that it could read."""


def _by_ntplib(host: str, port: int, timeout_s: float) -> dict[str, int]:
    import ntplib

    try:
        found = ntplib.NTPClient().request(host, version=4, port=port, timeout=timeout_s)
    except (ntplib.NTPException, OSError) as error:
        raise _Trouble(str(error) or type(error).__name__) from None
    return {
        "ntplib_offset_ns": round(found.offset * _SECOND_NS),
        "ntplib_delay_ns": round(found.delay * _SECOND_NS),
    }
