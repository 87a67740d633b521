"""The sequencer's words, compiled: rows in arrival order become rows in the order of their numbers.

``rows.sequence`` takes the rows of one batch, a message at a time. Nearly all of them are the next of their source and
go through its fast path, a comparison and a hash of the content; the rest are for ``words.accept``. Read ``layout``
(what is kept, and where) first, then ``rows``, ``words``, ``gaps``, ``causes`` and ``held``.

Contract: one thread. Nothing is allocated, so the caller sees to the room before each call (``Tables.make_room``). No
row of the input is written. A held row is copied once into the store and once out of it; others are not touched.

Only what Python calls is cached on disk, in ``rows``: everything else is compiled into it. ``dedup`` stands apart: the
deduplicator's memory of event ids, and its kernel, cached by itself.
"""
