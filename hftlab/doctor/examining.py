"""``examine``: all checks, one after the other, so that none disturbs what another measures."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hftlab.doctor import capacity, clocks, installation, server, stamping, time_servers
from hftlab.doctor.fitness import Divergence, assess
from hftlab.doctor.report import Check, Report, Verdict
from hftlab.errors import ValidationError, shown
from hftlab.streams import Address
from hftlab.streams.urls import read_address

if TYPE_CHECKING:
    from hftlab.lab import Lab


async def examine(
    lab: Lab | None = None,
    ntp: Sequence[str] | str | None = None,
    url: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    seconds: float = 2.0,
    *,
    root: str | os.PathLike[str] = "/",
) -> Report:
    """Look at this machine and say what it is good for. Takes 1 s or 2 with servers; the loop goes on meanwhile.

    ``ntp`` names servers to ask for the time (None: HFTLAB_NTP, with commas between; nobody is asked without either).
    ``url`` is a server to look at (None: HFTLAB_URL; without either the embedded one is started in a temporary folder,
    and ended). A ``lab`` gives what is not named here: its server, its folder, its NTP servers, and its clock.
    ``seconds`` bounds each wait for somebody else: a server, an answer. ``root`` is where proc, sys and dev lie.

    Nothing is changed: the kernel and servers are only asked. A check that breaks is UNKNOWN, and in ``failed``; no
    secret of a URL is in the report. Raises ValidationError for arguments that make no sense.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 60:
        raise ValidationError(f"seconds is above 0 and up to 60; got {shown(seconds)}")
    url = url or ("" if lab is not None else os.environ.get("HFTLAB_URL")) or ""
    address = read_address(url) if url else None
    # No frame of ours keeps the URL: a traceback with local variables would show its password.
    url = ""
    if isinstance(address, ValidationError):
        raise address
    began_s = time.monotonic()
    looking = _Looking(seconds, Path(root))
    await looking.guarded(clocks.AREA, looking.clock)
    await looking.guarded(time_servers.AREA, lambda: looking.time_servers(lab, ntp))
    await looking.guarded(stamping.AREA, lambda: stamping.examine_stamps(looking.root, seconds))
    await looking.guarded(capacity.AREA, lambda: looking.memory(_folder(lab, directory)))
    await looking.guarded(server.AREA, lambda: server.examine_server(address or _address(lab), seconds))
    await looking.guarded(installation.AREA, looking.installation)
    return Report(
        checks=tuple(looking.checks),
        fitness=assess(looking.measured, looking.claimed, looking.resolution_ns),
        elapsed_s=time.monotonic() - began_s,
    )


def _servers(ntp: Sequence[str] | str | None) -> list[str]:
    named = os.environ.get("HFTLAB_NTP", "") if ntp is None else ntp
    listed = named.split(",") if isinstance(named, str) else list(named) if isinstance(named, Sequence) else [named]
    if not all(isinstance(one, str) for one in listed):
        raise ValidationError(f"ntp names servers, such as ['time.example.org']; got {shown(ntp)}")
    return list(dict.fromkeys(one.strip() for one in listed if one.strip()))


def _folder(lab: Lab | None, directory: str | os.PathLike[str] | None) -> Path:
    if directory is not None:
        return Path(directory)
    return Path(".hftlab") if lab is None else lab.directory


def _address(lab: Lab | None) -> Address | None:
    return None if lab is None or lab.loop is None else lab.streams.address


class _Looking:
    """What was found so far."""

    def __init__(self, seconds: float, root: Path) -> None:
        self.seconds, self.root = seconds, root
        self.checks: list[Check] = []
        self.measured: Divergence | None = None
        self.claimed: Divergence | None = None
        self.resolution_ns = round(time.get_clock_info("time").resolution * 1e9)

    async def guarded(self, area: str, look: Callable[[], Awaitable[list[Check]]]) -> None:
        """Add what an area's checks find; one that breaks takes its area along, and nothing else."""
        try:
            self.checks += await look()
        except ValidationError:
            raise  # the caller's: a server's name that is none
        except Exception as error:
            # Its type and place only: what a stranger's message says might be part of an address.
            at = error.__traceback__
            while at is not None and at.tb_next is not None:
                at = at.tb_next
            place = "" if at is None else f" ({Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno})"
            self.checks.append(Check(
                area=area, name="check", value="could not be made", verdict=Verdict.UNKNOWN, failed=True,
                why=f"the check itself failed with {type(error).__name__}{place}",
                next="please report it, with this output",
            ))  # fmt: skip

    async def time_servers(self, lab: Lab | None, ntp: Sequence[str] | str | None) -> list[Check]:
        """The clock by NTP servers: those named, else what a lab's poller knows already, else HFTLAB_NTP's."""
        if ntp is None and lab is not None and lab.ntp is not None and lab.ntp.estimate is not None:
            checks, self.measured = time_servers.examine_lab(lab.ntp, lab.system_clock)
            return checks
        servers = list(lab.ntp.servers) if ntp is None and lab is not None and lab.ntp is not None else _servers(ntp)
        if not servers:
            return [time_servers.unasked()]
        checks, self.measured = await time_servers.examine_servers(servers, self.seconds)
        return checks

    async def clock(self) -> list[Check]:
        """The clock by itself and by the kernel."""
        checks, kernel = await clocks.examine_clocks(self.root)
        self.claimed = None if kernel is None else kernel.divergence
        return checks

    async def memory(self, directory: Path) -> list[Check]:
        """The checks of memory and disk."""
        return capacity.examine_memory(self.root, directory)

    async def installation(self) -> list[Check]:
        """The checks of what is installed."""
        return installation.examine_installation()
