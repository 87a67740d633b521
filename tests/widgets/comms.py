"""A browser's side of a widget, without a browser: comms that keep what is sent, and say what a view would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import comm
import ipywidgets.widgets.widget as registry
import pytest
from comm.base_comm import BaseComm

from hftlab.widgets import live as live_module
from hftlab.widgets.refresh import RefreshLoop, shared_loop
from tests.widgets.recorded import until


class FakeComm(BaseComm):
    """Keeps what the kernel sends, and sends what a view would: on whatever thread it is called."""

    opened: list[FakeComm]

    def __init__(self, **options: Any) -> None:
        self.sent: list[tuple[str, Any, list[Any]]] = []
        super().__init__(**options)
        self.opened.append(self)

    def publish_msg(
        self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
    ) -> None:
        self.sent.append((msg_type, data, list(buffers or [])))

    def say(self, do: str, value: Any = None) -> None:
        """A custom message of a view."""
        content = {"method": "custom", "content": {"do": do, "value": value}}
        self.handle_msg({"content": {"data": content}, "buffers": []})

    @property
    def updates(self) -> list[dict[str, Any]]:
        return [data["state"] for kind, data, _ in self.sent if kind == "comm_msg" and data["method"] == "update"]


@pytest.fixture
async def comms(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[FakeComm]]:
    """All comms that are opened; at the end no test may have left one, nor a task, nor a view in the loop."""
    opened: list[FakeComm] = []
    monkeypatch.setattr(FakeComm, "opened", opened, raising=False)
    monkeypatch.setattr(comm, "create_comm", lambda **options: FakeComm(**options))
    yield opened
    for made in list(registry._instances.values()):
        made.close()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert shared_loop().idle


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refresh as fast as the loop goes, so that no test waits for a tenth of a second."""
    loop = RefreshLoop(most_hz=10_000.0, most_share=1.0)
    monkeypatch.setattr(live_module, "shared_loop", lambda: loop)


def channel_of(widget: Any, comms: list[FakeComm]) -> FakeComm:
    """The comm of a widget's model."""
    return next(made for made in comms if made.comm_id == widget.model_id)
