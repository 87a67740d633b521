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
from hftlab.streams.permissions import grant, is_refusal

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
_WRITES = ("OOM", "MISCONF", "READONLY", "NOREPLICAS")
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
_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_OWN_CERTIFICATE = (
    "It may want to see a client's certificate that it trusts: ?ssl_certfile=/path/to/client.pem"
    "&ssl_keyfile=/path/to/client.key"
)
_NO_TLS = "If it does not speak TLS, write redis:// instead of rediss://"
START_ONE = (
    "Start one (valkey-server or redis-server), check the address, or let hftlab run its own: "
    "await EmbeddedServer('.hftlab').start(), which is what a Lab without a URL does"
)


class Verdict(NamedTuple):
    """The error to raise in the end, whether trying again may help, the same in a few words, and whether it is only
    writes that the server refuses."""

    error: StreamError
    retry: bool
    words: str
    only_writes: bool = False


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
        return Verdict(ServerRefused(text), True, words, prefix in _WRITES)
    if prefix == "MOVED":
        return _moved(words, address)
    if "cluster support disabled" in words:
        text = f"the server at {address} is no node of a Redis Cluster: write redis:// or rediss://, without +cluster"
        return Verdict(ServerRefused(text), False, words)
    if isinstance(error, NoPermissionError) or prefix == "NOPERM" or is_refusal(words):
        advice = grant(words, in_cluster=address.in_cluster)
        text = f"the server at {address} does not let this user do it: {words.rstrip('.')}. {advice}"
        return Verdict(ServerRefused(text), False, words)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        text = f"the TLS handshake with the server at {address} failed: {words.rstrip('.')}. {_what_to_set(error)}"
        return Verdict(ServerUnreachable(text), False, words)
    if isinstance(error, ResponseError):
        return Verdict(ServerRefused(f"the server at {address} refused a command: {words}"), False, words)
    text = f"no server answers at {address} ({words}). {_maybe_tls(words, address)}{START_ONE}"
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
        if isinstance(error.__context__, ssl.SSLError):
            # Of what TLS says it makes a text without the reason's code.
            inner = error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def _what_to_set(error: ssl.SSLError) -> str:
    """What in the URL makes a TLS handshake go well."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if getattr(error, "verify_code", 0) in _OTHER_NAME:
            return (
                "The certificate is another host's: write a host into the URL that the certificate names. A test "
                "server's may go unchecked: ?ssl_check_hostname=false"
            )
        return "Say whose signature to trust: ?ssl_ca_certs=/path/to/ca.pem (a certificate authority's file, PEM)"
    reason = str(error.reason or error).upper()
    if "ALERT" in reason and "VERSION" not in reason:
        return f"It is the server that refuses. {_OWN_CERTIFICATE}"
    if any(word in reason for word in ("WRONG_VERSION", "RECORD_LAYER", "UNKNOWN_PROTOCOL")):
        return _NO_TLS
    return (
        "ssl_ca_certs, ssl_certfile and ssl_keyfile in the URL are PEM files: the authority's certificate, the "
        "client's own, and the key that belongs to this"
    )


def _maybe_tls(words: str, address: Address) -> str:
    """A connection that ends at once, or never answers, is often one side's that speaks TLS alone."""
    ended = any(
        one in words
        for one in ("reset by peer", "closed by server", "Connection lost", "Broken pipe", "Protocol Error", "EOF")
    )
    if address.scheme == "redis":
        return "If it speaks TLS, write rediss:// instead of redis://. " if ended else ""
    if address.scheme == "rediss":
        silent = "in time" in words
        return f"{_OWN_CERTIFICATE}. " if ended else f"{_NO_TLS}. " if silent else ""
    return ""


def _words(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, TimeoutError) or not text:
        return text or "it did not answer in time"
    return text
