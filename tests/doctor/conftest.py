"""What tests share that let servers on loopback stand for servers elsewhere."""

from __future__ import annotations

import pytest

from hftlab.doctor import time_servers


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated servers have clocks of their own: they count as other machines, though they are on this one."""
    monkeypatch.setattr(time_servers, "asked_itself", lambda statistics, own: ())
