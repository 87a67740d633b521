"""How events get into sessions: by content (``append``), by name (``writer``), anew (``publish``), out of a file."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from hftlab.errors import AppendConflict, SessionExists, UnknownSession, ValidationError
from hftlab.events import Event, EventBatch
from hftlab.events.ports import SessionInfo
from hftlab.streams.appending import Appending, Identity, Pipeline, WriterForgotten
from hftlab.streams.archive import ArchiveRows, check_archive
from hftlab.streams.catalogue import Catalogue
from hftlab.streams.cutting import FORMATS, BatchRows, Format
from hftlab.streams.keys import Keys, check_name
from hftlab.streams.progress import AppendProgress
from hftlab.streams.writers import AppendResult, Writer, result


class Recording:
    """The writing half of a manager; its methods are described there."""

    def __init__(
        self,
        pipeline: Pipeline,
        catalogue: Catalogue,
        keys: Keys,
        now_ns: Callable[[], int],
        *,
        session: str | None,
        progress: bool,
    ) -> None:
        self._pipeline = pipeline
        self._catalogue = catalogue
        self._keys = keys
        self._now_ns = now_ns
        self._session = None if session is None else check_name("a session's name", session)
        self._progress = progress
        self._publishers: dict[str, Writer] = {}
        self._claiming = asyncio.Lock()

    @property
    def session_name(self) -> str:
        """The session of appends that name none; made up when it is first needed."""
        if self._session is None:
            moment = dt.datetime.fromtimestamp(self._now_ns() // 1_000_000_000, dt.UTC)
            self._session = f"session-{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        return self._session

    def forget(self, name: str, renamed: str | None = None) -> None:
        """Note that a session was deleted, or has another name now."""
        self._publishers.pop(name, None)
        if renamed is not None and self._session == name:
            self._session = renamed

    def close(self) -> None:
        """Forget what belongs to the event loop; what is published next claims anew."""
        self._publishers.clear()
        self._claiming = asyncio.Lock()

    async def append(self, batch: EventBatch, session: str | None, key: str | None, form: Format) -> AppendResult:
        """Append a batch once."""
        _check(batch, form)
        name = self.session_name if session is None else session
        known_by = None if key is None else check_name("a key", key)
        if not len(batch):
            number, _ = await self._catalogue.ensure(name)
            return result(name, number, 0, None)
        source = BatchRows(batch)
        digest = await self._pipeline.inspect(batch)
        # Encoding begins while the server is asked.
        with (
            self._pipeline.ahead(source, form=form) as ahead,
            AppendProgress(len(batch), name, shown=self._progress) as progress,
        ):
            number, _ = await self._catalogue.ensure(name)
            identity = Identity(f"key:{digest if known_by is None else known_by}", digest=digest)
            appending = Appending(
                self._pipeline, self._keys.session(number), name, source, identity,
                form=form, on_progress=progress.at, ahead=ahead,
            )  # fmt: skip
            record = await appending.run()
        found = appending.found or 0
        counters = self._pipeline.connections.counters
        counters.appends += found < len(batch)
        counters.duplicates += found >= len(batch)
        counters.resumed += 0 < found < len(batch)
        return result(name, number, len(batch), record, duplicate=found >= len(batch))

    async def publish(
        self, events: Event | Iterable[Event] | EventBatch, session: str | None, form: Format
    ) -> AppendResult:
        """Append a few events, each time anew."""
        batch = _as_batch(events)
        _check(batch, form)
        name = self.session_name if session is None else session
        try:
            return await (await self._publisher(name)).append(batch, format=form)
        except (UnknownSession, WriterForgotten):
            # Deleted since: it is made again, as it was made at first.
            self._publishers.pop(name, None)
            self._pipeline.connections.counters.remade += 1
        return await (await self._publisher(name)).append(batch, format=form)

    async def _publisher(self, name: str) -> Writer:
        """This manager's own writer in a session: one record on the server, however many events are published."""
        async with self._claiming:
            if name not in self._publishers:
                self._publishers[name] = await self.writer(name, f"publish-{secrets.token_hex(6)}")
            return self._publishers[name]

    async def writer(self, session: str, name: str, frame_rows: int | None = None) -> Writer:
        """Claim a named writer."""
        pipeline = self._pipeline if frame_rows is None else self._pipeline.with_frames(frame_rows)
        check_name("a writer's name", name)
        number, _ = await self._catalogue.ensure(session)
        writer = Writer(pipeline, self._keys.session(number), session, name)
        await writer.claim()
        return writer

    async def import_session(self, path: Path, name: str | None) -> SessionInfo:
        """Make a session out of an exported file."""
        loop = asyncio.get_running_loop()
        archive = await loop.run_in_executor(self._pipeline.encoder(), check_archive, path)
        name = archive.info.name if name is None else name
        number, made = await self._catalogue.ensure(name, archive.info.created_ns)
        keys = self._keys.session(number)
        identity = Identity(f"import:{archive.digest}", digest=archive.digest)
        events, begun = await self._pipeline.connections.call_many(
            [("HGET", keys.meta, "events"), ("HEXISTS", keys.writers, identity.field)]
        )
        if not (made or begun or int(events or 0) == 0):
            raise SessionExists(f"the session {name!r} has other events; import {path} under another name")
        if archive.info.events:
            with AppendProgress(archive.info.events, name, shown=self._progress) as progress:
                appending = Appending(
                    self._pipeline, keys, name, ArchiveRows(archive, number), identity, on_progress=progress.at
                )
                record = await appending.run()
            if (record.first, record.last) != (0, archive.info.events - 1):
                raise AppendConflict(
                    f"somebody else wrote into the session {name!r} while it was imported, so its log sequences differ "
                    "from the file's; delete it and import again"
                )
        return await self._catalogue.by_number(number)


def _check(batch: EventBatch, form: Format) -> None:
    if not isinstance(batch, EventBatch):
        raise ValidationError(f"append takes an EventBatch (EventBatch.from_events, from_frame …); got {batch!r:.100}")
    if form not in FORMATS:
        raise ValidationError(f"format is one of {', '.join(FORMATS)}; got {form!r:.100}")


def _as_batch(events: Event | Iterable[Event] | EventBatch) -> EventBatch:
    if isinstance(events, EventBatch):
        return events
    if isinstance(events, Event):
        return EventBatch.from_events((events,))
    if isinstance(events, Iterable):
        return EventBatch.from_events(events)
    raise ValidationError(f"publish takes an Event, several, or an EventBatch; got {events!r:.100}")
