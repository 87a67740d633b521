"""Making a connection without holding up the loop: every address of a host in turn, then the first words."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from hftlab.feeds.addresses import Address, resolved
from hftlab.feeds.readiness import Readiness

T = TypeVar("T")

# A peer that died without a word is noticed after some 25 s, in place of the system's two hours.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


async def dial(
    address: Address, ready: Readiness, prepare: Callable[[socket.socket], T], hello: bytes
) -> tuple[socket.socket, T]:
    """A connected socket, and what ``prepare`` made of it before; ``hello`` has been sent.

    Gives up when ``ready`` is closed. Raises OSError of the last address that was tried, FeedError for a host without
    any. Cancelling is safe: the socket is closed.
    """
    refused = OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
    for family, place in await resolved(address, socket.SOCK_STREAM):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
            prepared = prepare(sock)
            await _connect(sock, place, ready)
            await _send(sock, hello, ready)
        except OSError as error:
            sock.close()
            refused = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock, prepared
    raise refused


async def _connect(sock: socket.socket, place: Address, ready: Readiness) -> None:
    reason = sock.connect_ex(place)
    while reason == errno.EINPROGRESS:
        await ready.until_writable(sock)
        _refuse_closed(ready)
        # Still under way where something else woke us up: only a connected socket has a peer.
        reason = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not reason:
            try:
                sock.getpeername()
            except OSError:
                reason = errno.EINPROGRESS
    if reason:
        raise OSError(reason, os.strerror(reason))


async def _send(sock: socket.socket, hello: bytes, ready: Readiness) -> None:
    unsent = memoryview(hello)
    while unsent:
        try:
            unsent = unsent[sock.send(unsent) :]
        except BlockingIOError:
            await ready.until_writable(sock)
            _refuse_closed(ready)


def _refuse_closed(ready: Readiness) -> None:
    if ready.closed:
        raise ConnectionAbortedError(errno.ECONNABORTED, "the receiver was closed meanwhile")
