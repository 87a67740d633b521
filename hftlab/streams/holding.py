"""What a group's hash says: who has the group, and where it stands."""

from __future__ import annotations

import json

from hftlab.events.group_ports import Checkpoint
from hftlab.streams.liveness import process_mark

_NS_PER_MS = 1_000_000


def holder_text(name: str) -> str:
    """What a member leaves in the hash while it has the group: its name, and which process it is."""
    return json.dumps({"name": name, "mark": process_mark()})


def name_of(holder: bytes) -> str:
    """The name in a holder's text; empty where there is none."""
    return _said(holder, "name")


def mark_of(holder: bytes) -> str:
    """The mark of the process in a holder's text; empty where there is none."""
    return _said(holder, "mark")


def _said(holder: bytes, field: str) -> str:
    try:
        found = json.loads(holder)[field]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def checkpoint_of(fields: dict[bytes, bytes]) -> Checkpoint:
    """The checkpoint in a group's hash."""
    prefix = b"entry:"
    return Checkpoint(
        log_sequence=int(fields.get(b"log", b"0")),
        held=tuple(int(log) for log in fields.get(b"held", b"").split()),
        entries={name[len(prefix) :].decode(): at.decode() for name, at in fields.items() if name.startswith(prefix)},
        serial=int(fields.get(b"serial", b"0")),
        epoch=int(fields.get(b"epoch", b"0")),
        saved_ns=int(fields.get(b"saved_ms", b"0")) * _NS_PER_MS,
        state=fields.get(b"state", b""),
    )
