"""The address of a server that may move: whoever started it may end, and another process start it again elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from hftlab.streams.address import Address, Credentials


class Published(NamedTuple):
    """Where a folder's server is, as whoever started it has said. ``credentials`` show nothing by themselves."""

    pid: int
    server_pid: int
    socket: str
    credentials: Credentials


class MovingAddress(Address):
    """The address of a server that may be elsewhere later: the same object, at changing places.

    Clients take ``connection`` and ``credentials`` anew when ``moves`` has changed, and ``follow`` when nobody answers.
    """

    __slots__ = ("moves",)

    def __init__(self, options: dict[str, Any], credentials: Credentials | None, shown: str, label: str = "") -> None:
        super().__init__(options, credentials, shown, label)
        self.moves = 0

    async def follow(self, patience_s: float) -> bool:
        """Find the server again, for about ``patience_s`` at most; True when it is another one than before."""
        raise NotImplementedError


class SharedAddress(MovingAddress):
    """An embedded server's address: the same object for as long as its folder is open, at changing places."""

    __slots__ = ("_find",)

    def __init__(self, find: Callable[[float], Awaitable[bool]]) -> None:
        super().__init__({"path": ""}, None, "unix://", "embedded server")
        self._find = find

    def move(self, socket: str, credentials: Credentials, label: str) -> None:
        """Say where the server is now."""
        self.label = label
        # Every start anew has a folder of its own for its socket; a restart keeps both path and password.
        if socket != self._options["path"]:
            self._options, self.credentials, self.shown = {"path": socket}, credentials, f"unix://{socket}"
            self.moves += 1

    async def follow(self, patience_s: float) -> bool:
        """Find the server again, starting it if nobody else does; True when it is another one than before.

        Waits up to ``patience_s`` for one that does not answer, longer for one that loads its data. Raises what keeps
        it from starting (FolderDamaged, ServerUnreachable).
        """
        return await self._find(patience_s)
