"""What redis-py and the operating system raise, as hftlab's errors: which one, whether to try again, and no secrets.

The original exception is not chained: its frames hold the arguments of AUTH. What it said is in our message.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from hftlab.errors import AuthenticationFailed, ServerRefused, ServerUnreachable, StreamError
from hftlab.streams.address import Address

FAILURES: tuple[type[BaseException], ...] = (RedisError, OSError, TimeoutError, EOFError)
"""What talking to a server may raise; ``judge`` makes sense of each."""

# Replies that say "not now": the server may do later what it refuses at present.
_LATER = (
    "LOADING",
    "OOM",
    "MISCONF",
    "READONLY",
    "MASTERDOWN",
    "NOREPLICAS",
    "BUSY",
    "TRYAGAIN",
    "ASK",
    "CLUSTERDOWN",
    "UNBLOCKED",
)
_PASSWORD = ("NOAUTH", "WRONGPASS")
# redis-py makes classes of these, and takes the word away.
_PREFIXES: dict[type[BaseException], str] = {
    BusyLoadingError: "LOADING",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    MasterDownError: "MASTERDOWN",
    TryAgainError: "TRYAGAIN",
    AskError: "ASK",
    MovedError: "MOVED",
    ClusterDownError: "CLUSTERDOWN",
}
_MIGRATES = (
    "the slot of this lab is being moved to another node of the cluster, and a lab is used as a whole; where that "
    "takes longer than this was tried, give RedisStreamManager a larger deadline_s"
)
_MEANING = {
    "LOADING": "it is still loading its data",
    "OOM": "its memory is full (maxmemory): delete sessions, or raise the limit",
    "MISCONF": "it can't write to its disk: make room, then look into its log",
    "READONLY": "it is a read-only replica: use the primary's address",
    "ASK": _MIGRATES,
    "TRYAGAIN": _MIGRATES,
    "CLUSTERDOWN": "its cluster does not work: some of its slots have no node (look at CLUSTER INFO)",
    "BUSY": "a script has been running on it for too long",
}
START_ONE = (
    "Start one (valkey-server or redis-server), check the address, or let hftlab run its own: "
    "await EmbeddedServer('.hftlab').start(), which is what a Lab without a URL does"
)


class Verdict(NamedTuple):
    """The error to raise in the end, whether trying again may help, and the same in a few words."""

    error: StreamError
    retry: bool
    words: str


def judge(error: BaseException, address: Address) -> Verdict:
    """What a failure means. Never raises."""
    error = _root(error)
    words = address.scrub(_words(error))
    prefix = _PREFIXES.get(type(error)) or words.partition(" ")[0].rstrip(":")
    if isinstance(error, (AuthenticationError, AuthenticationWrongNumberOfArgsError)) or prefix in _PASSWORD:
        text = (
            f"the server at {address} wants another user or password than it was given, or none; it says: {words}. "
            "They stand in the URL, percent-encoded: redis://user:password@host:port"
        )
        return Verdict(AuthenticationFailed(text), False, "wrong user or password")
    if prefix in _LATER:
        meaning = _MEANING.get(prefix, "it asks to come back later")
        text = f"the server at {address} answered, but would not do it: {meaning} ({words})"
        return Verdict(ServerRefused(text), True, words)
    if prefix == "MOVED":
        return _moved(words, address)
    if "cluster support disabled" in words:
        text = f"the server at {address} is no node of a Redis Cluster: write redis:// or rediss://, without +cluster"
        return Verdict(ServerRefused(text), False, words)
    if isinstance(error, NoPermissionError) or prefix == "NOPERM":
        text = f"the server at {address} does not let this user do it: {words}"
        return Verdict(ServerRefused(text), False, words)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        text = f"the TLS handshake with the server at {address} failed: {words}"
        return Verdict(ServerUnreachable(text), False, words)
    if isinstance(error, ResponseError):
        return Verdict(ServerRefused(f"the server at {address} refused a command: {words}"), False, words)
    text = f"no server answers at {address} ({words}). {START_ONE}"
    return Verdict(ServerUnreachable(text), True, words)


def _moved(words: str, address: Address) -> Verdict:
    if address.in_cluster:
        text = f"the server at {address} does not own this lab's slot any more, and none was found that does ({words})"
        return Verdict(ServerUnreachable(text), True, words)
    text = (
        f"the server at {address} is a node of a Redis Cluster, and another node keeps this lab ({words}); give the "
        "cluster's address: redis+cluster://user:password@host:port/, or rediss+cluster://… for TLS"
    )
    return Verdict(ServerRefused(text), False, words)


def _root(error: BaseException) -> BaseException:
    # redis-py wraps what goes wrong while it connects: ConnectionError(AuthenticationError(…)).
    while isinstance(error, (RedisConnectionError, RedisTimeoutError)) and error.args:
        inner = error.args[0]
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def _words(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, TimeoutError) or not text:
        return text or "it did not answer in time"
    return text
