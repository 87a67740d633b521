"""Addresses of receivers: checked, and resolved without holding up the loop."""

from __future__ import annotations

import asyncio
from typing import Any

from hftlab.errors import FeedError, ValidationError, shown

Address = tuple[str, int]
"""Host (a name, IPv4 or IPv6) and port. Examples use 127.0.0.1: what listens there is for this machine alone."""


def checked_address(address: object) -> Address:
    """The address. Raises ValidationError for anything but a host and a port."""
    if isinstance(address, (tuple, list)) and len(address) == 2:
        host, port = address
        if isinstance(host, str) and host and type(port) is int and 0 <= port < 1 << 16:
            return host, port
    raise ValidationError(
        f'an address is (host, port), such as ("127.0.0.1", 5000), with a port of 0 to 65,535; got {shown(address)}'
    )


def positive(what: str, value: object) -> int:
    """The value. Raises ValidationError for anything but an integer above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValidationError(f"{what} is an integer above 0; got {shown(value)}")
    return value


async def resolved(address: Address, kind: int) -> list[tuple[int, Any]]:
    """The families and addresses of a host, at least one, in the order to be tried. Raises FeedError."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(*address, type=kind)
    except OSError as error:
        raise FeedError(f"no address is known for {address[0]}: {error}") from error
    return [(family, place) for family, _, _, _, place in found]
