"""Every exception that hftlab raises on purpose.

::

    HftlabError
    ├── ValidationError (ValueError)       an event, a record or an argument breaks a rule
    │   └── TimeError                      a time that can't be read, or could mean two moments
    ├── CodecError (ValueError)            bytes that are not what they claim to be
    │   └── SchemaError                    written by a newer hftlab than this one
    ├── FeedError (ValueError)             a capture or table that can't be read at all
    ├── RingError
    │   └── ClaimError (ValueError)        a claim or publication that breaks the ring's contract
    ├── BusError
    │   ├── BusBusy                        somebody else's run is on the bus
    │   ├── BusClosed                      publishing to, or waiting for, a bus that was closed
    │   ├── BusFull                        publish_nowait on a full queue
    │   ├── BreakerOpen                    a handler's circuit breaker kept an event from it
    │   ├── CascadeError                   handlers that emit without end
    │   ├── HandlerFailed                  a handler raised: the event, the handler and the cause are kept
    │   └── HandlerTimeout (TimeoutError)  an async handler took longer than its timeout_s
    ├── OrderError
    │   └── WindowFull                     a strict type waits for numbers that are missing, and holds all it may
    ├── StreamError
    │   ├── ServerUnreachable (ConnectionError)   no server answers; says how to start one
    │   ├── AuthenticationFailed           wrong or missing password
    │   ├── FolderInUse                    the data folder has a server that can't be shared
    │   ├── FolderDamaged                  the server refuses its own files; says what to do
    │   ├── ServerRefused                  out of memory, disk full, read-only
    │   ├── UnknownSession (LookupError)   no session of that name; lists those that are there
    │   ├── UnknownEvent (LookupError)     no event with that id in its session
    │   ├── SessionExists                  the name is taken
    │   ├── AppendConflict                 a gap in a writer's counter: something was lost on the way
    │   ├── WriterFenced                   another writer took over under the same name
    │   ├── SessionSealed                  a successor goes on; nothing may be appended to this one any more
    │   ├── UnknownGroup (LookupError)     no consumer group of that name; lists those that are there
    │   ├── GroupTaken                     another member of the group took over; this one may not go on
    │   ├── GroupLost                      the group or its session is gone: destroyed, or FLUSHALL
    │   └── UnreadWouldBeLost              trimming would take events that a group has not handled yet
    ├── ReplayError
    │   └── EmptyRange (LookupError)       start, end and filters leave nothing to replay
    ├── SpillFull                          the file for dead letters that no server takes has reached its bound
    ├── NotStarted                         something was asked of a lab that has not been started
    └── BackgroundFailed                   a background task died; the cause is chained

A local mistake (ValidationError, BusClosed, ClaimError …) is never retried; a remote failure (ServerUnreachable,
ServerRefused) has already been retried until its deadline when it surfaces.
"""

from __future__ import annotations

from typing import Any


class HftlabError(Exception):
    """The root of all exceptions that hftlab raises on purpose."""


class ValidationError(HftlabError, ValueError):
    """An event, a record or an argument breaks a rule; the message has the rule and the value."""


class TimeError(ValidationError):
    """A time that can't be read, or that could mean two moments; the message says what to write instead."""


class CodecError(HftlabError, ValueError):
    """Bytes that are not what they claim to be: truncated, damaged, or hostile."""


class SchemaError(CodecError):
    """A frame or file whose schema is newer than this hftlab reads."""


class FeedError(HftlabError, ValueError):
    """A capture or table that can't be read at all (single damaged lines are counted and skipped instead)."""


class RingError(HftlabError):
    """Something about a ring buffer."""


class ClaimError(RingError, ValueError):
    """A claim, publication or release that breaks the ring's contract."""


class BusError(HftlabError):
    """Something about the event bus."""


class BusBusy(BusError):
    """Another run (a replay, a processor) is on the bus: a bus has one run at a time."""


class BusClosed(BusError):
    """The bus was closed by us; nothing can be published to it any more."""


class BusFull(BusError):
    """A queue has no room and the caller chose not to wait."""


class BreakerOpen(BusError):
    """A handler's circuit breaker is open: it failed too often. The event went to the dead letters instead."""


class CascadeError(BusError):
    """Handlers emitted more events from one cause than the bus allows; the chain was cut and counted."""


class HandlerFailed(BusError):
    """A handler raised. ``handler`` names it, ``event`` is what it was given, ``__cause__`` is what it raised."""

    def __init__(self, message: str, *, handler: str, event: object) -> None:
        super().__init__(message)
        self.handler = handler
        self.event = event


class HandlerTimeout(BusError, TimeoutError):
    """An async handler took longer than its ``timeout_s`` and was cancelled. ``__cause__``: what it raised then."""


class OrderError(HftlabError):
    """Something about the order of events."""


class WindowFull(OrderError):
    """A strict source waits for missing numbers and its window is full. ``taken`` rows of the batch were taken.

    ``gap`` is the Gap that it waits for: ``gaps.give_up(error.gap)``, and go on. None: no more event ids can be
    remembered, and none may be forgotten (``Ordering(at_capacity="press back")``).
    """

    def __init__(self, message: str, *, taken: int, gap: Any = None) -> None:
        super().__init__(message)
        self.taken, self.gap = taken, gap


class StreamError(HftlabError):
    """Something about Redis Streams or the server behind them."""


class ServerUnreachable(StreamError, ConnectionError):
    """No server answered until the deadline; the message says how to start one."""


class AuthenticationFailed(StreamError):
    """The server wants another user or password. The message never shows the one that was tried."""


class FolderInUse(StreamError):
    """The data folder has a live server that can't be shared: it is silent, or another user's."""


class FolderDamaged(StreamError):
    """The embedded server refuses to load its own files; the message says how to repair or set them aside."""


class ServerRefused(StreamError):
    """The server answered, but would not do it: out of memory, disk full, or read-only."""


class UnknownSession(StreamError, LookupError):
    """No session has that name; the message lists those that exist."""


class UnknownEvent(StreamError, LookupError):
    """The session has no event with that id."""


class SessionExists(StreamError):
    """A session of that name exists already."""


class AppendConflict(StreamError):
    """A writer's counter has a gap or disagrees with the server: something before this append was lost."""


class WriterFenced(StreamError):
    """Another writer took over under the same name; this one may not write any more."""


class SessionSealed(StreamError):
    """The session has a successor: nothing may be appended to it any more."""


class UnknownGroup(StreamError, LookupError):
    """No consumer group of that name reads the session; the message lists those that do."""


class GroupTaken(StreamError):
    """Another member of the consumer group took over; this one may neither read nor commit any more."""


class GroupLost(StreamError):
    """The consumer group, or its session, is gone at run time: destroyed, deleted, or FLUSHALL."""


class UnreadWouldBeLost(StreamError):
    """Trimming would take events that a consumer group has not handled yet; ``force`` does it, and reports a gap."""


class ReplayError(HftlabError):
    """Something about a replay."""


class EmptyRange(ReplayError, LookupError):
    """Start, end and filters leave nothing to replay; the message says what the session has."""


class SpillFull(HftlabError):
    """The file for dead letters that no server takes has reached its bound; nothing of that call was written."""


class NotStarted(HftlabError):
    """Something was asked that needs a started lab, or a loop of its own; the message says what to write."""


class BackgroundFailed(HftlabError):
    """A background task died; the cause is chained, and was shown in the owner's repr until now."""


def shown(value: object, most: int = 100) -> str:
    """What a message shows of a value that somebody gave: its repr, up to ``most`` characters. Never raises.

    Python refuses to write integers of more than 4,300 digits, and a stranger's ``__repr__`` may do anything.
    """
    try:
        return repr(value)[:most]
    except Exception as error:
        return f"<{type(value).__name__} that can't be shown: {type(error).__name__}>"
