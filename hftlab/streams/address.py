"""Where a server is, and the secret that opens it, kept apart so that only the first is ever shown.

``redis://user:password@host:port/db``, ``rediss://`` (TLS) and ``unix:///path?db=0&password=…`` are taken. The user
and the password go into a ``Credentials`` object, which redis-py asks for them when it connects: they are in no
repr, in no message, and in no local variable of a frame that a traceback could show.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from redis.asyncio.connection import parse_url
from redis.credentials import CredentialProvider

from hftlab.errors import ValidationError

_SCHEMES = ("redis", "rediss", "unix")
# What may follow the "?" of a URL. Timeouts, retries and pool sizes are ours: redis-py's own retry duplicates writes.
_OPTIONS = frozenset(
    {
        "db", "username", "password", "client_name", "socket_keepalive",
        "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data",
        "ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "ssl_password",
    }
)  # fmt: skip
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_REQUIRED = ("required", "optional", "none")
_HOW = (
    "a server's address is redis://user:password@host:port/db, rediss://… for TLS, unix:///path/to/socket?db=0, or a "
    "cluster's redis+cluster://user:password@host:port,host2:port2/; write special characters of a user or password "
    "percent-encoded (urllib.parse.quote)"
)


class Credentials(CredentialProvider):
    """A user and a password, for redis-py to ask for. Shows neither."""

    __slots__ = ("__password", "__username")

    def __init__(self, username: str | None, password: str | None) -> None:
        self.__username = username
        self.__password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """(password,) or (user, password), for AUTH."""
        if self.__username:
            return self.__username, self.__password or ""
        return (self.__password or "",)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same; redis-py's own version logs a remark at every connection."""
        return self.get_credentials()

    def scrub(self, text: str) -> str:
        """``text`` without the user and the password."""
        for secret in (self.__password, self.__username):
            if secret and len(secret) > 2:
                text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return "Credentials(***)"


class Address:
    """A server's address, made by ``urls.read_address`` or ``unix``. ``str`` and ``repr`` show none of its secrets."""

    __slots__ = ("_options", "credentials", "label", "shown")

    def __init__(self, options: dict[str, Any], credentials: Credentials | None, shown: str, label: str = "") -> None:
        self._options = options
        self.credentials = credentials
        self.shown = shown
        self.label = label or shown

    @classmethod
    def unix(cls, path: str, password: str | None = None, *, label: str = "") -> Address:
        """The address of a Unix socket; ``label`` stands for it in reprs (a socket's path is often random)."""
        credentials = Credentials(None, password) if password else None
        return cls({"path": path}, credentials, f"unix://{path}", label)

    @property
    def connection(self) -> dict[str, Any]:
        """What redis-py's connection class is made with, but for the credentials."""
        return dict(self._options)

    @property
    def in_cluster(self) -> bool:
        """Whether it is a cluster's: then what one node refuses, another may do."""
        return False

    @property
    def scheme(self) -> str:
        """``redis``, ``rediss`` or ``unix``."""
        return self.shown.partition("://")[0]

    def reveal(self) -> str:
        """The whole URL with its secrets, for another client (``redis-cli -u``, ``redis.from_url``). Don't print it."""
        username, password = _spelled(self.credentials)
        options = {name: value for name, value in self._options.items() if name not in ("host", "port", "path")}
        if self.scheme == "unix":
            options |= {name: text for name, text in (("username", username), ("password", password)) if text}
            place = quote(self._options["path"])
        else:
            place = f"{signed(self.credentials)}{self._options['host']}:{self._options['port']}/{options.pop('db', 0)}"
        return f"{self.scheme}://{place}" + (f"?{urlencode(options)}" if options else "")

    def scrub(self, text: str) -> str:
        """``text`` without this address's secrets."""
        return text if self.credentials is None else self.credentials.scrub(text)

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Address({self.label})"


def signed(credentials: Credentials | None) -> str:
    """``user:password@``, percent-encoded: the part of a URL that is not to be shown."""
    username, password = _spelled(credentials)
    return f"{quote(username, safe='')}:{quote(password, safe='')}@" if credentials else ""


def _spelled(credentials: Credentials | None) -> tuple[str, str]:
    if credentials is None:
        return "", ""
    *first, password = credentials.get_credentials()
    return (first[0] if first else ""), password


def read_server(url: str) -> Address | ValidationError:
    """The address that one server's URL tells, or the error to raise: the caller forgets the URL before raising it."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or parts.fragment:
            return ValidationError(f"{_HOW}; got another scheme, or a '#'")
        options: dict[str, Any] = dict(parse_url(url))
    except (ValueError, TypeError, AttributeError):
        # The messages of urllib and redis-py quote pieces of the URL, perhaps the password's.
        return ValidationError(f"{_HOW}; got text that is not one (a port that is no number, for instance)")
    options.pop("connection_class", None)
    credentials = None
    username, password = options.pop("username", None), options.pop("password", None)
    if username or password:
        credentials = Credentials(username, password)
    unknown = sorted(set(options) - _OPTIONS - {"host", "port", "path"})
    if unknown:
        return ValidationError(
            f"a server's address takes the options {', '.join(sorted(_OPTIONS))}; got {unknown[0]!r:.50}. Timeouts, "
            "retries and the pool's size are arguments of RedisStreamManager"
        )
    wrong = _check_tls(options)
    if wrong:
        return ValidationError(wrong)
    problem = _check_place(parts.scheme, unquote(parts.path), options)
    if problem:
        return ValidationError(f"{problem}: {_HOW}")
    hidden = "***@" if credentials else ""
    if parts.scheme == "unix":
        shown = f"unix://{options['path']}"
    else:
        options.setdefault("host", "localhost")
        options.setdefault("port", 6379)
        shown = f"{parts.scheme}://{hidden}{options['host']}:{options['port']}/{options.get('db', 0)}"
    return Address(options, credentials, shown)


def _check_tls(options: dict[str, Any]) -> str:
    """Redis-py says what is wrong with these when it connects, as if no server were there."""
    for name in _FILES:
        if name in options and not os.path.exists(options[name]):
            return f"{name} in a server's address is a file (or folder) that is there; got {options[name]!r:.200}"
    required = options.get("ssl_cert_reqs", "required")
    if required not in _REQUIRED:
        return f"ssl_cert_reqs in a server's address is one of {', '.join(_REQUIRED)}; got {required!r:.50}"
    return ""


def _check_place(scheme: str, path: str, options: dict[str, Any]) -> str:
    if scheme == "unix":
        return "" if options.get("path") else "a unix:// address needs the path of a socket"
    # redis-py takes a database that is no number for 0, and says nothing.
    named = path.strip("/")
    return "" if not named or named.isdecimal() else "the database after the port is a number"
