"""Any URL of a server or a cluster, as an address.

``redis://…``, ``rediss://…`` and ``unix://…`` name one server (see ``address``); ``redis+cluster://`` and
``rediss+cluster://`` name one or more nodes of a Redis Cluster, in any order, and the rest is found from there::

    redis+cluster://user:password@host:port,host2:port2/?ssl_ca_certs=…
"""

from __future__ import annotations

from hftlab.errors import ValidationError
from hftlab.streams.address import Address, read_server
from hftlab.streams.cluster import ClusterAddress, Node

_MARK = "+cluster"
_HOW = (
    "a cluster's address is redis+cluster://user:password@host:port,host2:port2/, or rediss+cluster://… for TLS: one "
    "or more of its nodes, by TCP, and no database (a cluster has number 0 only); write special characters of a user "
    "or password percent-encoded (urllib.parse.quote)"
)


def read_address(url: str) -> Address | ValidationError:
    """The address that a URL tells, or the error to raise: the caller forgets the URL before raising it."""
    scheme, separator, rest = url.partition("://") if isinstance(url, str) else ("", "", "")
    if not separator or not scheme.endswith(_MARK):
        return read_server(url)
    plain = scheme.removesuffix(_MARK)
    if plain not in ("redis", "rediss"):
        return ValidationError(f"{_HOW}; got another scheme")
    cut = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    signed, at, places = rest[:cut].rpartition("@")
    # Each node by itself is a server's address, read by the same rules.
    found = [read_server(f"{plain}://{signed}{at}{place}{rest[cut:]}") for place in places.split(",")]
    nodes: list[Node] = []
    for place, one in zip(places.split(","), found, strict=True):
        if isinstance(one, ValidationError):
            return ValidationError(f"{_HOW}; got a node, a database or an option that does not read so: {one}")
        if not place or one.connection.get("db", 0) != 0:
            return ValidationError(f"{_HOW}; got {'an empty node' if not place else 'another database than 0'}")
        nodes.append(Node(one.connection["host"], int(one.connection["port"])))
    first = found[0]
    assert isinstance(first, Address)
    return ClusterAddress(tuple(dict.fromkeys(nodes)), first.connection, first.credentials, tls=plain == "rediss")
