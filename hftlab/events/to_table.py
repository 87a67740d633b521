"""Batches as pandas DataFrames, and as the small HTML table that a notebook shows."""

from __future__ import annotations

import enum
import html
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hftlab.events.batch import EventBatch
from hftlab.events.records import (
    NO_SEQUENCE,
    PAYLOAD_FIELDS,
    TEXT_FIELDS,
    ClockSource,
    EventType,
    Flags,
    Kind,
    OrderType,
    Priority,
    Side,
)

_ENUMS: dict[str, type[enum.IntEnum]] = {"kind": Kind, "side": Side, "direction": Side, "order_type": OrderType}
_TOPICS = [event_type.topic for event_type in EventType]
_SHOWN_ROWS = 10
# What says nothing new when all rows have it; a notebook's table leaves such columns out.
_PLAIN: dict[str, object] = {
    "source": "unknown", "side": "NONE", "sequence": NO_SEQUENCE, "span": 1, "part": 0, "epoch": 0, "cause": 0,
    "flags": int(Flags.LAST_PART), "event_id": 0,
}  # fmt: skip


def frame_of_batch(batch: EventBatch) -> pd.DataFrame:
    """The batch as a DataFrame; see ``EventBatch.to_frame``."""
    rows = batch.records
    data: dict[str, Any] = {}
    for name in ("timestamp", "received"):
        data[name] = pd.to_datetime(rows[name].copy(), unit="ns", utc=True)
    data["event_type"] = _categories(rows["type"].astype(np.int8) - 1, _TOPICS)
    data["symbol"] = _categories(rows["symbol"], list(batch.symbols))
    data["source"] = _categories(rows["source"], [source.text for source in batch.sources])
    for event_type in batch.counts():
        where = rows["type"] == event_type
        part = batch.only(event_type)
        for name in PAYLOAD_FIELDS[event_type]:
            values = _payload(part, event_type, name)
            if values is not None:
                data[name] = values if where.all() else _spread(values, where, data.get(name))
    for name, cls in (("priority", Priority), ("clock", ClockSource)):
        if rows[name].any():
            data[name] = _labels(cls, rows[name])
    for name in ("sequence", "span", "part", "epoch", "cause", "flags"):
        data[name] = rows[name].copy()
    data["event_id"] = batch.event_ids
    return pd.DataFrame(data)


def _payload(part: EventBatch, event_type: EventType, name: str) -> Any:
    """One payload field of rows of one type, or None for a number that no row has."""
    values = part.records[name]
    if name in _ENUMS:
        return _labels(_ENUMS[name], values)
    if name in TEXT_FIELDS[event_type]:
        return np.array(part.column(name), dtype=object)
    return None if len(values) and np.isnan(values).all() else values.copy()


def _spread(values: Any, where: npt.NDArray[np.bool_], into: Any) -> Any:
    """Values of some rows as a column of all; where several types share a field's name, ``into`` has the others'."""
    if isinstance(values, pd.Categorical):
        codes = np.full(len(where), -1, np.int8)
        codes[where] = values.codes
        return pd.Categorical.from_codes(codes, dtype=values.dtype)
    column = np.full(len(where), None if values.dtype == object else np.nan, values.dtype) if into is None else into
    column[where] = values
    return column


def _categories(codes: npt.NDArray[Any], names: list[str]) -> Any:
    return pd.Categorical.from_codes(codes.astype(np.int32), categories=pd.Index(names, dtype=object))


def _labels(cls: type[enum.IntEnum], values: npt.NDArray[Any]) -> Any:
    members = sorted(cls, key=int)
    codes = np.searchsorted(np.array([int(m) for m in members]), values)
    return pd.Categorical.from_codes(codes.astype(np.int8), categories=pd.Index([m.name for m in members]))


def html_of_batch(batch: EventBatch) -> str:
    """The first rows as an HTML table under a line that says how many there are; text from streams is escaped.

    Stable from run to run. Columns that say nothing (no source, no sequence, …) are left out.
    """
    shown = frame_of_batch(batch[:_SHOWN_ROWS])
    dull = [name for name, plain in _PLAIN.items() if name in shown and (shown[name] == plain).all()]
    if "event_type" in shown and len(batch.counts()) < 2:
        dull.append("event_type")
    head = f"<b>EventBatch</b> {html.escape(repr(batch).removeprefix('EventBatch'))}"
    if not len(batch):
        return f"<div>{head}</div>"
    table = shown.drop(columns=dull).to_html(index=False, escape=True, border=0, na_rep="")
    more = f"<i>{len(batch) - len(shown):,} rows more</i>" if len(batch) > len(shown) else ""
    return f"<div>{head}{table}{more}</div>"
