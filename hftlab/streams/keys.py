"""The names of everything that hftlab keeps in Redis.

All keys of a lab begin with one hash tag, ``{namespace}``, so a cluster keeps them in one slot and one script may
touch them all. A session is known by its number; its name is an entry in one hash, so renaming moves no data.

==============================  ======  =============================================================================
key                             type    holds
==============================  ======  =============================================================================
``{hftlab}:sessions``           hash    session name → number
``{hftlab}:numbers``            string  the highest session number that was given out
``{hftlab}:s:7:meta``           hash    what session 7 holds: see ``META_FIELDS``
``{hftlab}:s:7:symbols``        set     its symbols
``{hftlab}:s:7:writers``        hash    writer → token, digest and progress: see ``scripts.APPEND``
``{hftlab}:s:7:market``         stream  its market data; likewise ``:order``, ``:fill`` and ``:signal``
``{hftlab}:s:7:groups``         set     the names of its consumer groups
``{hftlab}:s:7:g:<group>``      hash    who has a group, and where it stands: see ``group_scripts``
``…:g:<group>:letters``         stream  the group's dead letters: see ``letter_entries``
``{hftlab}:u:<key>``            any     what users' handlers keep beside the positions of their groups
==============================  ======  =============================================================================

A stream's entry has the id ``<milliseconds>-<log sequence>``. The first field of every entry is ``log_sequence`` (the
same number as in the id: what was not written by hftlab's script shows), the second ``appended`` (when the server wrote
it, in us UTC by its own clock; entries of earlier versions have none), the rest is either ``frame`` with the bytes of a
frame whose rows count their log sequences from there, or the named fields of a single event.
"""

from __future__ import annotations

import re

from hftlab.errors import ValidationError
from hftlab.events.records import EventType

META_FIELDS = (
    "name",
    "number",
    "created_ns",
    "events",
    "market",
    "order",
    "fill",
    "signal",
    "earliest_ns",
    "latest_ns",
    "last_ms",
    "backward_ms",
    "stored_bytes",
    "entries",
    "trimmed",
    "successor",
)
"""The fields of a session's meta hash.

``events`` is the next log sequence; the four words count by type; ``earliest_ns`` and ``latest_ns`` bound the
arrivals; ``last_ms`` is the time in the last entry's id; ``backward_ms`` is how far an entry's id ever lay ahead of
the earliest arrival in it, which is how far past its end a time range must be read; ``trimmed`` (where retention took
something) is the first log sequence that is still there; ``successor`` names the session that goes on after this one,
which is sealed then.
"""

LOG_FIELD = b"log_sequence"
APPENDED_FIELD = b"appended"
FRAME_FIELD = b"frame"
TYPE_ORDER = (EventType.MARKET_DATA, EventType.ORDER, EventType.FILL, EventType.SIGNAL)
"""The order of the streams among a script's keys."""

_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
MAX_NAME_BYTES = 200
_LETTERS = ":letters"


class SessionKeys:
    """The keys of one session."""

    __slots__ = ("groups", "meta", "number", "streams", "symbols", "writers")

    def __init__(self, prefix: str, number: int) -> None:
        self.number = number
        self.meta = f"{prefix}:s:{number}:meta"
        self.symbols = f"{prefix}:s:{number}:symbols"
        self.writers = f"{prefix}:s:{number}:writers"
        self.groups = f"{prefix}:s:{number}:groups"
        self.streams = {event_type: f"{prefix}:s:{number}:{event_type.topic}" for event_type in TYPE_ORDER}

    @property
    def all(self) -> tuple[str, ...]:
        """Meta, symbols, writers, and the streams in ``TYPE_ORDER``."""
        return (self.meta, self.symbols, self.writers, *self.streams.values())

    @property
    def group_prefix(self) -> str:
        """What the keys of all groups begin with."""
        return self.groups.removesuffix("groups") + "g:"

    def group(self, name: str) -> GroupKeys:
        """The keys of one consumer group. Raises ValidationError for a name that is none."""
        return GroupKeys(self, check_group(name))

    def __repr__(self) -> str:
        return f"SessionKeys({self.meta.removesuffix(':meta')})"


class GroupKeys:
    """The keys of one consumer group of a session."""

    __slots__ = ("hash", "letters", "name", "session")

    def __init__(self, session: SessionKeys, name: str) -> None:
        self.session = session
        self.name = name
        self.hash = session.group_prefix + name
        self.letters = f"{self.hash}{_LETTERS}"

    def __repr__(self) -> str:
        return f"GroupKeys({self.hash})"


class Keys:
    """All keys of one lab. Raises ValidationError for a namespace that would not be one hash tag."""

    __slots__ = ("namespace", "numbers", "sessions")

    def __init__(self, namespace: str = "hftlab") -> None:
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
            raise ValidationError(f"a namespace is 1 to 64 letters, digits and any of _ . : -; got {namespace!r:.100}")
        self.namespace = namespace
        self.sessions = f"{{{namespace}}}:sessions"
        self.numbers = f"{{{namespace}}}:numbers"

    def session(self, number: int) -> SessionKeys:
        """The keys of the session with that number."""
        return SessionKeys(f"{{{self.namespace}}}", number)

    def user(self, key: str) -> str:
        """The key of what a user's handlers call ``key``."""
        return f"{{{self.namespace}}}:u:{key}"

    def __repr__(self) -> str:
        return f"Keys({self.namespace!r})"


def check_name(what: str, name: object) -> str:
    """Return ``name``, or raise ValidationError: 1 to 200 bytes of printable text without spaces at its ends."""
    plain = isinstance(name, str) and name.isprintable() and name == name.strip()
    # isprintable is false for lone surrogates, so this encode can't fail.
    if isinstance(name, str) and plain and 0 < len(name.encode()) <= MAX_NAME_BYTES:
        return name
    raise ValidationError(
        f"{what} is printable text of 1 to {MAX_NAME_BYTES} bytes without spaces at its ends; got {name!r:.100}"
    )


def check_group(name: object) -> str:
    """Return the name of a consumer group, or raise ValidationError: as others, but for the ending ``:letters``."""
    group = check_name("a group's name", name)
    if group.endswith(_LETTERS):
        raise ValidationError(f"a group's name does not end in {_LETTERS!r}; got {group!r:.100}")
    return group
